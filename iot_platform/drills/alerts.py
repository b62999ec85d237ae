"""Drills: each alert arrives where people look, ends when all is well again, and none comes that nothing is wrong for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from iot_platform.drills.kafka_loss import accept_loss, come_to_rest, cut_logs, flow
from iot_platform.drills.rig.alert_watch import METRICS, TENANT_LATE_SECONDS, obstacle, watching
from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.registry import drill
from iot_platform.drills.topics import DELETED, DRAIN, delete_records, stop_drain

SLOW: Final = 20.0
"""Messages a second where only their coming matters."""
LATE: Final = {
    "FreshnessBurnsFast": "messages that waited are late",
    "FreshnessBurnsSlow": "messages that waited are late",
    "TenantLate": "messages that waited are late",
}
DRAINS_FAIL: Final = {
    "DagsterRunsFail": "drain runs fail while their server is away",
    "DagsterTickFails": "sensors' ticks fail while their server is away",
    "DrainStalled": "nothing can be committed meanwhile",
}
UNAVAILABLE: Final = {
    "IngestUnavailable": "no daemon takes messages meanwhile",
    "IngestAvailabilityBudget": "no daemon takes messages meanwhile",
}


@drill("alert_daemon_killed", "the ingest daemon dies, then `iot metrics`, then a receiver refuses", group="alerts", obstacle=obstacle)
def alert_daemon_killed(run: DrillRun) -> None:
    """Nobody takes messages: told within a minute or two, and ended by the rule's window five minutes after the daemon is back. An exporter
    that is away and notifications that are refused are told, too."""
    with watching(run) as watch:
        run.fleet.start(rate=SLOW, seconds=10)
        run.await_stored(50)
        with watch.fault("ingest daemon killed", "IngestUnavailable", "IngestAvailabilityBudget", excused=LATE) as killed:
            run.stack.kill_for_good(INGEST)
            watch.await_told(killed)
            run.stack.start(INGEST)
        with watch.fault("a receiver of notifications answers 500", "NotificationsFail") as refused:
            watch.refusing = True
            with watch.fault("`iot metrics` killed", "ExporterDown", "TargetDown") as away:
                run.stack.kill_for_good(METRICS)
                watch.await_told(away)
                run.stack.start(METRICS)
            watch.await_ended(away)
            watch.await_told(refused)
            watch.refusing = False
        watch.await_ended()
        run.fleet.finish()


@drill("alert_kafka_down", "Kafka stops until the spool is full; the spool's file is away for a while", group="alerts", obstacle=obstacle)
def alert_kafka_down(run: DrillRun) -> None:
    """Kafka's end, a spool that fills, is full, and misses what it held, and ticks that fail are told by name. With its file back the
    spool misses nothing."""
    run.stack.ingest_environment["IOT_INGEST_SPOOL_BYTES"] = str(8 << 20)
    run.stack.restart(INGEST)
    with watching(run) as watch:
        run.fleet.start(rate=SLOW, seconds=10)
        run.await_stored(50)
        excused = LATE | DRAINS_FAIL | UNAVAILABLE | {"FiguresOld": "Kafka's figures are those of before"}
        with watch.fault("Kafka stopped", "IngestKafkaDown", "ServerDown", "DagsterTickFails", excused=excused) as stopped:
            run.stack.kill_for_good("kafka")
            run.await_true("messages in the spool", lambda: (run.stack.metrics() or {}).get("iot_ingest_spool_messages", 0) > 50)
            run.fleet.finish()
            with watch.fault("the spool's file taken away", "IngestMessagesLost") as lost, _without_spool(run):
                watch.await_told(lost)
            watch.await_ended(lost)
            with watch.fault("Kafka still away", "IngestSpoolFilling", "IngestSpoolFull", excused=UNAVAILABLE) as full:
                run.fleet.start(rate=150, seconds=10)
                watch.await_told(stopped, full)
                run.stack.start("kafka")
        watch.await_ended()
        run.fleet.finish()


@contextmanager
def _without_spool(run: DrillRun) -> Iterator[None]:
    """The daemon works with an empty spool, as if its disk had been lost; afterwards with the one it had. Kafka is away, so that it is not
    ready."""
    folder = run.stack.folder / INGEST
    aside = folder.with_name(f"{INGEST}.spool")
    run.stack.stop(INGEST)
    aside.mkdir()
    for path in folder.glob("spool*"):
        path.rename(aside / path.name)
    run.stack.start(INGEST, ready=False)
    try:
        yield
    finally:
        run.stack.stop(INGEST)
        for path in folder.glob("spool*"):
            path.unlink()
        for path in aside.iterdir():
            path.rename(folder / path.name)
        aside.rmdir()
        run.stack.start(INGEST, ready=False)


@drill("alert_postgresql_down", "PostgreSQL stops; then the platform's login is refused", group="alerts", obstacle=obstacle)
def alert_postgresql_down(run: DrillRun) -> None:
    """A database that is away is told within two minutes; figures that are old because nothing can be read are told as such."""
    with watching(run) as watch:
        run.fleet.start(rate=SLOW, seconds=10)
        run.await_stored(50)
        with watch.fault("PostgreSQL stopped", "ServerDown", excused=LATE | DRAINS_FAIL) as stopped:
            run.stack.kill_for_good("postgresql")
            watch.await_told(stopped)
            run.stack.start("postgresql")
        watch.await_ended(stopped)
        excused = LATE | DRAINS_FAIL | {"ServerDown": "it refuses us"}
        with watch.fault("iot_writer may not log in", "FiguresOld", excused=excused) as refused:
            statement(run, "ALTER ROLE iot_writer NOLOGIN")
            try:
                watch.await_told(refused)
            finally:
                statement(run, "ALTER ROLE iot_writer LOGIN")
        watch.await_ended()
        run.fleet.finish()


@drill("alert_dagster_down", "the Dagster daemon stops while messages come, and what waited is drained", group="alerts", obstacle=obstacle)
def alert_dagster_down(run: DrillRun) -> None:
    """Nothing starts any more: told by its heartbeat, sensors and queue, and by messages that wait and become more; then by how late those
    reached the database."""
    with watching(run) as watch:
        run.fleet.start(rate=SLOW, seconds=30)
        run.await_stored(50)
        run.fleet.finish()
        told = ("DagsterDaemonStopped", "DagsterSensorStopped", "DagsterQueueStuck", "DrainStalled", "DrainLagGrowing")
        killed = {"DagsterRunsFail": "runs are killed with the daemon"}
        with watch.fault("Dagster's daemon stopped", *told, excused=killed) as stopped:
            run.stack.kill_for_good("dagster-daemon")
            run.stack.kill_drain()
            run.fleet.start(rate=200, seconds=10)
            run.stack.dagster("job", "launch", "--job", "evaluate_quality")
            watch.await_told(stopped)
            run.fleet.finish()
            run.hold(TENANT_LATE_SECONDS)
            with watch.fault("what waited is drained", *LATE) as late:
                run.stack.start("dagster-daemon")
                stopped.recover()
                watch.await_told(late)
        watch.await_ended()


@drill("alert_records_lost", "Kafka deletes records before they are drained; its log is cut", group="alerts", fresh=True, obstacle=obstacle)
def alert_records_lost(run: DrillRun) -> None:
    """A drain that waits for a decision, and a log that was cut, are told by name."""
    with watching(run) as watch:
        flow(run)
        lost = {"AuditDifference": "the deleted records are lost", "QualityIncident": "the rules find the cut, and the loss"}
        with watch.fault("records deleted before they were drained", "DrainStopped", excused=LATE | DRAINS_FAIL | lost) as deleted:
            stop_drain(run)
            delete_records(run)
            for name in reversed(DRAIN):
                run.stack.start(name)
            watch.await_told(deleted)
            accept_loss(run, *DELETED)
        run.expect_lost(sum(DELETED.values()), "Kafka deleted them before they were drained, which was accepted")
        run.expect_difference("sequences", "the lost messages had sequence numbers")
        excused = LATE | UNAVAILABLE | DRAINS_FAIL | dict.fromkeys(("IngestKafkaDown", "ServerDown"), "Kafka is started anew")
        with watch.fault("the log cut below what was drained", "KafkaLogCut", excused=excused | lost) as cut:
            come_to_rest(run)
            cut_logs(run)
            run.stack.start(INGEST)
            watch.await_told(cut)
        watch.await_ended()
        run.fleet.finish()


def statement(run: DrillRun, text: str) -> None:
    """As the superuser."""
    with run.superuser() as connection, connection.cursor() as cursor:
        cursor.execute(text)
