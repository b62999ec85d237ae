"""A small platform with a past: some days of messages of two tenants, drained and rolled up, and a daemon that reports them."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

from iot_platform.audit import AuditResult, run_audit
from iot_platform.database import connect
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.accountant import Accountant
from iot_platform_tests.support.feeds.drain import Feed, drain, query

ROOT = "mtic/msg/client/realtime"
TENANTS = {"acme": ("north", "south"), "other": ("p",)}
DAYS = 7
PER_DAY = 24


def fill(settings: Settings, accountant: Accountant, days: int = DAYS, step: timedelta = timedelta(days=1)) -> Settings:
    """So many days with PER_DAY messages each, in turn of three projects and two partitions; one in eleven is quarantined."""
    feed = Feed(settings)
    number = 0
    projects = [(tenant, project) for tenant, names in TENANTS.items() for project in names]
    for day in range(days - 1, -1, -1):
        for index in range(PER_DAY):
            tenant, project = projects[number % len(projects)]
            age = step * day + step / PER_DAY * (PER_DAY - 1 - index) / 2 + timedelta(minutes=1)
            payload = b"broken" if number % 11 == 5 else b'{"n":%d,"t":20.5}' % number
            feed.send(payload, partition=number % 2, topic=f"{ROOT}/{tenant}/{project}/d{number % 2}", age=age)
            number += 1
    feed.flush()
    drain(settings.model_copy(update={"drain_batch_records": 10}))
    accountant.says((1, number, number, number))
    reported = settings.model_copy(update={"ingest_http_url": accountant.url})
    roll_up(reported)
    return reported


def audit(settings: Settings) -> AuditResult:
    """Everything since the beginning."""
    return run_audit(settings, since=None, wait_seconds=20)


def problems(settings: Settings) -> list[str]:
    """Differences that an audit of everything finds."""
    return [item.text for item in audit(settings).differences]


def checksums(settings: Settings, tenant: str) -> dict[str, tuple[int, str]]:
    """Rows, and a hash of all columns of all rows, of one tenant in every table that has any of it."""
    by_series = "WHERE series_id IN (SELECT series_id FROM series WHERE tenant_id = %s)"
    tables = {
        "message": "WHERE source_id IN (SELECT source_id FROM source WHERE tenant_id = %s)",
        **dict.fromkeys(("measurement", "measurement_1h", "measurement_1d", "series_latest", "rollup_change"), by_series),
        **dict.fromkeys(
            ("quarantine", "accounting_1h", "series", "source", "project", "retention_policy", "retention_mark", "retention_sum"),
            "WHERE tenant_id = %s",
        ),
    }
    return {
        table: query(
            settings,
            f"SELECT count(*), coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), '') FROM {table} t {where}",
            tenant,
        )[0]
        for table, where in tables.items()
    }


def marks(settings: Settings) -> dict[tuple[str, str, str], datetime]:
    """retention_mark."""
    return {row[:3]: row[3] for row in query(settings, "SELECT table_name, tenant_id, project_id, removed_before FROM retention_mark")}


def cutoff(keep: timedelta) -> datetime:
    """Rows before it may go, at least."""
    return (datetime.now(UTC) - keep).replace(minute=0, second=0, microsecond=0)


def keep(settings: Settings, table: str, text: str, tenant: str = "", project: str = "") -> None:
    """iot retention set."""
    from iot_platform.retention import set_policy

    with closing(connect(settings)) as connection:
        set_policy(connection, table, text, tenant=tenant, project=project, changed_by="test")
