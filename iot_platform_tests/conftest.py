"""Fixtures of all tests. The real servers start with the first test that asks for them; see fix_stack."""

import os

from iot_platform_tests.fix_audit import accountant, told
from iot_platform_tests.fix_community import community, pglite
from iot_platform_tests.fix_ingest_own import own_broker, own_daemon, own_kafka
from iot_platform_tests.fix_quality import world
from iot_platform_tests.fix_simulation import database, simulation
from iot_platform_tests.fix_stack import dagster, ingest, programs, servers, settings, template_database
from iot_platform_tests.fix_tenants import two_tenants

KEPT = ("IOT_CACHE_DIR", "IOT_DRILL_OUTAGE_SECONDS", "IOT_DRILL_SEED")
for name in [name for name in os.environ if name.startswith("IOT_") and name not in KEPT]:
    del os.environ[name]  # the developer's own servers are none of the tests' business

__all__ = [
    "accountant",
    "community",
    "dagster",
    "database",
    "ingest",
    "own_broker",
    "own_daemon",
    "own_kafka",
    "pglite",
    "programs",
    "servers",
    "settings",
    "simulation",
    "template_database",
    "told",
    "two_tenants",
    "world",
]
