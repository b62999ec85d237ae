"""Drills: disks that are full for real, under the ingest daemon's spool and under PostgreSQL; a spool at its limit."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg2

from iot_platform.drills.rig.drill_run import DrillError, DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.registry import drill
from iot_platform.drills.rig.small_disk import SmallDisk, SmallDiskError, obstacle, small_disk

SPOOL_DISK_BYTES: Final = 128 << 20
DATABASE_SPARE_BYTES: Final = 512 << 20
SPOOL_LIMIT_BYTES: Final = 1 << 20
STATE_DIR, SPOOL_LIMIT = "IOT_INGEST_STATE_DIR", "IOT_INGEST_SPOOL_BYTES"
_DATABASE: Final = ("dagster-daemon", "dagster-code", "postgresql")
_LOG: Final = "SELECT pg_logical_emit_message(false, 'drill', repeat('x', 4000000))"
_LOG_MESSAGES: Final = 200


@drill("disk_full_spool", "Kafka down and the disk under the spool full", group="storage", obstacle=obstacle)
def disk_full_spool(run: DrillRun) -> None:
    """Without Kafka and without room the daemon stays up, acknowledges nothing more and names the setting; the broker holds the messages.
    Room is enough for it to go on by itself."""
    with _small(run, run.stack.folder / INGEST, SPOOL_DISK_BYTES, INGEST) as disk:
        pid = _begin(run)
        with run.fault("Kafka stopped; soon the disk under the spool is full"):
            run.stack.stop("kafka")
            run.await_true("messages in the spool", lambda: _spooled(run) > 500)
            disk.fill()
            _holds(run, STATE_DIR)
            full_at = _spooled(run)
            disk.make_room()
            run.await_true("more messages in the spool", lambda: _spooled(run) >= full_at + 500)
            run.stack.start("kafka")
        run.fleet.finish()
        run.await_stored(run.fleet.acknowledged)
        run.await_true("an empty spool", lambda: _spooled(run) == 0)
        run.check(run.stack.pid(INGEST) == pid, "the daemon did not live through the full disk")


@drill("disk_full_spool_kafka_up", "The disk under the spool full, Kafka fine", group="storage", obstacle=obstacle)
def disk_full_spool_kafka_up(run: DrillRun) -> None:
    """A full disk disturbs nothing while Kafka takes the messages, also over an MQTT reconnection."""
    with _small(run, run.stack.folder / INGEST, SPOOL_DISK_BYTES, INGEST) as disk:
        pid = _begin(run)
        with run.fault("disk under the spool full"):
            disk.fill()
            run.await_stored(run.stored() + 2000)
            before = run.stack.accounting()["connections"][-1]["number"]
            run.stack.proxy("mqtt").reset()
            run.await_true("a new MQTT connection", lambda: _settled_since(run, before) > 500)
            disk.fill()  # what the daemon remembered of the connection before had no room for its successor, and went
            run.await_stored(run.stored() + 1000)
            run.check(run.stack.problems() == [], f"the daemon complains, although messages flow: {run.stack.problems()}")
            run.check(disk.free_bytes == 0, "the disk was not full all the time")
            disk.make_room()
        run.fleet.finish()
        run.await_stored(run.fleet.acknowledged)
        run.check(run.stack.pid(INGEST) == pid, "the daemon did not live through the full disk")


@drill("spool_limit_reached", "Kafka down until the spool is at its limit", group="storage")
def spool_limit_reached(run: DrillRun) -> None:
    """At IOT_INGEST_SPOOL_BYTES the daemon acknowledges nothing more and names that setting; with Kafka back, spool and broker empty in
    order."""
    run.stack.ingest_environment[SPOOL_LIMIT] = str(SPOOL_LIMIT_BYTES)
    run.stack.restart(INGEST)
    pid = _begin(run)
    with run.fault("Kafka stopped"):
        run.stack.stop("kafka")
        _holds(run, SPOOL_LIMIT)
        run.stack.start("kafka")
    run.fleet.finish()
    run.check(run.stack.pid(INGEST) == pid, "the daemon did not live through the outage")


@drill(
    "disk_full_database",
    "The disk under PostgreSQL full, until it crashes and cannot start",
    group="storage",
    fresh=True,
    obstacle=obstacle,
)
def disk_full_database(run: DrillRun) -> None:
    """Tables that cannot grow, then a write-ahead log that cannot: drains retry, nothing is lost or doubled, and once there is room
    PostgreSQL, Dagster and the drain catch up by themselves."""
    folder = run.stack.folder / "data" / "postgresql"
    with _small(run, folder, _size(folder) + DATABASE_SPARE_BYTES, *_DATABASE) as disk:
        _begin(run)
        with run.fault("disk under PostgreSQL full"):
            disk.fill()
            # Until then rows still find room in pages that the tables have already.
            run.await_true("a table that cannot grow", lambda: "No space left on device" in run.stack.log("postgresql"), 60)
            stored = run.stored()
            run.hold(6)
            run.check(run.stored() - stored < 1000, "messages were stored on a full disk")
            _crash(run)
            run.hold(3)
            disk.make_room()
        run.fleet.finish()
        run.stack.await_ready("postgresql")
        run.await_stored(run.fleet.acknowledged)


# -- the ingest daemon -----------------------------------------------------------------------------------------
def _begin(run: DrillRun) -> int:
    """Messages have come all the way; the daemon's process id."""
    run.fleet.start(rate=500)
    run.await_stored(500)
    return run.stack.pid(INGEST)


