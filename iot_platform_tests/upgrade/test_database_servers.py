"""A newer PostgreSQL by pg_upgrade, and back, while records come to Kafka."""

import json
import os
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Self

import pytest

from iot_platform.audit import run_audit
from iot_platform.compression.compress import compress
from iot_platform.database import connect, migrate, pending
from iot_platform.database.capabilities import read_capabilities
from iot_platform.files import SQL
from iot_platform.local.applications import write_dagster_home
from iot_platform.orchestration.environment import dagster_environment
from iot_platform.quality.evaluate import evaluate
from iot_platform.retention import run_retention, set_policy
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings, exports
from iot_platform.tenants.access import Granted, grant, revoke
from iot_platform_tests.support.feeds.community import TENANT, fill
from iot_platform_tests.support.feeds.drain import Feed, drain, query
from iot_platform_tests.support.feeds.tenants import open_login
from iot_platform_tests.support.servers.update_root import UpdateRoot
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.upgrade, pytest.mark.timeout(3600)]
HARDEN, PREPARE = ((SQL / "superuser" / f"{name}.sql").read_text("utf-8") for name in ("harden_database", "prepare_pg_upgrade"))
TABLES = (
    "SELECT time, series_id, value, value_text FROM measurement ORDER BY 2, 1",
    "SELECT * FROM measurement_1h ORDER BY 2, 1",
    "SELECT * FROM measurement_1d ORDER BY 2, 1",
    "SELECT kafka_partition, kafka_offset, payload FROM message ORDER BY 1, 2",
    "SELECT * FROM quarantine ORDER BY kafka_partition, kafka_offset",
    "SELECT * FROM kafka_offset ORDER BY 1, 2",
    "SELECT * FROM ledger ORDER BY batch_id",
    "SELECT * FROM accounting_1h ORDER BY 1, 2, 3, 4",
    "SELECT * FROM schema_migration ORDER BY 1",
    "SELECT table_name, keep FROM retention_policy ORDER BY 1, 2",
    "SELECT * FROM dagster.alembic_version",
)
SUMS = (
    "SELECT sum(value_count) FROM measurement_1h WHERE bucket >= %s",
    "SELECT sum(value_count) FROM measurement_1d WHERE bucket >= %s",
    "SELECT count(*) FROM measurement WHERE time >= %s",
)
SENDER = "tenant-that-sends"
STATISTICS = "SELECT count(*) FROM pg_stats WHERE schemaname = 'public'"


@pytest.fixture
def settings(settings: Settings, update_root: UpdateRoot) -> Settings:
    """On the older PostgreSQL, migrated, with twelve days of history: many values that nobody sent, and some of a tenant that did."""
    made = update_root.settings(settings)
    migrate(made)
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=12)
    fill(made, start, series=50, count=300, step=timedelta(minutes=5))
    feed = Feed(made)
    for hour in range(12 * 24):
        payload = b'{"deviceId":"pump","ts":%d,"flow":%d.5}' % (start.timestamp() + hour * 3600, hour)
        feed.send(payload, topic=f"mtic/msg/client/realtime/{SENDER}/plant", partition=hour % 2)
    feed.flush()
    return made


class Records:
    """Comes to Kafka all the time, until the end of the `with`."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._sent, self._done = settings, list[bytes](), threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def require_stored(self) -> None:
        """What has come so far, and 200 more if they still come; once each, and the audit has nothing to say."""
        known = len(self._sent) + (0 if self._done.is_set() else 200)
        eventually(lambda: len(self._sent) >= known, 60)
        drain(self._settings)
        stored = [payload for (payload,) in query(self._settings, "SELECT payload FROM message")]
        assert sorted(stored) == sorted(set(stored))
        assert set(self._sent[:known]) <= set(stored)
        found = run_audit(self._settings, since=datetime.fromtimestamp(0, UTC), wait_seconds=0)
        assert [item for item in found.differences if item.kind in ("offsets", "accounting")] == []

    def _send(self) -> None:
        feed = Feed(self._settings)
        while not self._done.wait(0.2):
            batch = [b'{"deviceId":"d%d","number":%d}' % (number % 7, number) for number in range(len(self._sent), len(self._sent) + 10)]
            for number, payload in enumerate(batch):
                feed.send(payload, partition=number % 2)
            feed.flush()
            self._sent += batch


def capability(settings: Settings) -> tuple[str, str, str]:
    """Edition, TimescaleDB, PostgreSQL."""
    with closing(connect(settings)) as connection:
        found = read_capabilities(connection)
        return found.edition, found.timescaledb, found.postgresql


def said_of_logins(settings: Settings) -> str:
    """What `iot doctor` says of tenants' logins."""
    command = (sys.executable, "-m", "iot_platform.cli.main", "doctor", "--all", "--json")
    shown = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **exports(settings)})
    (found,) = (item for item in json.loads(shown.stdout)["findings"] if item["what"] == "tenants' logins")
    return f"{found['state']}: {found['text']}"


