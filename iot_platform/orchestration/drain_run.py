"""One Dagster run of the drain: waits for its shard, tells the sensor when the shift ends, reports progress, ends with a clear error."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Final

import dagster as dg
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import DatabaseError, LockTimeoutError, connect
from iot_platform.database.locks import advisory_lock, is_locked, shard_lock
from iot_platform.kafka.errors import KafkaUnavailableError, TopicMissingError
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.orchestration import shifts
from iot_platform.orchestration.audit_checks import OFFSETS, SEQUENCES, evaluate_audit, is_due
from iot_platform.orchestration.brake_check import brake_pulled, evaluate_brake, evaluation_of
from iot_platform.orchestration.dagster_private import DagsterExecutionInterruptedError
from iot_platform.orchestration.dynamic_partitions import ProjectKeys
from iot_platform.orchestration.materializations import Metadata, Reporter, figures_metadata, project_event, storage_errors, tenant_event
from iot_platform.orchestration.partition_checks import evaluate_partitions
from iot_platform.orchestration.partition_keys import project_key
from iot_platform.orchestration.sourced_partitions import chosen_keys
from iot_platform.settings import Settings
from iot_platform.signals import stop_on_signals
from iot_platform.telemetry.drain import offsets
from iot_platform.telemetry.errors import DataGoneError, DrainError, TopicRecreatedError
from iot_platform.telemetry.sums import known_projects, partition_figures, project_figures, tenant_figures

if TYPE_CHECKING:
    from iot_platform.telemetry.drain.drain import Drain, Progress

log = logging.getLogger(__name__)

LOCK_SLICE_SECONDS: Final = 2.0
GIVE_WAY_SECONDS: Final = 0.2
"""How often a drain by hand looks whether a shift that waits for its shard has got it."""
LOCK_SESSION_SECONDS: Final = 60
"""PostgreSQL ends a shift's silent lock session after this long. It is asked something every second, so silence means a link that died
without a word; without the limit the shard stays locked for as long as the server believes in the connection."""
AUDIT_SECONDS: Final = 10.0
"""Most time for one of the audit's three queries at the end of a shift."""
STORAGE_MILLISECONDS: Final = 60_000
"""Most time for one statement to Dagster's storage: what holds it up does not hold up the drain."""
LEAST_SHIFT_SECONDS: Final = 60.0
"""In shorter shifts there is no time for the audit; the schedule evaluates it."""
HEAL_AT_MOST: Final = 500
"""Projects without a materialization that one run heals; the next runs go on."""


def next_in_line_lock(shard: int) -> str:
    """Name of the advisory lock of the shift that waits for its predecessor."""
    return f"drain-shard-{shard}-next"


