"""Drills: kill -9 of every process, at random moments and at named points of a batch."""

import os
import signal
from typing import Final

from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.registry import drill
from iot_platform.drills.rig.second_drain import RUN_ID
from iot_platform.drills.rig.wire import Point

RATE: Final = 1000
KILLS: Final = 2
DAGSTER: Final = ("dagster-daemon", "dagster-code")


def _begin(run: DrillRun, seconds: float = 20) -> None:
    """The fleet publishes, and the first messages have come all the way."""
    run.fleet.start(rate=RATE, seconds=seconds)
    run.await_stored(run.rng.randrange(500, 3000))


def _await_busy(run: DrillRun) -> None:
    """Until the daemon holds messages that it has not acknowledged, so that a kill meets it at work."""

    def busy() -> bool:
        metrics = run.stack.metrics()
        return not run.fleet.running or bool(metrics and metrics["iot_ingest_messages_in_flight"] >= 5)

    run.await_true("messages in flight in the ingest daemon", busy)


# -- the ingest daemon -----------------------------------------------------------------------------------------
@drill("ingest_killed", "kill -9 of the ingest daemon", group="processes", fast=True)
def ingest_killed(run: DrillRun) -> None:
    """What the daemon had not acknowledged, the broker sends again; what it had acknowledged is in Kafka, or in the spool."""
    run.fleet.start(rate=RATE, seconds=15)
    run.fleet.await_acknowledged(run.rng.randrange(2000, 8000))
    _await_busy(run)
    with run.fault("kill -9 of the ingest daemon with messages in flight"):
        run.stack.kill(INGEST)
    run.stack.await_ready(INGEST)
    run.fleet.finish()


@drill("ingest_killed_repeatedly", "kill -9 of the ingest daemon again and again, within a second of its start", group="processes")
def ingest_killed_repeatedly(run: DrillRun) -> None:
    """A start that is killed half-way leaves nothing behind that the next one could not go on from: no number is used twice."""
    run.fleet.start(rate=RATE, seconds=25)
    run.fleet.await_acknowledged(run.rng.randrange(2000, 6000))
    with run.fault("kill -9 of the ingest daemon, 5 times within a second of its start"):
        for _ in range(5):
            run.await_true("the daemon is started again", lambda: run.stack.pid(INGEST) > 0)
            run.hold(run.rng.uniform(0.05, 1.0))
            run.stack.kill(INGEST)
    run.stack.await_ready(INGEST)
    run.fleet.finish()


# -- the servers -----------------------------------------------------------------------------------------------
@drill("kafka_killed", "kill -9 of Kafka", group="processes")
def kafka_killed(run: DrillRun) -> None:
    """The daemon spools, the drain waits; what Kafka had confirmed is in its log, what it had not is sent again and recognised."""
    _begin(run)
    with run.fault("kill -9 of Kafka"):
        run.stack.kill("kafka")
        run.stack.await_ready("kafka")
    run.fleet.finish()


@drill("postgresql_killed", "kill -9 of PostgreSQL", group="processes")
def postgresql_killed(run: DrillRun) -> None:
    """What was committed is there after crash recovery; what was not, the drain reads from Kafka again."""
    _begin(run)
    with run.fault("kill -9 of PostgreSQL"):
        run.stack.kill("postgresql")
        run.stack.await_ready("postgresql")
    run.fleet.finish()


# -- the drain run ---------------------------------------------------------------------------------------------
def _kill_drain_at(run: DrillRun, point: Point) -> None:
    """kill -9 of the process that drains, at a point of one of its next batches; the session is held there until it is dead."""
    _begin(run)
    with run.fault(f"kill -9 of the drain run, {point.replace('_', ' ')}, {KILLS} times"):
        for _ in range(KILLS):
            fault = run.stack.postgres_faults.arm(point, run.rng.randint(1, 4), hold=True)
            pid = fault.wait(120)
            os.kill(pid, signal.SIGKILL)
            fault.cut()
    run.fleet.finish()


@drill("drain_killed_before_commit", "kill -9 of a drain run before its COMMIT", group="processes", fast=True)
def drain_killed_before_commit(run: DrillRun) -> None:
    """All rows are written and none counts: PostgreSQL rolls back, and the next run reads the same offsets again."""
    _kill_drain_at(run, "before_commit")


