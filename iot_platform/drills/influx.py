"""Drills: InfluxDB as a second store, killed, cut off, slow, full, dropped, and the runs that follow killed; both stores have the same set
afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from iot_platform.drills.kafka_loss import iot
from iot_platform.drills.network import finish
from iot_platform.drills.rig import influxd, small_disk
from iot_platform.drills.rig.drill_run import DrillError, DrillRun
from iot_platform.drills.rig.influxd import INFLUXD
from iot_platform.drills.rig.registry import drill
from iot_platform.drills.storage import small
from iot_platform.influx.target import Target, targets

RATE: Final = 300.0
SECONDS: Final = 30.0
DISK_BYTES: Final = 64 << 20
PATIENCE_SECONDS: Final = 300.0
"""After a run that failed the next one comes a minute later."""
_BEHIND: Final = """
SELECT (SELECT count(*) FROM sink_progress) = 0 OR EXISTS (SELECT FROM sink_progress WHERE lag > 0) OR EXISTS (SELECT FROM sink_backfill)"""


@drill("influx_killed", "InfluxDB killed while data flows", group="influx", influx=True, obstacle=influxd.obstacle)
def influx_killed(run: DrillRun) -> None:
    """kill -9 at any moment, and a longer absence: what InfluxDB had acknowledged it has, the rest is sent again, and both stores have the
    same set of points with the same values."""
    with _followed(run):
        for _ in range(3):
            with run.fault("InfluxDB killed"):
                run.stack.kill(INFLUXD)
                run.hold(run.rng.uniform(0.5, 3.0))
        with run.fault("InfluxDB away"):
            run.stack.kill_for_good(INFLUXD)
            run.hold(8.0)
            run.stack.start(INFLUXD)


@drill("influx_run_killed", "the runs that follow for InfluxDB killed", group="influx", influx=True, obstacle=influxd.obstacle)
def influx_run_killed(run: DrillRun) -> None:
    """kill -9 of every run worker, before or after InfluxDB's answer: the next one repeats what was not noted, and nothing is doubled."""
    with _followed(run):
        for _ in range(3):
            with run.fault("run workers killed"):
                run.await_true("a run worker", lambda: bool(run.stack.kill_drain()), PATIENCE_SECONDS)
                run.hold(run.rng.uniform(0.5, 4.0))


@drill("influx_cut", "network to InfluxDB cut, half-open, slow", group="influx", influx=True, obstacle=influxd.obstacle)
def influx_cut(run: DrillRun) -> None:
    """Requests that did not arrive, answers that were lost and a link that crawls: what is sent again is the same, so both stores have the
    same set."""
    link = run.stack.proxy("influx")
    with _followed(run):
        with run.fault("network to InfluxDB cut"):
            link.cut()
            run.hold(5.0)
            link.heal()
        with run.fault("InfluxDB's answers lost"):
            link.deaf(up=False)
            run.hold(8.0)
            link.cut()
            link.heal()
        with run.fault("link to InfluxDB slow (50 kB/s, 200 ms)"):
            link.slow(bytes_per_second=50_000, latency_seconds=0.2)
            run.hold(10.0)
            link.heal()


@drill(
    "influx_disk_full",
    "The disk under InfluxDB full",
    group="influx",
    influx=True,
    obstacle=lambda: influxd.obstacle() or small_disk.obstacle(),
)
def influx_disk_full(run: DrillRun) -> None:
    """InfluxDB refuses all writes of the week, also with room again, until it is restarted: the run repeats, its error says so, and
    after the restart nothing is missing."""
    data = run.stack.folder / "data" / INFLUXD
    with small(run, data, DISK_BYTES, INFLUXD) as disk, _followed(run), run.fault("disk under InfluxDB full"):
        disk.fill()
        run.await_true("an error that tells to restart", lambda: "until influxd is restarted" in _error(run), PATIENCE_SECONDS)
        disk.make_room()
        run.stack.restart(INFLUXD)


@drill("influx_dropped", "InfluxDB's database dropped", group="influx", influx=True, obstacle=influxd.obstacle)
def influx_dropped(run: DrillRun) -> None:
    """Nothing is sent any more, and the run says which setting to look at; made anew and backfilled, the database has everything again."""
    from iot_platform.influx.client import InfluxClient, identifier  # urllib3, of an extra

    with _followed(run), run.fault("database dropped"), InfluxClient(_direct(run)) as client:
        client.query(f"DROP DATABASE {identifier(_direct(run).database)}")
        run.await_true("an error that names the setting", lambda: "IOT_INFLUX_URL" in _error(run), PATIENCE_SECONDS)
        client.query(f"CREATE DATABASE {identifier(_direct(run).database)}")
        _iot(run, "influx", "backfill", "--from", "90d", "--to", _soon())


# -- both stores ---------------------------------------------------------------------------------------------------
@contextmanager
def _followed(run: DrillRun) -> Iterator[None]:
    """The fleet publishes and InfluxDB follows; at the end both stores have the same set."""
    run.fleet.start(rate=RATE, seconds=SECONDS)
    run.await_stored(run.rng.randrange(300, 1000), seconds=PATIENCE_SECONDS)
    run.await_true("InfluxDB follows", lambda: _written(run) > 0, PATIENCE_SECONDS)
    yield
    finish(run)
    _await_equal(run)


def _await_equal(run: DrillRun) -> None:
    from iot_platform.influx.compare import compare

    run.await_stored(run.fleet.acknowledged, seconds=PATIENCE_SECONDS)
    took = run.await_true("InfluxDB has everything", lambda: not _behind(run), PATIENCE_SECONDS)
    begin, end = datetime(1970, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)
    result = compare(run.settings, _direct(run), begin, end)
    run.note(f"InfluxDB: {result.points:,} points equal {took:.0f} s after the last message was stored")
    if result.differences:
        run.check(False, f"InfluxDB differs in {len(result.differences)} hours of series, first: {result.differences[0]}")
    refused = _value(run, "SELECT count(*) FROM sink_refused")
    run.check(refused == 0, f"InfluxDB refused {refused} points")


def _direct(run: DrillRun) -> Target:
    (target,) = targets(run.settings)
    return target


def _soon() -> str:
    return f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"


def _behind(run: DrillRun) -> bool:
    return bool(_value(run, _BEHIND))


def _written(run: DrillRun) -> int:
    return int(str(_value(run, "SELECT coalesce(sum(written), 0) FROM sink")))


def _error(run: DrillRun) -> str:
    return str(_value(run, "SELECT coalesce(min(error), '') FROM sink"))


def _value(run: DrillRun, query: str) -> object:
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return (cursor.fetchone() or (None,))[0]


def _iot(run: DrillRun, *arguments: str) -> None:
    code, shown = iot(run, *arguments)
    if code:
        raise DrillError(f"iot {' '.join(arguments)}: {shown[-800:]}")
