"""Fills the database with a history: names first, then one transaction for each slice of time, last series_latest."""

import io
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import psycopg2
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database import LockTimeoutError, connect
from iot_platform.database.copy_binary import HEADER, TRAILER
from iot_platform.database.errors import DatabaseUnreachableError
from iot_platform.database.locks import advisory_lock, lock_key
from iot_platform.database.migrate import require_migrated
from iot_platform.files import SQL
from iot_platform.settings import Settings
from iot_platform.simulator.fleet import FleetError, TopicTemplate
from iot_platform.simulator.history import names
from iot_platform.simulator.history.devices import HistoryFleet
from iot_platform.simulator.history.names import utc_time
from iot_platform.simulator.history.options import HistoryError, HistoryOptions
from iot_platform.simulator.history.reports import HOUR_US
from iot_platform.simulator.history.slices import Maker, Slice
from iot_platform.telemetry.drain import rollup_notes

ROWS_PER_SLICE: Final = 600_000
"""Bounds memory (about 150 bytes for each row) and the length of a transaction; slices never cross a day, which is a chunk."""
TRIES: Final = 5
"""Attempts in a row without a slice, after 2, 4 … 32 s."""
BOOKS: Final = SQL / "simulation" / "history.sql"
LOCK: Final = "simulated-history"
LOCK_SECONDS: Final = 60.0
"""How long a lost session of ours may hold the lock."""
MANY: Final = 1_000_000
"""From so many measurements on, the rollups' thresholds are taken back rather than every hour noted."""
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
_REMOVED: Final = """
SELECT (extract(epoch FROM removed_before) * 1000000)::bigint FROM retention_mark
WHERE table_name = 'measurement' AND tenant_id = '' AND project_id = '' AND isfinite(removed_before)"""
_FIND: Final = """
SELECT options::text, (extract(epoch FROM starts_at) * 1000000)::bigint, (extract(epoch FROM ends_at) * 1000000)::bigint,
    (extract(epoch FROM filled_to) * 1000000)::bigint, measurements, finished_at IS NOT NULL
FROM simulation.history WHERE seed = %s"""
_BEGIN: Final = """
INSERT INTO simulation.history AS h (seed, starts_at, ends_at, filled_to, options) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (seed) DO UPDATE SET starts_at = excluded.starts_at, ends_at = excluded.ends_at, filled_to = excluded.filled_to,
    options = excluded.options, measurements = 0, finished_at = NULL, started_at = clock_timestamp()"""
_DELETED: Final = """
SELECT d.tenant_id, bool_or(d.finished_at IS NULL) FROM tenant_deletion d JOIN simulation.history h ON h.seed = %s
WHERE d.tenant_id = ANY (%s) AND coalesce(d.cut_at, now()) >= h.started_at GROUP BY 1 ORDER BY 1"""
_ADVANCE: Final = "UPDATE simulation.history SET filled_to = %s, measurements = measurements + %s WHERE seed = %s"
_FINISH: Final = "UPDATE simulation.history SET finished_at = clock_timestamp() WHERE seed = %s"


@dataclass(slots=True)
class HistoryProgress:
    """How far it is, in measurements; `total` is an estimate. `there`: what an earlier command had written."""

    total: int = 0
    written: int = 0
    there: int = 0
    finished: bool = False
    filled_to_us: int = 0


@dataclass(frozen=True, slots=True)
class _Known:
    """A row of simulation.history."""

    options: dict[str, int]
    start_us: int
    end_us: int
    filled_to_us: int
    measurements: int
    finished: bool