def seen_by(settings: Settings, login: Granted) -> list[tuple[object, ...]]:
    """What a tenant's login sees."""
    with closing(open_login(settings, login)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*), min(time), max(time) FROM measurement")
        return list(cursor.fetchall())


def keep_house(settings: Settings, edition: str, days: int) -> None:
    """Rollups with rows that came late, quality rules and compression; and retention, which leaves so many days of what the tenant sent."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    fill(settings, today - timedelta(days=8, seconds=-days), series=50, count=30, step=timedelta(minutes=50))
    query(
        settings, "INSERT INTO rollup_change SELECT DISTINCT date_trunc('hour', time, 'UTC'), series_id FROM measurement"
    )  # as a drain notes
    assert roll_up(settings).complete
    hours, whole_days, rows = (query(settings, statement, today - timedelta(days=8)) for statement in SUMS)
    assert hours == whole_days == rows
    evaluate(settings)
    assert bool(compress(settings).done) == (edition == "community")
    with closing(connect(settings)) as connection:
        set_policy(connection, "measurement", f"{days}d", tenant=SENDER)
    done = run_retention(settings)
    assert (done.refused, done.rows > 0) == ([], True)
    ((oldest,),) = query(settings, "SELECT min(time) FROM measurement_named WHERE tenant_id = %s", SENDER)
    assert oldest > datetime.now(UTC) - timedelta(days=days, hours=1)


def test_postgresql_update_and_way_back(settings: Settings, update_root: UpdateRoot) -> None:
    """Records come to Kafka all the time. Each is stored once: after the update, again after the way back, and after a second update."""
    old, new = update_root.majors[0], update_root.majors[-1]
    edition, timescaledb, _ = capability(settings)
    write_dagster_home(settings)
    environment = {**os.environ, **exports(settings), **dagster_environment(settings)}
    subprocess.run([sys.executable, "-m", "dagster", "instance", "migrate"], check=True, capture_output=True, env=environment)

    def update() -> None:
        """The steps of docs/upgrade.md."""
        update_root.initialize(new)
        print(update_root.upgrade("--check"))
        update_root.execute(PREPARE)
        update_root.stop()
        print(update_root.upgrade())
        update_root.start(new)
        update_root.execute(HARDEN)

    with Records(settings) as records:
        records.require_stored()
        assert roll_up(settings).complete
        compress(settings)
        with closing(connect(settings, "admin")) as owner:
            login = grant(owner, TENANT)
        assert said_of_logins(settings).startswith("ok")
        update_root.execute("ANALYZE")
        statistics = update_root.execute(STATISTICS)
        before, seen = [query(settings, table) for table in TABLES], seen_by(settings, login)

        update()
        assert capability(settings)[:2] == (edition, timescaledb)
        assert capability(settings)[2].startswith(f"{new}.")
        assert [query(settings, table) for table in TABLES] == before
        assert seen_by(settings, login) == seen
        assert pending(settings) == []
        print(f"statistics of columns: {statistics} before, {update_root.execute(STATISTICS)} after")
        socket = ("-h", "/srv", "-p", str(update_root.port), "-U", "postgres")
        print(update_root.run(new, "vacuumdb", *socket, "--all", "--analyze-in-stages"))
        assert update_root.execute(STATISTICS)[0] >= statistics[0]
        assert said_of_logins(settings).startswith("ok")
        records.require_stored()
        keep_house(settings, edition, 10)
        with closing(connect(settings, "admin")) as owner:
            revoke(owner, TENANT)
            login = grant(owner, TENANT)
        assert seen_by(settings, login) != []

        update_root.stop()  # back: the older server has its offsets of before, and Kafka what came since
        update_root.start(old)
        update_root.execute(HARDEN)
        assert [query(settings, table) for table in TABLES] == before
        records.require_stored()
        assert roll_up(settings).complete  # no retention: it needs the infinite intervals of PostgreSQL 17

        update()
        records.require_stored()
        keep_house(settings, edition, 9)