def run_drain(context: dg.AssetExecutionContext, settings: Settings) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Drain the run's partitions: a shift if the run carries a shard tag, else until caught up with what Kafka holds now. Yields a
    result for each selected table only in the latter case: a shift has reported its materializations itself.

    Raises:
        dg.Failure: the drain gave up; the description says why and what to run.
        DagsterExecutionInterruptedError: somebody cancelled the run, or a signal ended a drain by hand before it had caught up. A shift
            that a signal ends (a server shuts down) is a short shift. Either way every batch is committed or rolled back.
    """
    from iot_platform.orchestration.pooled_storage import limit_statements  # with it comes Dagster's storage

    limit_statements(STORAGE_MILLISECONDS)
    partitions = tuple(sorted(int(key) for key in chosen_keys(context, "Kafka partitions")))
    run = _DrainRun(context, settings, partitions)
    try:
        with stop_on_signals(run.stop, run.signalled):
            run.work()
    except (DrainError, DatabaseError, KafkaUnavailableError, psycopg2.Error) as error:
        if isinstance(error, DataGoneError | TopicRecreatedError | TopicMissingError):
            context.instance.add_run_tags(context.run.run_id, {shifts.FAILURE_TAG: shifts.NEEDS_PERSON})
        raise dg.Failure(description=f"{type(error).__name__}: {error}".strip(), allow_retries=False) from error
    by_hand = shifts.SHARD_TAG not in context.run.tags
    if run.signalled.is_set() and (by_hand or _is_cancelled(context)):
        raise DagsterExecutionInterruptedError
    if by_hand:
        run.add_totals()
        yield from (dg.MaterializeResult(asset_key=key) for key in context.selected_asset_keys)


def _is_cancelled(context: dg.AssetExecutionContext) -> bool:
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status == dg.DagsterRunStatus.CANCELING


class _DrainRun:
    def __init__(self, context: dg.AssetExecutionContext, settings: Settings, partitions: tuple[int, ...]) -> None:
        self.context, self.settings, self.partitions = context, settings, partitions
        self.stop, self.signalled = threading.Event(), threading.Event()
        self.keys = ProjectKeys(context.instance)
        self.reporter = self._new_reporter()
        self.lock_connection: Connection | None = None
        self.shard = 0
        self.ends_at: float | None = None
        self.announced = False
        self.poison_reported = False

    def work(self) -> None:
        """Drain, then report the rest, whether or not the drain gave up.

        Raises:
            DrainError, DatabaseError: see run_drain.
        """
        shard = self.context.run.tags.get(shifts.SHARD_TAG)
        with closing(connect(self.settings, application_name=shifts.session_name(self.context.run.run_id))) as lock_connection:
            try:
                if shard is None:
                    self._drain_until_caught_up(lock_connection)
                else:
                    self._work_shift(lock_connection, int(shard))
            finally:
                self._finish_reporting()
        self._report_the_rest()

    def _new_reporter(self) -> Reporter:
        return Reporter(emit=self.context.log_event, keys=self.keys)

    def _finish_reporting(self) -> None:
        """Write what a drain left to tell. The next one counts from nothing, so it gets a reporter of its own."""
        if left := self.reporter.finish():
            self._warn("%d materializations were not written in time; the next shift writes newer ones", left)
        self.reporter = self._new_reporter()

    def _work_shift(self, connection: Connection, shard: int) -> None:
        """Take over the shard from the run that holds it, and drain for one shift. Everything slow happens before the lock or after it."""
        patience = shifts.lead_seconds(self.settings.drain_shift_seconds) + shifts.OVERTIME_SECONDS + 5
        drain = self._prepare(self.partitions, overtime=shifts.OVERTIME_SECONDS, shard=shard)
        self.lock_connection, self.shard = connection, shard
        with connection, connection.cursor() as cursor:
            cursor.execute("SET idle_session_timeout = %s", (f"{LOCK_SESSION_SECONDS}s",))
        try:
            with ExitStack() as next_in_line:
                next_in_line.enter_context(advisory_lock(connection, next_in_line_lock(shard), patience, cancelled=self.stop.is_set))
                with shard_lock(connection, shard, patience, cancelled=self.stop.is_set):
                    next_in_line.close()
                    self.ends_at = time.time() + self.settings.drain_shift_seconds
                    drain.run()
        except LockTimeoutError as error:
            if not self.stop.is_set():
                self.context.log.info("another run keeps shard %d, which is fine: %s", shard, error)

    def _is_over(self) -> bool:
        """The shift is over once the next one waits for the lock, which it may reach late on a busy machine; a drain by hand makes room for
        a shift at once. It is over, too, without the connection that holds our lock: then the sensor takes us for dead."""
        if self.lock_connection is None:
            return False
        try:
            return is_locked(self.lock_connection, next_in_line_lock(self.shard)) and time.time() >= (self.ends_at or 0)
        except psycopg2.Error as error:
            self._warn("the database connection of this shift broke, so it ends early: %s", error)
            self.lock_connection = None
            return True

    def _warn(self, text: str, *arguments: object) -> None:
        """Into the run's log, which is in Dagster's storage: where that is away, too, the reason must not be hidden by its absence."""
        with suppress(*storage_errors()):
            self.context.log.warning(text, *arguments)

    def _drain_until_caught_up(self, connection: Connection) -> None:
        """Drain shard by shard up to the ends that Kafka has now; where a shift is at work, or waits, wait until it has come that far."""
        with TopicOffsets(self.settings) as topic:
            everything = topic.partitions()
            goal = topic.end(self.partitions)
        count = self.settings.drain_shards
        for shard in range(count):
            mine = tuple(p for p in self.partitions if p in shifts.partitions_of_shard(everything, shard, count))
            while mine and not self.stop.is_set() and not self._reached(connection, mine, goal):
                if is_locked(connection, next_in_line_lock(shard)):
                    self.stop.wait(GIVE_WAY_SECONDS)
                    continue
                try:
                    with shard_lock(connection, shard, LOCK_SLICE_SECONDS, cancelled=self.stop.is_set):
                        self.lock_connection, self.shard = connection, shard
                        self._prepare(mine, until_caught_up=True).run()
                except LockTimeoutError as error:
                    self.context.log.info("waiting for the shift at work on shard %d: %s", shard, error)
                self._finish_reporting()

    def _reached(self, connection: Connection, partitions: tuple[int, ...], goal: dict[int, int]) -> bool:
        """Whether others drained up to the goal. Beyond it only counts within what Kafka holds: else the topic is another one."""
        stored = offsets.read(connection, self.settings.kafka_topic)
        if not all(p in stored and stored[p].next_offset >= goal[p] for p in partitions):
            return False
        if all(stored[p].next_offset == goal[p] for p in partitions):
            return True
        with TopicOffsets(self.settings) as topic:
            end = topic.end(partitions)
        return all(stored[p].next_offset <= end[p] for p in partitions)

    def _prepare(
        self, partitions: tuple[int, ...], *, until_caught_up: bool = False, overtime: float = 0.0, shard: int | None = None
    ) -> "Drain":
        from iot_platform.telemetry.drain.drain import Drain, Shift  # numpy and Kafka only in the process that drains

        def fits(everything: tuple[int, ...]) -> bool:
            return shard is None or shifts.partitions_of_shard(everything, shard, self.settings.drain_shards) == partitions

        seconds = self.settings.drain_shift_seconds + overtime
        shift = Shift(partitions, self.context.run.run_id, until_caught_up, seconds, self._is_over, fits)
        return Drain(self.settings, shift, self._report, self.stop)

    def _report(self, progress: "Progress") -> None:
        """Called about once a second while draining. At the drain's end nothing is written: the successor waits for the lock."""
        if progress.ended:
            self.reporter.note(progress)
            return
        if self.ends_at is not None and not self.announced:
            self.announced = True
            with suppress(*storage_errors()):  # without the tag the sensor replaces us when we end
                self.context.instance.add_run_tags(self.context.run.run_id, {shifts.ENDS_AT_TAG: f"{self.ends_at:.3f}"})
        self.reporter.update(progress)
        if progress.poisoned and not self.poison_reported:
            self.poison_reported = True
            with suppress(*storage_errors()):
                self.context.log_event(brake_pulled(progress))

    def add_totals(self) -> None:
        """By hand: each chosen partition's materialization shows sums since the beginning, even if nothing waited for it."""
        with closing(connect(self.settings, application_name="dagster-drain")) as connection:
            sums = partition_figures(connection, list(self.partitions))
            stored = offsets.read(connection, self.settings.kafka_topic)
        for partition in self.partitions:
            metadata: Metadata = {"next_offset": stored[partition].next_offset if partition in stored else 0}
            if partition in sums:
                metadata |= figures_metadata(sums[partition], "total_")
            for key in self.context.selected_asset_keys:
                self.context.add_asset_metadata(metadata, asset_key=key, partition_key=str(partition))

    def _report_the_rest(self) -> None:
        """Evaluate the checks; and tenants and projects that a killed run left without key or materialization get both now.
        On a connection of its own: the one of the locks may have broken. It stays open to the end: a run without a session is taken for
        dead by the sensor, and the audit of many messages takes its time. Nothing here is worth a failed run."""
        expected: tuple[type[Exception], ...] = (*storage_errors(), DatabaseError, psycopg2.Error)
        try:
            with closing(connect(self.settings, application_name=shifts.session_name(self.context.run.run_id))) as connection:
                if shifts.SHARD_TAG in self.context.run.tags:  # by hand Dagster runs the checks itself
                    self.context.log_event(evaluation_of(evaluate_brake(self.settings)))
                    self.context.log_event(evaluation_of(evaluate_partitions(self.settings)))
                self._heal(connection)
                connection.commit()  # no transaction stays open beside the audit
                if shifts.SHARD_TAG in self.context.run.tags:
                    self._audit()
        except expected as error:
            log.warning("checks or missing partition keys could not be reported; the next run tries again: %s", error)

    def _audit(self) -> None:
        """Evaluate the audit's checks if that is due. The next shift is at work already; this run must be gone before it needs a successor,
        so what takes long is left to the schedule."""
        if self.settings.drain_shift_seconds < LEAST_SHIFT_SECONDS or self.signalled.is_set() or not is_due(self.context.instance):
            return
        for name in (OFFSETS, SEQUENCES):
            result = evaluate_audit(self.settings, self.context.instance, name, wait_seconds=2, statement_seconds=AUDIT_SECONDS)
            self.context.log_event(evaluation_of(result))

    def _heal(self, connection: Connection) -> None:
        projects = known_projects(connection)
        self.keys.add(projects)
        materialized = self.context.instance.get_materialized_partitions(dg.AssetKey("project"))
        missing = [item for item in projects if project_key(*item) not in materialized and self.keys.has(*item)][:HEAL_AT_MOST]
        for (tenant, project), figures in project_figures(connection, missing).items():
            self.context.log_event(project_event(tenant, project, figures, "total_"))
        tenants = list(dict.fromkeys(tenant for tenant, _ in missing))
        for tenant, (count, figures) in tenant_figures(connection, tenants).items():
            self.context.log_event(tenant_event(tenant, count, figures, "total_"))