def _holds(run: DrillRun, setting: str) -> None:
    """Until the daemon says, naming the setting, that it takes no more; it must then acknowledge nothing, and its log says so too."""

    def named(texts: list[str] | None) -> bool:
        return any(setting in text for text in texts or [])

    run.await_true(f"/readyz names {setting}", lambda: named(run.stack.problems()), 90)
    run.hold(2.5)  # what was under way when it began
    settled = _settled(run)
    run.hold(2.5)
    run.check(_settled(run) == settled, f"{_settled(run) - settled} messages were acknowledged although there was no room for them")
    metrics = run.stack.metrics() or {}
    run.check(metrics.get("iot_ingest_messages_in_flight", 0) > 0, "the daemon holds nothing back")
    run.check(named(run.stack.log(INGEST).splitlines()), f"the daemon's log does not name {setting}")
    run.note(f"the daemon said: {'; '.join(run.stack.problems() or [])}")


def _spooled(run: DrillRun) -> int:
    return int((run.stack.metrics() or {}).get("iot_ingest_spool_messages", 0))


def _settled(run: DrillRun) -> int:
    """Messages that may have been acknowledged."""
    books = run.stack.accounting()
    return int(books["received"] - books["in_flight"])


def _settled_since(run: DrillRun, connection: int) -> int:
    """Messages in Kafka of the connections after this one."""
    found: list[dict[str, Any]] = run.stack.accounting()["connections"]
    return sum(item["in_kafka"] for item in found if item["number"] > connection)


# -- disks -----------------------------------------------------------------------------------------------------
@contextmanager
def _small(run: DrillRun, folder: Path, size_bytes: int, *users: str) -> Iterator[SmallDisk]:
    """A small disk under a folder; the programs that use it are stopped while it comes and goes."""

    def start() -> None:
        for name in reversed(users):
            run.stack.start(name)

    run.stack.stop(*users)
    try:
        with small_disk(folder, size_bytes) as disk:
            try:
                start()
                yield disk
            finally:
                disk.make_room()
                run.stack.stop(*users)
    except SmallDiskError as error:
        raise DrillError(str(error)) from error
    finally:
        start()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _crash(run: DrillRun) -> None:
    """Write to PostgreSQL's log until that finds no room: it panics, and cannot finish its recovery either."""
    url = run.stack.postgresql.url("postgres", "postgres")
    for _ in range(_LOG_MESSAGES):
        with suppress(psycopg2.OperationalError):
            connection = psycopg2.connect(url)
            try:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(_LOG)
                continue
            finally:
                connection.close()
        break
    run.await_true("a panic of PostgreSQL", lambda: "PANIC" in run.stack.log("postgresql"), 20)
    run.note("PostgreSQL panicked: no room for its write-ahead log")
