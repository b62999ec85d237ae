"""Fixtures of all tests. The real servers start with the first test that asks for them; see support/servers."""

import os

import hypothesis
import pytest

from iot_platform_tests.support.children.killer import killer
from iot_platform_tests.support.children.victims import lifecycle_process, victims
from iot_platform_tests.support.feeds.accountant import accountant, reported
from iot_platform_tests.support.feeds.quality import world
from iot_platform_tests.support.feeds.simulation import database, simulation
from iot_platform_tests.support.feeds.tenants import two_tenants
from iot_platform_tests.support.kubernetes.cluster import cluster
from iot_platform_tests.support.kubernetes.cluster_runs import cluster_runs
from iot_platform_tests.support.kubernetes.control_plane import control_plane
from iot_platform_tests.support.oracles.grafana_display import grafana_display
from iot_platform_tests.support.servers.backed_up import backed_up
from iot_platform_tests.support.servers.community import community, community_database, each_edition, edition, pglite, without_apache
from iot_platform_tests.support.servers.console import console
from iot_platform_tests.support.servers.containers import containers
from iot_platform_tests.support.servers.first_chain import first_chain
from iot_platform_tests.support.servers.influxd import influx, influxd
from iot_platform_tests.support.servers.own_servers import own_broker, own_daemon, own_kafka
from iot_platform_tests.support.servers.previous_release import previous_release
from iot_platform_tests.support.servers.secured_broker import secured_broker
from iot_platform_tests.support.servers.secured_kafka import secured_kafka
from iot_platform_tests.support.servers.stack import dagster, ingest, programs, servers, settings, template_database
from iot_platform_tests.support.servers.update_root import update_root

KEPT = (
    "IOT_CACHE_DIR",
    "IOT_TEST_COMMUNITY_URL",
    "IOT_TEST_NEWEST_TIMESCALEDB",
    "IOT_TEST_EXAMPLES",
    "IOT_TEST_UPDATE_ROOT",
    "IOT_TEST_BROKERS_REPORT",
    "IOT_DRILL_OUTAGE_SECONDS",
    "IOT_DRILL_SEED",
)
for name in [name for name in os.environ if name.startswith("IOT_") and name not in KEPT]:
    del os.environ[name]  # the developer's own servers are none of the tests' business

# Servers that live for seconds or minutes: what the second compiler spends on them never comes back. Half of Kafka's processor time.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one is no fault
hypothesis.settings.load_profile("any machine")

__all__ = [
    "accountant",
    "backed_up",
    "cluster",
    "cluster_runs",
    "community",
    "community_database",
    "console",
    "containers",
    "control_plane",
    "dagster",
    "database",
    "edition",
    "first_chain",
    "grafana_display",
    "influx",
    "influxd",
    "ingest",
    "killer",
    "lifecycle_process",
    "own_broker",
    "own_daemon",
    "own_kafka",
    "pglite",
    "previous_release",
    "programs",
    "reported",
    "secured_broker",
    "secured_kafka",
    "servers",
    "settings",
    "simulation",
    "template_database",
    "two_tenants",
    "update_root",
    "victims",
    "world",
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both editions of TimescaleDB; see support/servers/community.py."""
    each_edition(metafunc)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Apache's own tests don't run on a Community server; see support/servers/community.py."""
    without_apache(items)
