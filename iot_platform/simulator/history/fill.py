"""Fills the database with a history: names first, then one transaction for each slice of time, last series_latest."""

import io
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database import LockTimeoutError, connect
from iot_platform.database.locks import advisory_lock
from iot_platform.database.migrate import require_migrated
from iot_platform.settings import Settings
from iot_platform.simulator.fleet import FleetError, TopicTemplate
from iot_platform.simulator.history import names
from iot_platform.simulator.history.fleet import HistoryFleet
from iot_platform.simulator.history.names import moment
from iot_platform.simulator.history.options import DAY_US, HistoryError, HistoryOptions
from iot_platform.simulator.history.reports import HOUR_US, Calendar, Reports, last_reports
from iot_platform.simulator.history.values import Rows, Values
from iot_platform.telemetry.copy_binary import HEADER, TRAILER

ROWS_PER_SLICE: Final = 600_000
"""Bounds memory (about 150 bytes for each row) and the length of a transaction; slices never cross a day, which is a chunk."""
WRITERS: Final = 2
"""PostgreSQL copies about 300,000 rows a second with one core."""
LOCK: Final = "simulated-history"
HISTORY_PARTITION: Final = -1
"""kafka_partition of accounting_1h for what never was in Kafka."""

_MEASUREMENT: Final = "COPY measurement (time, series_id, value, value_int, value_text) FROM STDIN (FORMAT binary)"
_LATEST: Final = "COPY series_latest (time, series_id, value, value_int, value_text) FROM STDIN (FORMAT binary)"
_ACCOUNTING: Final = """
INSERT INTO accounting_1h (hour, tenant_id, project_id, kafka_partition, messages, duplicates, quarantined, measurements,
    measurement_duplicates, measurement_conflicts, first_offset, last_offset, last_received_at, last_committed_at)
SELECT %(start)s, n.tenant_id, n.project_id, %(partition)s, 0, 0, 0, n.measurements, 0, 0, -1, -1, %(end)s, clock_timestamp()
FROM unnest(%(tenants)s::text[], %(projects)s::text[], %(counts)s::bigint[]) n (tenant_id, project_id, measurements)
WHERE n.measurements > 0"""
_FIND: Final = """
SELECT options::text, (extract(epoch FROM starts_at) * 1000000)::bigint, (extract(epoch FROM ends_at) * 1000000)::bigint,
    (extract(epoch FROM filled_to) * 1000000)::bigint, measurements, finished_at IS NOT NULL
FROM simulated_history WHERE seed = %s"""
_BEGIN: Final = "INSERT INTO simulated_history (seed, starts_at, ends_at, filled_to, options) VALUES (%s, %s, %s, %s, %s)"
_ADVANCE: Final = "UPDATE simulated_history SET filled_to = %s, measurements = measurements + %s WHERE seed = %s"
_FINISH: Final = "UPDATE simulated_history SET finished_at = clock_timestamp() WHERE seed = %s"


@dataclass(slots=True)
class Progress:
    """How far it is, in measurements; `total` is an estimate. `there`: what an earlier command had written."""

    total: int
    written: int = 0
    there: int = 0
    finished: bool = False
    filled_to_us: int = 0


@dataclass(frozen=True, slots=True)
class _Written:
    """A slice that waits for its commit."""

    end_us: int
    count: int


@dataclass(frozen=True, slots=True)
class _Known:
    """A row of simulated_history."""

    options: dict[str, int]
    start_us: int
    end_us: int
    filled_to_us: int
    measurements: int
    finished: bool