class HistoryFill:
    """One command's work. Killed at any time, it leaves whole slices; the same options then go on where it ended."""

    def __init__(
        self,
        settings: Settings,
        options: HistoryOptions,
        *,
        period_is_fixed: bool = True,
        on_progress: Callable[[HistoryProgress], None] = lambda _: None,
        on_retry: Callable[[str], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> None:
        """`period_is_fixed`: False lets a history of the same length that was begun before decide when it starts. `on_retry`: gets why the
        connection was lost, before it goes on over a new one."""
        self._settings, self._options, self._fixed = settings, options, period_is_fixed
        self._on_progress, self._on_retry, self._stop = on_progress, on_retry, stop or threading.Event()
        self._progress, self._begun = HistoryProgress(), False

    def run(self) -> HistoryProgress:
        """Write what is not there yet; returns early, with `finished` False, when `stop` is set.

        Raises:
            HistoryError: the options fit no fleet, or not what the database holds. Never retry.
            DatabaseError, psycopg2.Error: the database refuses, or is gone for longer than TRIES attempts; what is committed stays. Repeat.
        """
        failures, written = 0, -1
        while True:
            try:
                return self._attempt(LOCK_SECONDS if failures else 0)
            except (psycopg2.OperationalError, psycopg2.InterfaceError, DatabaseUnreachableError) as error:
                failures = 1 if self._progress.written > written else failures + 1
                written = self._progress.written
                if not self._begun or failures > TRIES or self._stop.wait(2.0**failures):
                    raise DatabaseUnreachableError(_reason(error)) from error
                self._on_retry(_reason(error))

    def _attempt(self, lock_seconds: float) -> HistoryProgress:
        with closing(connect(self._settings, application_name="iot-history-lock")) as lock, closing(self._connect()) as connection:
            require_migrated(connection)
            self._begun = True
            try:
                with advisory_lock(lock, LOCK, lock_seconds, cancelled=self._stop.is_set):
                    self._make_books(connection)
                    self._fill(connection)
                    return self._progress
            except LockTimeoutError as error:
                raise HistoryError(f"another `iot simulate --history` is at work on this database: {error}") from error

    def _connect(self) -> Connection:
        connection = connect(self._settings, application_name="iot-history")
        with connection, connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = '5min'")
        connection.answer_seconds = None  # type: ignore[attr-defined]  # a slice takes as long as it takes
        return connection

    def _make_books(self, connection: Connection) -> None:
        """Create schema simulation where it is not there yet.

        Raises:
            HistoryError: IOT_DATABASE_ADMIN_URL is not the owner of the database.
        """
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('simulation.history') IS NULL")
            if cursor.fetchone() == (False,):
                return
        with closing(connect(self._settings, "admin", "iot-history-setup")) as owner, owner, owner.cursor() as cursor:
            try:
                cursor.execute(BOOKS.read_text("utf-8"))
            except InsufficientPrivilege as error:
                raise HistoryError(
                    f"the first history makes schema simulation, as the owner of the database: set IOT_DATABASE_ADMIN_URL ({error})"
                ) from error

    def _fill(self, connection: Connection) -> None:
        known, progress = self._known(connection), self._progress
        if known is not None:
            with connection, connection.cursor() as cursor:
                there = HistoryOptions(self._options.seed, known.start_us, known.end_us, **known.options)
                known = None if self._is_deleted(cursor, self._fleet(there)) else known
        options = self._agree(known)
        fleet = self._fleet(options)
        if known is None or not known.finished:
            self._check_retention(connection, options if known is None else replace(options, start_us=known.filled_to_us))
        progress.total = fleet.expected
        if known is None:
            with connection, connection.cursor() as cursor:
                names.create(cursor, fleet, self._settings.max_series_per_project)
                edges = (utc_time(options.start_us), utc_time(options.end_us), utc_time(options.start_us))
                cursor.execute(_BEGIN, (options.seed, *edges, json.dumps(options.as_json())))
            progress.filled_to_us, progress.there = options.start_us, 0
        else:
            progress.filled_to_us, progress.there, progress.finished = (
                known.filled_to_us,
                known.measurements - progress.written,
                known.finished,
            )
        if not progress.finished:
            self._write(connection, fleet, progress)
        if progress.finished:
            progress.total = progress.there + progress.written

    def _fleet(self, options: HistoryOptions) -> HistoryFleet:
        try:
            return HistoryFleet(options, TopicTemplate(self._settings.topic_pattern))
        except FleetError as error:
            raise HistoryError(str(error)) from error

    @staticmethod
    def _is_deleted(cursor: Cursor, fleet: HistoryFleet) -> bool:
        """Whether all tenants of the history were deleted since it began: it may begin anew.

        Raises:
            HistoryError: some of them were.
        """
        tenants = sorted({tenant for tenant, _ in fleet.project_names()})
        cursor.execute(_DELETED, (fleet.options.seed, tenants))
        deleted = dict(cursor.fetchall())
        begun = [tenant for tenant, unfinished in deleted.items() if unfinished]
        left = [tenant for tenant in tenants if tenant not in deleted]
        if not deleted or not (begun or left):
            return bool(deleted)
        shown = ", ".join(list(deleted)[:5]) + (" …" if len(deleted) > 5 else "")
        todo = " ".join((begun + left)[:5]) + (" …" if len(begun + left) > 5 else "")
        raise HistoryError(
            f"{len(deleted)} of the {len(tenants)} tenants of this history were deleted since ({shown}): take another --seed, or delete"
            f" the others, too (iot tenant delete, for each of: {todo}); the same command then writes all of it anew"
        )

    def _hold(self, cursor: Cursor, fleet: HistoryFleet) -> None:
        """Last of all before a slice commits: the series in it are still there, and stay until then.

        Raises:
            HistoryError: they do not.
        """
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", (lock_key("catalog"),))
        if self._is_deleted(cursor, fleet):
            raise HistoryError("all tenants of this history were deleted meanwhile: the same command writes it anew")

    @staticmethod
    def _check_retention(connection: Connection, options: HistoryOptions) -> None:
        with connection, connection.cursor() as cursor:
            cursor.execute(_REMOVED)
            row = cursor.fetchone()
        if row is not None and row[0] > options.start_us:
            raise HistoryError(
                f"retention has removed measurements before {utc_time(row[0]):%Y-%m-%dT%H:%MZ}, and would remove these, too: "
                "choose a shorter --history, or take an empty database"
            )

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
                f"the database holds another history of seed {asked.seed}: {utc_time(known.start_us):%Y-%m-%dT%H:%MZ} to "
                f"{utc_time(known.end_us):%Y-%m-%dT%H:%MZ}, {there}. Repeat its options to go on with it, or take another --seed"
            )
        return HistoryOptions(asked.seed, known.start_us, known.end_us, **known.options)

    def _write(self, connection: Connection, fleet: HistoryFleet, progress: HistoryProgress) -> None:
        with connection, connection.cursor() as cursor:
            ids = names.series_ids(cursor, fleet)
        maker = Maker(fleet, ids)
        slices = itertools.starmap(maker.make, self._slices(fleet, progress.filled_to_us))
        with ThreadPoolExecutor(1, "history") as pool:  # makes a slice while PostgreSQL takes the one before
            ahead = pool.submit(next, slices, None)
            while (part := ahead.result()) is not None and not self._stop.is_set():
                ahead = pool.submit(next, slices, None)
                if fleet.expected >= MANY:
                    _lower_thresholds(connection, progress.filled_to_us)
                with connection, connection.cursor() as cursor:
                    _store(cursor, part, fleet.options.seed)
                    self._hold(cursor, fleet)
                progress.written += part.count
                progress.filled_to_us = part.end_us
                self._on_progress(progress)
        if part is None:
            with connection, connection.cursor() as cursor:
                self._hold(cursor, fleet)
                _copy(cursor, _LATEST, maker.latest())
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


def _lower_thresholds(connection: Connection, since_us: int) -> None:
    """Before a slice, because a run of the rollups may have raised them again. If the locks are not to be had, its hours are noted."""
    with suppress(psycopg2.errors.LockNotAvailable), connection, connection.cursor() as cursor:
        cursor.execute("SELECT rollup_lower(%s)", (utc_time(since_us),))


def _store(cursor: Cursor, part: Slice, seed: int) -> None:
    """A slice with its notes and its account, in the caller's transaction."""
    before = rollup_notes.begin(cursor)
    _copy(cursor, _MEASUREMENT, part.rows)
    if notes := rollup_notes.encoded(part.series, part.time_us, np.ones(part.count, np.bool_), before):
        _copy(cursor, rollup_notes.COPY, notes)
    hour = part.start_us // HOUR_US * HOUR_US
    account = {"start": utc_time(hour), "end": utc_time(part.end_us), "partition": HISTORY_PARTITION, "counts": part.by_project.tolist()}
    cursor.execute(_ACCOUNTING, account | {"tenants": part.tenants, "projects": part.projects})
    cursor.execute(_ADVANCE, (utc_time(part.end_us), part.count, seed))


def _copy(cursor: Cursor, query: str, rows: list[bytes]) -> None:
    cursor.copy_expert(query, io.BytesIO(b"".join((HEADER, *rows, TRAILER))), size=1 << 20)


def _reason(error: BaseException) -> str:
    """What went wrong first: leaving a transaction over a broken connection fails, too."""
    while isinstance(error.__context__, psycopg2.Error):
        error = error.__context__
    return " ".join(str(error).split())
