"""One shift for a sink as Dagster shows it, and the sensor's look at whether one is wanted."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from iot_platform.database import connect
from iot_platform.influx import status
from iot_platform.influx.errors import InfluxConfigError
from iot_platform.influx.target import VARIABLE, target, targets
from iot_platform.settings import Settings
from iot_platform.telemetry.partitions import IMPORT_TOPIC

JOB: Final = "follow_influx"
ASSET: Final = "sink_offset"
CHECK: Final = "sink_keeps_up"
SINK_TAG: Final = "iot/sink"
SHIFT_SECONDS: Final = 120.0
PAUSE_SECONDS: Final = 60.0
_ACTIVE: Final = [
    *(DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING),
    *(DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING),
]
_BEHIND: Final = """
SELECT EXISTS (SELECT FROM kafka_offset k LEFT JOIN sink_offset o ON o.sink = %(sink)s AND o.topic = k.topic
        AND o.kafka_partition = k.kafka_partition
    WHERE k.topic = ANY (%(topics)s) AND (o.sink IS NULL OR (o.log_generation, o.next_offset) < (k.log_generation, k.next_offset)))
OR EXISTS (SELECT FROM sink_backfill WHERE sink = %(sink)s)
OR EXISTS (SELECT FROM ledger l JOIN sink s ON s.sink = %(sink)s WHERE l.kind = 'replay'
    AND l.committed_at >= s.seen_at - interval '15 min' AND l.kafka_topic = ANY (%(topics)s) AND l.first_received_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM sink_replay r WHERE r.sink = s.sink AND r.batch_id = l.batch_id))
OR EXISTS (SELECT FROM tenant_deletion d JOIN sink s ON s.sink = %(sink)s AND d.deletion_id > s.deletion_id
    WHERE d.finished_at IS NOT NULL)"""


def run_shift(context: dg.AssetExecutionContext, settings: Settings) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
    """A shift for the sink that the run names (or the only one).

    Raises:
        dg.Failure: IOT_INFLUX_URL is not set, or something that a person has to change; never retried by the run.
        InfluxUnavailableError, DatabaseError: the sensor starts the next shift.
    """
    try:
        from iot_platform.influx.follow import Follower  # with it comes urllib3, of the extra
    except ModuleNotFoundError as error:
        raise dg.Failure(f"an InfluxDB needs the extra [influx]: {error}", allow_retries=False) from error
    try:
        chosen = target(settings, context.run.tags.get(SINK_TAG))
        progress = Follower(settings, chosen, seconds=SHIFT_SECONDS, on_retry=context.log.warning, name=context.run.run_id[:8]).run()
    except InfluxConfigError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    with closing(connect(settings, "writer", "iot-influx status")) as connection:
        (state,) = (each for each in status.read(connection) if each.sink == chosen.name)
    metadata: dict[str, dg.MetadataValue | int | float | str] = {
        "sink": chosen.name,
        "records": progress.records,
        "points_written": progress.written,
        "points_refused": progress.refused,
        "retries": progress.retries,
        "replays": progress.replays,
        "deleted_tenants": len(progress.deletions),
        "lag_records": state.lag,
        "series": state.series,
        "open_backfills": state.backfills,
        "seconds": round(progress.seconds, 3),
        "ended": progress.ended,
    }
    yield dg.MaterializeResult(asset_key=ASSET, metadata=metadata)
    late = state.behind_seconds > status.LATE_SECONDS
    description = f"{chosen.name}: {state.lag:,} records behind, since {state.behind_seconds:.0f} s; {state.missing:,} points refused"
    yield dg.AssetCheckResult(
        asset_key=ASSET, check_name=CHECK, passed=not late, severity=dg.AssetCheckSeverity.WARN, description=description, metadata=metadata
    )


def watch(settings: Settings, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    """Request a shift for each sink that is behind and has none."""
    try:
        known = targets(settings)
    except InfluxConfigError as error:
        return dg.SkipReason(str(error))
    if not known:
        return dg.SkipReason(f"{VARIABLE} is not set: no InfluxDB follows this platform (docs/influxdb.md)")
    requests, waiting = [], list[str]()
    with closing(connect(settings, "writer", "iot-influx sensor")) as connection:
        for each in known:
            if instance.get_runs_count(RunsFilter(job_name=JOB, tags={SINK_TAG: each.name}, statuses=_ACTIVE)):
                continue
            if (wait := _pause(instance, each.name)) > 0:
                waiting.append(f"{each.name}: the last shift failed; the next one in {wait:.0f} s")
                continue
            with connection.cursor() as cursor:
                cursor.execute(_BEHIND, {"sink": each.name, "topics": [settings.kafka_topic, IMPORT_TOPIC]})
                (behind,) = cursor.fetchone() or (False,)
            connection.rollback()
            if behind:
                requests.append(dg.RunRequest(tags={SINK_TAG: each.name}))
    names = ", ".join(each.name for each in known)
    if requests:
        return dg.SensorResult(run_requests=requests)
    return dg.SkipReason("; ".join(waiting) or f"nothing new for {names}, or a shift is at work")


def _pause(instance: dg.DagsterInstance, sink: str) -> float:
    """Seconds until a shift may follow one that failed: a wrong setting must not become a storm of runs."""
    records = instance.get_run_records(RunsFilter(job_name=JOB, tags={SINK_TAG: sink}), limit=1)
    if not records or records[0].dagster_run.status is not DagsterRunStatus.FAILURE:
        return 0.0
    return (records[0].end_time or 0.0) + PAUSE_SECONDS - time.time()