class HistoryFill:
    """One command's work. Killed at any moment, it leaves whole slices; the same options then go on where it ended."""

    def __init__(
        self,
        settings: Settings,
        options: HistoryOptions,
        *,
        period_is_fixed: bool = True,
        on_progress: Callable[[Progress], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> None:
        """`period_is_fixed`: False lets a history of the same length that was begun before decide when it starts."""
        self._settings, self._options, self._fixed = settings, options, period_is_fixed
        self._on_progress, self._stop = on_progress, stop or threading.Event()

    def run(self) -> Progress:
        """Write what is not there yet; returns early, with `finished` False, when `stop` is set.

        Raises:
            HistoryError: the options fit no fleet, or not what the database holds. Never retry.
            DatabaseError, psycopg2.Error: the database refuses, or went away; what is committed stays. Repeat the command.
        """
        with closing(connect(self._settings, application_name="iot-history-lock")) as lock, closing(self._connect()) as connection:
            require_migrated(connection)
            try:
                with advisory_lock(lock, LOCK, 0):
                    return self._fill(connection)
            except LockTimeoutError as error:
                raise HistoryError(f"another `iot simulate --history` is at work on this database: {error}") from error

    def _connect(self) -> Connection:
        connection = connect(self._settings, application_name="iot-history")
        with connection, connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = '5min'")
        connection.answer_seconds = None  # type: ignore[attr-defined]  # a slice takes as long as it takes
        return connection

    def _fill(self, connection: Connection) -> Progress:
        known = self._known(connection)
        options = self._agree(known)
        try:
            fleet = HistoryFleet(options, TopicTemplate(self._settings.topic_pattern))
        except FleetError as error:
            raise HistoryError(str(error)) from error
        progress = Progress(fleet.expected, filled_to_us=options.start_us)
        if known is None:
            with connection, connection.cursor() as cursor:
                names.create(cursor, fleet, self._settings.max_series_per_project)
                edges = (moment(options.start_us), moment(options.end_us), moment(options.start_us))
                cursor.execute(_BEGIN, (options.seed, *edges, json.dumps(options.as_json())))
        else:
            progress.filled_to_us, progress.there, progress.finished = known.filled_to_us, known.measurements, known.finished
        if not progress.finished:
            self._write(connection, fleet, progress)
        progress.total = progress.there + progress.written if progress.finished else progress.total
        return progress

    def _known(self, connection: Connection) -> _Known | None:
        with connection, connection.cursor() as cursor:
            cursor.execute(_FIND, (self._options.seed,))
            row = cursor.fetchone()
        return None if row is None else _Known(json.loads(row[0]), *row[1:])

    def _agree(self, known: _Known | None) -> HistoryOptions:
        """The options to work with, given what is there."""
        asked = self._options
        if known is None:
            return asked
        same_period = (known.start_us, known.end_us) == (asked.start_us, asked.end_us)
        if not self._fixed:
            same_period = known.end_us - known.start_us == asked.end_us - asked.start_us
        if not same_period or known.options != asked.as_json():
            there = ", ".join(f"{name} {value:,}" for name, value in known.options.items() if value)
            raise HistoryError(
                f"the database holds another history of seed {asked.seed}: {moment(known.start_us):%Y-%m-%dT%H:%MZ} to "
                f"{moment(known.end_us):%Y-%m-%dT%H:%MZ}, {there}. Repeat its options to go on with it, or take another --seed"
            )
        return HistoryOptions(asked.seed, known.start_us, known.end_us, **known.options)

    def _write(self, connection: Connection, fleet: HistoryFleet, progress: Progress) -> None:
        """Slices are made and copied WRITERS at a time, each over a connection of its own, and committed in their order."""
        with connection, connection.cursor() as cursor:
            ids = names.series_ids(cursor, fleet)
        maker = _Maker(fleet, ids)
        slices = self._slices(fleet, progress.filled_to_us)
        with ExitStack() as stack:
            free = [connection, *(stack.enter_context(closing(self._connect())) for _ in range(WRITERS - 1))]
            pool = stack.enter_context(ThreadPoolExecutor(WRITERS, "history"))
            under_way: deque[tuple[Connection, Future[_Written]]] = deque()
            while True:
                while free and not self._stop.is_set() and (edges := next(slices, None)):
                    writer = free.pop()
                    under_way.append((writer, pool.submit(maker.copy, writer, *edges)))
                if not under_way:
                    break
                writer, job = under_way.popleft()
                done = job.result()
                with writer, writer.cursor() as cursor:
                    cursor.execute(_ADVANCE, (moment(done.end_us), done.count, fleet.options.seed))
                free.append(writer)
                progress.written += done.count
                progress.filled_to_us = done.end_us
                self._on_progress(progress)
        if progress.filled_to_us >= fleet.options.end_us:
            with connection, connection.cursor() as cursor:
                maker.copy_latest(cursor)
                cursor.execute(_FINISH, (fleet.options.seed,))
            progress.finished = True

    def _slices(self, fleet: HistoryFleet, filled_to_us: int) -> Iterator[tuple[int, int]]:
        each_hour = fleet.expected / fleet.options.days / 24
        hours = next(hours for hours in (24, 12, 8, 6, 4, 3, 2, 1) if each_hour * hours < ROWS_PER_SLICE or hours == 1)
        step, at = hours * HOUR_US, filled_to_us
        while at < fleet.options.end_us:
            end = min(at // step * step + step, fleet.options.end_us)
            yield at, end
            at = end


class _Maker:
    """Makes slices and copies them; leaves the commit to its caller. Used by several threads, each with a connection of its own."""

    def __init__(self, fleet: HistoryFleet, ids: npt.NDArray[np.int32]) -> None:
        self._fleet, self._ids = fleet, ids
        self._calendar, self._values = Calendar(fleet), Values(fleet)
        projects = fleet.project_names()
        self._names = {"tenants": [tenant for tenant, _ in projects], "projects": [project for _, project in projects]}

    def copy(self, connection: Connection, start_us: int, end_us: int) -> _Written:
        """Write a slice and its account in a transaction that stays open."""
        fleet = self._fleet
        reports = self._calendar.between(start_us, end_us)
        rows = self._values.rows(reports)
        counts = np.bincount(fleet.project[fleet.device[rows.series]], minlength=len(self._names["projects"]))
        account = {
            "start": moment(start_us // HOUR_US * HOUR_US), "end": moment(end_us), "partition": HISTORY_PARTITION,
            "counts": counts.tolist(), **self._names,
        }  # fmt: skip
        with connection.cursor() as cursor:
            self._copy(cursor, _MEASUREMENT, rows, reports)
            cursor.execute(_ACCOUNTING, account)
        return _Written(end_us, len(rows.series))

    def copy_latest(self, cursor: Cursor) -> None:
        """Write the last measurement of each series, which is made again rather than looked for."""
        options = self._fleet.options
        reports = last_reports(self._calendar, options.start_us, options.end_us, DAY_US, len(self._fleet.cadence))
        self._copy(cursor, _LATEST, self._values.rows(reports), reports)

    def _copy(self, cursor: Cursor, query: str, rows: Rows, reports: Reports) -> None:
        stream = b"".join((HEADER, *self._values.encode(rows, reports, self._ids), TRAILER))
        cursor.copy_expert(query, io.BytesIO(stream), size=1 << 20)
