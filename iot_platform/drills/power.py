"""Drills: the power goes, and with it everything that was not synced."""

from typing import Final

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.power_disk import obstacle
from iot_platform.drills.rig.power_host import PROGRAMS, PowerHost, power_host
from iot_platform.drills.rig.registry import drill

RATE: Final = 300
ROUNDS: Final = 20
BROKER: Final = "mosquitto"
FLUSH: Final = "flush.messages"
ROLL: Final = "segment.ms"
ROLL_MS: Final = 20_000  # so that a cut meets new files, too
KAFKA_HOST: Final = ("kafka", "postgresql", "dagster-code", "dagster-daemon")
AUTOSAVE_SECONDS: Final = 10.0  # of the local stack's Mosquitto
FORGOTTEN_SECONDS: Final = 30.0  # what waited for delivery at the save before a cut was published less long before it
PATIENCE_SECONDS: Final = 600.0  # a Dagster run starts in seconds, on a busy machine in minutes
ANSWER_SECONDS: Final = 30
_FORGET_FAILURES: Final = "DELETE FROM dagster.runs WHERE status = 'FAILURE'"


@drill("power_cut", "the power cut again and again, under everything but the MQTT broker", group="power", fresh=True, obstacle=obstacle)
def power_cut(run: DrillRun) -> None:
    """Kafka, PostgreSQL, the daemon's spool and its books lose at random moments what they had not synced (while messages flow, while they
    go to the spool, while everything starts), and nothing that the daemon had acknowledged: with `flush.messages=1` Kafka, too, has on its
    disk what it confirms. (The broker stands on another host.)"""
    data = run.stack.folder / "data"
    _set(run, FLUSH, "1")
    _set(run, ROLL, str(ROLL_MS))
    folders = (data / "kafka", data / "postgresql", run.stack.folder / INGEST)
    with power_host(run, [name for name in PROGRAMS if name != BROKER], *folders) as host:
        run.fleet.start(rate=RATE)
        run.await_stored(500, PATIENCE_SECONDS)
        for number in range(run.rounds(ROUNDS)):
            scene = run.rng.choice((_flowing, _flowing, _spooling, _starting, _starting))
            scene(run, host)
            with run.fault(f"power cut {number + 1}, {scene.__name__.removeprefix('_')}"):
                host.cut()
                host.back(ready=False)
        host.start()
        run.fleet.finish()
        run.await_stored(run.fleet.acknowledged, PATIENCE_SECONDS)
        _note_host(run, host)
    run.check(run.stack.accounting()["missing"] == 0, "the daemon misses entries of its spool")


@drill("power_cut_unsynced", "the power cut under a Kafka that syncs when it likes", group="power", fresh=True, obstacle=obstacle)
def power_cut_unsynced(run: DrillRun) -> None:
    """With Kafka's own default for `flush.messages` a single broker loses what it confirmed, drained or not. The drain goes on by itself
    where the old and the new log part, what was drained stays, and the audit names exactly the messages that are lost. (The daemon is on
    another host: its books are exact.)"""
    data = run.stack.folder / "data"
    _set(run, FLUSH, None)
    with power_host(run, KAFKA_HOST, data / "kafka", data / "postgresql") as host:
        run.fleet.start(rate=RATE)
        run.await_stored(500, PATIENCE_SECONDS)
        for number in range(max(2, run.rounds(ROUNDS) // 4)):
            scene = run.rng.choice((_flowing, _undrained))
            scene(run, host)
            with run.fault(f"power cut {number + 1}, {scene.__name__.removeprefix('_')}"):
                host.cut()
                host.back()
        run.fleet.finish()
        run.expect_losses("Kafka confirmed them before they were on its disk")
        _note_host(run, host)


@drill("power_cut_broker", "the power cut under everything, the MQTT broker too", group="power", fresh=True, obstacle=obstacle)
def power_cut_broker(run: DrillRun) -> None:
    """Mosquitto starts again with the queues of its last save. It loses what it took since then and had not delivered, and delivers again,
    as new messages, what was acknowledged since then; nothing that is older, and nothing that the daemon had acknowledged."""
    data = run.stack.folder / "data"
    with power_host(run, PROGRAMS, data / BROKER, data / "kafka", data / "postgresql", run.stack.folder / INGEST) as host:
        _set(run, FLUSH, "1")
        run.fleet.start(rate=RATE)
        for number in range(max(2, run.rounds(ROUNDS) // 4)):
            _flowing(run, host)
            run.hold(AUTOSAVE_SECONDS)
            run.stack.kill_for_good(INGEST)
            run.hold(run.rng.uniform(1, 3))
            with run.fault(f"power cut {number + 1}, the daemon away"):
                host.cut()
                run.forgive(FORGOTTEN_SECONDS)
                host.back()
        run.fleet.finish()
        _note_host(run, host)


# -- what a cut meets ------------------------------------------------------------------------------------------
def _begin(run: DrillRun, host: PowerHost) -> None:
    """Everything serves, and a drain run may start: the growing pauses after failed ones are for cuts that are minutes apart."""
    host.start()
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute(_FORGET_FAILURES)


def _flowing(run: DrillRun, host: PowerHost) -> None:
    """Messages come all the way again."""
    _begin(run, host)
    run.await_stored(run.stored() + run.rng.randrange(50, 500), PATIENCE_SECONDS)
    run.hold(run.rng.uniform(0, 1))


def _spooling(run: DrillRun, host: PowerHost) -> None:
    """Kafka is away, and the daemon acknowledges from its spool."""
    _begin(run, host)
    run.stack.kill_for_good("kafka")
    wanted = run.rng.randrange(100, 1000)
    run.await_true("messages in the spool", lambda: (run.stack.metrics() or {}).get("iot_ingest_spool_messages", 0) > wanted)


def _starting(run: DrillRun, _host: PowerHost) -> None:
    """Everything is still coming up after the last cut."""
    run.hold(run.rng.uniform(0, 8))


def _undrained(run: DrillRun, host: PowerHost) -> None:
    """Messages come to Kafka, but not further."""
    _begin(run, host)
    run.stack.stop("dagster-daemon", "dagster-code")
    run.await_true("no drain runs", lambda: not run.stack.drain_pids())
    run.hold(run.rng.uniform(1, 4))


# -- Kafka -----------------------------------------------------------------------------------------------------
def _set(run: DrillRun, name: str, value: str | None) -> None:
    """A setting of the topic; None is Kafka's default."""
    operation = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
    entry = ConfigEntry(name, value or "", incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, run.settings.kafka_topic, incremental_configs=[entry])
    with run.kafka_admin() as admin:
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(ANSWER_SECONDS)


def _note_host(run: DrillRun, host: PowerHost) -> None:
    run.note(f"{host.cuts} power cuts: {host.fate}")
    receipts = host.receipts()
    run.note(f"Kafka found {len(receipts)} logs with a torn end" + (f", such as: {receipts[0][:200]}" if receipts else ""))
