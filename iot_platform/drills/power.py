"""Drills: the power goes, and with it everything that a disk had not been told to keep."""

from typing import Final

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from iot_platform.drills.power_disk import obstacle
from iot_platform.drills.power_host import PROGRAMS, PowerHost, power_host
from iot_platform.drills.registry import drill
from iot_platform.drills.run import DrillRun
from iot_platform.drills.stack import INGEST

RATE: Final = 300
ROUNDS: Final = 20
BROKER: Final = "mosquitto"
FLUSH: Final = "flush.messages"
PATIENCE_SECONDS: Final = 300.0
ANSWER_SECONDS: Final = 30


@drill("power_cut", "the power cut again and again, under everything but the MQTT broker", group="power", fresh=True, obstacle=obstacle)
def power_cut(run: DrillRun) -> None:
    """Kafka, PostgreSQL, the daemon's spool and its books lose at random moments what they had not synced (while messages flow, while they
    go to the spool, while everything starts), and nothing that the daemon had acknowledged: with `flush.messages=1` Kafka, too, has on its
    disk what it confirms. (The broker stands on another host.)"""
    data = run.stack.folder / "data"
    _set_flush(run, "1")
    folders = (data / "kafka", data / "postgresql", run.stack.folder / INGEST)
    with power_host(run, [name for name in PROGRAMS if name != BROKER], *folders) as host:
        run.fleet.start(rate=RATE)
        run.await_stored(500, PATIENCE_SECONDS)
        for number in range(run.rounds(ROUNDS)):
            scene = run.rng.choice((_flowing, _flowing, _spooling, _starting))
            scene(run, host)
            with run.fault(f"power cut {number + 1}, {scene.__name__.removeprefix('_')}"):
                host.cut()
                host.back(ready=False)
        host.start()
        run.fleet.finish()
        run.await_stored(run.fleet.acknowledged, PATIENCE_SECONDS)
        _tell(run, host)
    run.check(run.stack.accounting()["missing"] == 0, "the daemon misses entries of its spool")


# -- what a cut meets ------------------------------------------------------------------------------------------
def _flowing(run: DrillRun, host: PowerHost) -> None:
    """Messages come all the way again."""
    host.start()
    run.await_stored(run.stored() + run.rng.randrange(50, 500), PATIENCE_SECONDS)
    run.hold(run.rng.uniform(0, 1))


def _spooling(run: DrillRun, host: PowerHost) -> None:
    """Kafka is away, and the daemon acknowledges from its spool."""
    host.start()
    run.stack.kill_for_good("kafka")
    wanted = run.rng.randrange(100, 1000)
    run.await_true("messages in the spool", lambda: (run.stack.metrics() or {}).get("iot_ingest_spool_messages", 0) > wanted)


def _starting(run: DrillRun, _host: PowerHost) -> None:
    """Everything is still coming up after the last cut."""
    run.hold(run.rng.uniform(0, 8))


# -- Kafka -----------------------------------------------------------------------------------------------------
def _set_flush(run: DrillRun, value: str | None) -> None:
    """The topic's `flush.messages`; None is Kafka's default: whenever the kernel likes."""
    operation = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
    entry = ConfigEntry(FLUSH, value or "", incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, run.settings.kafka_topic, incremental_configs=[entry])
    admin = AdminClient({**run.settings.kafka_config(), "log_level": 0})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(ANSWER_SECONDS)


def _tell(run: DrillRun, host: PowerHost) -> None:
    run.note(f"{host.cuts} power cuts: {host.fate}")
    receipts = host.receipts()
    run.note(f"Kafka found {len(receipts)} logs with a torn end" + (f", such as: {receipts[0][:200]}" if receipts else ""))
