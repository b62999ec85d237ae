"""What the sensor kafka_lag does in a tick: watches Kafka, the offset table, the shard locks and the runs until a run is wanted."""

import time
from collections import defaultdict
from collections.abc import Sequence, Set
from contextlib import closing
from functools import lru_cache
from typing import Final

import dagster as dg
from dagster import DagsterRunStatus, RunRecord, RunsFilter
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.backup.heartbeat import remarks
from iot_platform.database import connect
from iot_platform.database.locks import shard_is_locked
from iot_platform.database.sessions import sessions
from iot_platform.kafka.group_offsets import GroupOffsets
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.orchestration import shifts
from iot_platform.orchestration.dagster_private import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    MAX_RETRIES_TAG,
    MAX_RUNTIME_SECONDS_TAG,
)
from iot_platform.orchestration.dynamic_partitions import sync_kafka_partitions
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.log_ends import note_watermarks
from iot_platform.telemetry.drain.partition_state import DrainState, look

JOB: Final = "drain"
TICK_SECONDS: Final = 13.5
"""Dagster starts ticks on a 5-second beat and adds half a second to each: one that ends just before a beat leaves a gap of about a second.
A code server that is asked to stop waits for its ticks, so they are no longer than that needs."""
POLL_SECONDS: Final = 0.2
ACTIVE_POLL_SECONDS: Final = 1.0
NOTE_SECONDS: Final = 5.0
"""How often the ends of the log are noted for dashboards."""
_FINISHED: Final = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)


