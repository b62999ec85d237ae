"""Drills: each alert arrives where people look, ends when all is well again, and none comes that nothing is wrong for."""

from typing import Final

from iot_platform.drills.rig.alert_watch import METRICS, obstacle, watching
from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.registry import drill

RATE: Final = 20.0


@drill("alert_daemon_killed", "the ingest daemon dies, then `iot metrics`, then a receiver refuses", group="alerts", obstacle=obstacle)
def alert_daemon_killed(run: DrillRun) -> None:
    """Nobody takes messages: told within a minute or two, and ended by the rule's window five minutes after the daemon is back. An exporter
    that is away and notifications that are refused are told, too."""
    with watching(run) as watch:
        run.fleet.start(rate=RATE, seconds=10)
        run.await_stored(50)
        late = {"FreshnessBurnsFast": "what waited at the broker is late", "FreshnessBurnsSlow": "what waited at the broker is late"}
        with watch.fault("ingest daemon killed", "IngestUnavailable", "IngestAvailabilityBudget", excused=late) as killed:
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
