"""Drills: kill -9 of every process, at random moments and at named points of a batch."""

from iot_platform.drills.registry import drill
from iot_platform.drills.run import DrillRun


@drill("ingest_killed", "kill -9 of the ingest daemon", group="processes", fast=True)
def ingest_killed(run: DrillRun) -> None:
    """What the daemon had not acknowledged, the broker sends again; what it had acknowledged is in Kafka, or in the spool."""
    run.fleet.start(rate=500, seconds=15)
    run.await_stored(run.rng.randrange(1000, 3000))
    with run.fault("kill -9 of the ingest daemon"):
        run.stack.kill("ingest")
    run.stack.await_ready("ingest")
    run.fleet.finish()