class LagWatch:
    """One tick. Holds a database connection and Kafka admin connection for as long as the tick lasts; joins no consumer group."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, topic: TopicOffsets, connection: Connection) -> None:
        self._settings, self._instance, self._topic, self._connection = settings, instance, topic, connection
        self._partitions: tuple[int, ...] = ()
        self._end: dict[int, int] = {}
        self._absences: defaultdict[int, shifts.Absences] = defaultdict(shifts.Absences)
        self._noted_at = -NOTE_SECONDS

    def run(self, deadline: float) -> tuple[list[dg.RunRequest], str]:
        """Watch until a run is wanted or time.monotonic() passes the deadline; returns requests (or none) and what was seen.

        Raises:
            KafkaUnavailableError, DatabaseError, psycopg2.Error: a server does not answer; the next tick tries again.
        """
        while True:
            requests, reasons, active = self._look()
            if requests or time.monotonic() >= deadline:
                return requests, "; ".join(reasons)
            self._wait(deadline, idle=not active)

    def _look(self) -> tuple[list[dg.RunRequest], list[str], bool]:
        requests, reasons, active = [], [], False
        drain = self._look_at_partitions()
        for shard in range(self._settings.drain_shards):
            mine = shifts.partitions_of_shard(self._partitions, shard, self._settings.drain_shards)
            if not mine:
                continue
            runs = self._runs(shard)
            view = self._view(shard, drain, mine, runs)
            lead = shifts.lead_seconds(self._settings.drain_shift_seconds)
            decision = shifts.decide(view, time.time(), lead, self._settings.drain_idle_seconds)
            active = active or bool(view.active) or view.lag > 0
            reasons.append(f"shard {shard}: {decision.reason}")
            if decision.request:
                requests.append(self._request(shard, mine, runs))
        reasons += drain.problems
        self._note(drain)
        return requests, reasons, active

    def _note(self, drain: DrainState) -> None:
        """Dashboards read PostgreSQL only, Kafka's tools their group; a tick's first look and every few seconds do for the former."""
        if self._end and time.monotonic() - self._noted_at >= NOTE_SECONDS:
            problems = {partition: state.text or None for partition, state in drain.partitions.items()}
            note_watermarks(self._connection, self._settings.kafka_topic, self._end, problems)
            self._noted_at = time.monotonic()
        rows = {partition: drain.rows[partition] for partition in self._partitions if partition in drain.rows}
        _group_offsets(self._settings).note(
            {partition: row.next_offset for partition, row in rows.items()},
            remarks(self._connection, {partition: row.updated_at for partition, row in rows.items()}),
        )

    def _look_at_partitions(self) -> DrainState:
        """A run is requested for all partitions that there are: a shift for fewer would leave the new ones until its end."""
        drain = look(self._settings, self._connection, self._topic)
        if drain.identity.partitions != self._partitions:
            self._partitions = drain.identity.partitions
            sync_kafka_partitions(self._instance, self._partitions)
        self._end = {partition: ends.high for partition, ends in drain.watermarks.items()}
        return drain

    def _wait(self, deadline: float, *, idle: bool) -> None:
        """Until something may have changed: while idle, at the first message (0.2 s); beside a shift, a second."""
        if not idle:
            time.sleep(ACTIVE_POLL_SECONDS)
            return
        until = min(deadline, time.monotonic() + 5)
        while time.monotonic() < until and self._topic.end(self._partitions) == self._end:
            time.sleep(POLL_SECONDS)

    def _runs(self, shard: int) -> Sequence[RunRecord]:
        """The newest runs of a shard, newest first. Runs whose process is gone are reported as failed: Dagster itself would notice only
        when their time is up, and no third run may start until then."""
        runs = self._instance.get_run_records(RunsFilter(job_name=JOB, tags={shifts.SHARD_TAG: str(shard)}), limit=12)
        started = [record for record in runs if record.dagster_run.status == DagsterRunStatus.STARTED]
        absent = absent_runs(started, sessions(self._connection, "drain-"), time.time()) if started else []
        long_absent = self._absences[shard].long({record.dagster_run.run_id for record in absent}, time.monotonic())
        dead = [record for record in absent if record.dagster_run.run_id in long_absent]
        for record in dead:
            self._instance.report_run_failed(record.dagster_run, "The run's process is gone: it has no session in the database any more.")
        return self._runs(shard) if dead else runs

    def _view(self, shard: int, drain: DrainState, partitions: tuple[int, ...], runs: Sequence[RunRecord]) -> shifts.ShardView:
        active = tuple(active_run(record) for record in runs if record.dagster_run.status not in _FINISHED)
        locked = shard_is_locked(self._connection, shard)
        return shifts.ShardView(
            lag=sum(drain.partitions[p].wants_run for p in partitions),
            lock_held=locked,
            active=active,
            failures=failures_of(runs),
            offsets_changed_at=max((drain.rows[p].updated_at for p in partitions if p in drain.rows), default=0.0),
        )

    def _request(self, shard: int, partitions: tuple[int, ...], runs: Sequence[RunRecord]) -> dg.RunRequest:
        """A run has one successor: the key names its predecessor, so an interrupted tick cannot request two, and no key blocks for ever."""
        newest = runs[0].dagster_run if runs else None
        shift = int(newest.tags.get(shifts.SHIFT_TAG, "0")) + 1 if newest else 1
        return dg.RunRequest(
            job_name=JOB,
            run_key=f"shard {shard} after {newest.run_id if newest else 'the beginning'}",
            tags={
                shifts.SHARD_TAG: str(shard),
                shifts.SHIFT_TAG: str(shift),
                ASSET_PARTITION_RANGE_START_TAG: str(partitions[0]),
                ASSET_PARTITION_RANGE_END_TAG: str(partitions[-1]),
                MAX_RUNTIME_SECONDS_TAG: str(int(self._settings.drain_shift_seconds) + shifts.GRACE_SECONDS),
                MAX_RETRIES_TAG: "0",
            },
        )


def absent_runs(started: Sequence[RunRecord], alive: Set[str], now: float) -> list[RunRecord]:
    """Started runs that ought to have a session in the database, and have none."""
    return [
        record
        for record in started
        if record.start_time
        and now - record.start_time > shifts.CONNECT_SECONDS
        and shifts.session_name(record.dagster_run.run_id) not in alive
    ]


def active_run(record: RunRecord) -> shifts.ActiveRun:
    """The shift state of an unfinished run. A tag copied from an earlier run by re-execution says nothing."""
    tag = record.dagster_run.tags.get(shifts.ENDS_AT_TAG)
    started = record.start_time or record.create_timestamp.timestamp()
    ends_at = float(tag) if tag and record.start_time and float(tag) > started else None
    return shifts.ActiveRun(record.dagster_run.run_id, record.create_timestamp.timestamp(), ends_at)


def failures_of(runs: Sequence[RunRecord]) -> shifts.Failures:
    """The failed runs since the last one that ended otherwise; runs newest first."""
    failed = []
    for record in runs:
        if record.dagster_run.status == DagsterRunStatus.FAILURE:
            failed.append(record)
        elif record.dagster_run.status in _FINISHED:
            break
    if not failed:
        return shifts.Failures()
    newest = failed[0]
    last_at = newest.end_time or newest.update_timestamp.timestamp()
    began_at = newest.start_time or newest.create_timestamp.timestamp()
    return shifts.Failures(len(failed), last_at, began_at, newest.dagster_run.tags.get(shifts.FAILURE_TAG) == shifts.NEEDS_PERSON)


@lru_cache(maxsize=1)
def _group_offsets(settings: Settings) -> GroupOffsets:
    """Outlives the ticks: it knows when it noted last, and what it complained of already."""
    return GroupOffsets(settings)


def watch(settings: Settings, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    """One tick of the sensor kafka_lag."""
    deadline = time.monotonic() + TICK_SECONDS
    with TopicOffsets(settings) as topic, closing(connect(settings, application_name="dagster-kafka-lag")) as connection:
        requests, seen = LagWatch(settings, instance, topic, connection).run(deadline)
    return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason(seen)
