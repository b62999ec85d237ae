"""Fixtures of all tests. The real servers start with the first test that asks for them; see fix_stack."""

import os

import hypothesis
import pytest

from iot_platform_tests.fix_audit import accountant, told
from iot_platform_tests.fix_community import community, community_database, each_edition, edition, pglite
from iot_platform_tests.fix_first_chain import first_chain
from iot_platform_tests.fix_ingest_own import own_broker, own_daemon, own_kafka
from iot_platform_tests.fix_quality import world
from iot_platform_tests.fix_secured_kafka import secured_kafka
from iot_platform_tests.fix_simulation import database, simulation
from iot_platform_tests.fix_stack import dagster, ingest, programs, servers, settings, template_database
from iot_platform_tests.fix_tenants import two_tenants

KEPT = ("IOT_CACHE_DIR", "IOT_DRILL_OUTAGE_SECONDS", "IOT_DRILL_SEED")
for name in [name for name in os.environ if name.startswith("IOT_") and name not in KEPT]:
    del os.environ[name]  # the developer's own servers are none of the tests' business

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one is no fault
hypothesis.settings.load_profile("any machine")

__all__ = [
    "accountant",
    "community",
    "community_database",
    "dagster",
    "database",
    "edition",
    "first_chain",
    "ingest",
    "own_broker",
    "own_daemon",
    "own_kafka",
    "pglite",
    "programs",
    "secured_kafka",
    "servers",
    "settings",
    "simulation",
    "template_database",
    "told",
    "two_tenants",
    "world",
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both editions of TimescaleDB; see fix_community."""
    each_edition(metafunc)
