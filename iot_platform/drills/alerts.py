"""Drills: the alert arrives where people look, and ends when all is well again. The figures in the notes are docs/alerts.md's."""

import time
from typing import Final

from iot_platform.drills.rig.alert_watch import obstacle, watching
from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.registry import drill

ARRIVES_SECONDS: Final = 300.0
ENDS_SECONDS: Final = 420.0
LATE: Final = ("FreshnessBurnsFast", "FreshnessBurnsSlow", "TenantLate")
"""What a drill makes people wait for is late, and may be told as such."""


@drill("alert_daemon_killed", "the ingest daemon dies, and people are told", group="alerts", obstacle=obstacle)
def alert_daemon_killed(run: DrillRun) -> None:
    """Nobody takes messages: told within a minute or two, and ended five minutes after the daemon is back (half an hour after an outage of
    more than two minutes, which uses up that much of the month's budget)."""
    with watching(run) as watch:
        watch.expected.update((*LATE, "TargetDown"))
        run.fleet.start(rate=20, seconds=10)
        run.await_stored(50)
        with run.fault("the ingest daemon is away") as fault:
            run.stack.kill_for_good(INGEST)
            watch.expect("IngestUnavailable", since=fault.began, seconds=ARRIVES_SECONDS)
            run.stack.start(INGEST)
        watch.expect_end("IngestUnavailable", since=time.monotonic(), seconds=ENDS_SECONDS)
        run.fleet.finish()


@drill("alert_servers_down", "Kafka, then PostgreSQL stop, and people are told", group="alerts", obstacle=obstacle)
def alert_servers_down(run: DrillRun) -> None:
    """Each server that stops is told by name, and told again when it answers."""
    with watching(run) as watch:
        watch.expected.update((*LATE, "DrainStalled", "DagsterTickFails", "DagsterRunsFail", "FiguresOld"))
        run.fleet.start(rate=20, seconds=10)
        run.await_stored(50)
        with run.fault("Kafka is away") as fault:
            run.stack.kill_for_good("kafka")
            watch.expect("IngestKafkaDown", "ServerDown", since=fault.began, seconds=ARRIVES_SECONDS)
            run.stack.start("kafka")
        watch.expect_end("IngestKafkaDown", "ServerDown", since=time.monotonic(), seconds=ENDS_SECONDS)
        del watch.fired["ServerDown"]
        with run.fault("PostgreSQL is away") as fault:
            run.stack.kill_for_good("postgresql")
            watch.expect("ServerDown", since=fault.began, seconds=ARRIVES_SECONDS)
            run.stack.start("postgresql")
        watch.expect_end("ServerDown", since=time.monotonic(), seconds=ENDS_SECONDS)
        run.fleet.finish()


@drill("alert_dagster_down", "the Dagster daemon stops, and people are told", group="alerts", obstacle=obstacle)
def alert_dagster_down(run: DrillRun) -> None:
    """Nothing starts any more: told by its heartbeat, and by messages that wait without a commit."""
    with watching(run) as watch:
        watch.expected.update((*LATE, "DagsterSensorStopped"))
        run.fleet.start(rate=20, seconds=10)
        run.await_stored(50)
        with run.fault("the Dagster daemon is away") as fault:
            run.stack.kill_for_good("dagster-daemon")
            run.stack.kill_drain()
            watch.expect("DagsterDaemonStopped", "DrainStalled", since=fault.began, seconds=ARRIVES_SECONDS + 120)
            run.stack.start("dagster-daemon")
        watch.expect_end("DagsterDaemonStopped", "DrainStalled", since=time.monotonic(), seconds=ENDS_SECONDS)
        run.fleet.finish()