@drill("drain_killed_inside_commit", "kill -9 of a drain run between its COMMIT and the answer", group="processes")
def drain_killed_inside_commit(run: DrillRun) -> None:
    """Rows and offsets move in one transaction, so the next run begins behind what was committed, although the answer was lost."""
    _kill_drain_at(run, "answer_lost")


@drill("drain_killed_after_commit", "kill -9 of a drain run after its COMMIT, at its next BEGIN", group="processes")
def drain_killed_after_commit(run: DrillRun) -> None:
    """What was committed is not read again."""
    _kill_drain_at(run, "at_begin")


@drill("drain_killed_in_copy", "kill -9 of a drain run inside COPY", group="processes")
def drain_killed_in_copy(run: DrillRun) -> None:
    """Half a batch is no batch."""
    _kill_drain_at(run, "in_copy")


@drill("two_drains", "two drain runs on the same partitions at once", group="processes")
def two_drains(run: DrillRun) -> None:
    """The drain that moves the offsets first owns the batch. The other one rolls back and reads on from there."""
    _begin(run)
    with run.fault("a second drain of all partitions, without the lock of the shard"):
        run.stack.add_program("second-drain", "-m", "iot_platform.drills.rig.second_drain")
        run.hold(15)
        run.await_true("the second drain has won a batch", lambda: RUN_ID in _batches(run), 180)
        run.stack.remove_program("second-drain")
    run.fleet.finish()
    batches = _batches(run)
    second = batches.pop(RUN_ID)
    run.note(f"{second} batches by the second drain, {sum(batches.values())} by Dagster's runs")


def _batches(run: DrillRun) -> dict[str, int]:
    """Batches committed since the drill began, by who committed them."""
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT run_id, count(*) FROM ledger WHERE batch_id > %s GROUP BY 1", (run.first_batch,))
        return dict(cursor.fetchall())


# -- Dagster ---------------------------------------------------------------------------------------------------
def _kill_program(run: DrillRun, name: str, what: str) -> None:
    _begin(run, seconds=25)
    with run.fault(f"kill -9 of {what}"):
        run.stack.kill(name)
    run.stack.await_ready(name)
    run.fleet.finish()


@drill("dagster_daemon_killed", "kill -9 of Dagster's daemon", group="processes")
def dagster_daemon_killed(run: DrillRun) -> None:
    """The shift at work goes on without it, and the next daemon requests the next shift."""
    _kill_program(run, "dagster-daemon", "Dagster's daemon")


@drill("dagster_code_killed", "kill -9 of Dagster's code server", group="processes")
def dagster_code_killed(run: DrillRun) -> None:
    """The shift at work is a process of its own and goes on; the next code server starts the next one."""
    _kill_program(run, "dagster-code", "Dagster's code server")


@drill("everything_killed", "kill -9 of everything but the MQTT broker, at once", group="processes")
def everything_killed(run: DrillRun) -> None:
    """Daemon, Kafka, PostgreSQL, Dagster and the drain die in the same moment, and go on where they were. (The broker keeps what nobody
    has acknowledged yet; what happens if it dies too, other drills show.)"""
    _begin(run, seconds=25)
    names = (INGEST, "kafka", "postgresql", *DAGSTER)
    with run.fault("kill -9 of everything but the MQTT broker"):
        for pid in (*run.stack.drain_pids(), *(run.stack.pid(name) for name in names)):
            os.kill(pid, signal.SIGKILL)
        for name in names:
            run.stack.await_ready(name)
    run.fleet.finish()


@drill("everything_restarted", "everything stopped and started again, as by make down and make up", group="processes")
def everything_restarted(run: DrillRun) -> None:
    """An orderly stop in full flow, the broker included, leaves nothing behind and forgets nothing."""
    _begin(run, seconds=25)
    with run.fault("everything stopped in the order of `make down`, and started again"):
        run.stack.stop(INGEST, *DAGSTER)
        run.stack.stop("mosquitto", "kafka", "postgresql")
        for name in ("mosquitto", "kafka", "postgresql", INGEST, *DAGSTER):
            run.stack.start(name)
    run.fleet.finish()
