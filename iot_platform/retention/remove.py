"""Removes what policies do not keep: a transaction per chunk or batch of rows, each complete in itself: it can be killed anywhere."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import psycopg2
from psycopg2.errors import DeadlockDetected, LockNotAvailable, RaiseException
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.database.batches import BatchSize, in_slices
from iot_platform.database.errors import DatabaseUnreachableError
from iot_platform.database.migrate import require_migrated
from iot_platform.database.tenant_sessions import make_way
from iot_platform.retention.plan import Removal, plan
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings

MAX_ROWS: Final = 50_000
FIRST_ROWS: Final = 10_000
LEAST_ROWS: Final = 1_000
"""Rows per transaction, by how long they take."""
ROLLED_UP: Final = ("measurement", "measurement_1h")
WAITING: Final = "is not complete: "
"""In reasons of retention_unstored: rolling up can mend it."""
LOCK_TRIES: Final = 5
ROLLUP_SECONDS: Final = 300.0
NOTES_TRIES: Final = 5
"""So often what waits is rolled up, and the removal tried again, before late rows that go on coming are a reason against it."""

_CHUNK: Final = "SELECT rows, bytes, newest, refused FROM retention_remove_chunk(%s, to_regclass(%s), coalesce(%s, now()))"
_ROWS: Final = "SELECT rows, newest, done_to, refused FROM retention_remove_rows(%s, %s, %s, %s, %s, %s, coalesce(%s, now()))"
_REFUSALS: Final = "SELECT retention_refusals(%s, %s, %s, %s, %s)"
_SIZES: Final = """
SELECT t.table_name, coalesce((SELECT sum(c.bytes) FROM retention_chunks(t.table_name) c)::bigint, pg_total_relation_size(t.relation))
FROM retention_tables() t"""


@dataclass
class RetentionReport:
    """What a run did. `postponed`: somebody else was at work there (a chunk is being compressed); `unfinished`: its time was over before
    everything was gone. The next run goes on with both."""

    removed: list[Removal] = field(default_factory=list)
    refused: list[Removal] = field(default_factory=list)
    postponed: list[Removal] = field(default_factory=list)
    sizes_before: dict[str, int] = field(default_factory=dict)
    sizes_after: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    forgotten: int = 0
    unfinished: bool = False

    @property
    def rows(self) -> int:
        """Rows that went."""
        return sum(item.rows for item in self.removed)

    @property
    def chunks(self) -> int:
        """Chunks dropped whole."""
        return sum(item.chunk is not None for item in self.removed)

    @property
    def bytes(self) -> int:
        """Disk space given back."""
        return sum(item.bytes for item in self.removed)


class _OverError(Exception):
    """The run's time is over."""


class _BusyError(Exception):
    """Others hold what a removal needs, beside the lock that all maintenance takes."""


def run_retention(
    settings: Settings,
    *,
    seconds: float = 3600.0,
    at: datetime | None = None,
    max_rows: int = MAX_ROWS,
    on_progress: Callable[[Removal], None] = lambda _: None,
) -> RetentionReport:
    """Remove everything that may go, oldest first, for at most about `seconds`. Safe beside drains, replays, rollups and other runs; may be
    killed at any instruction and repeated. What is refused stays, with everything newer of its table and policy.

    Raises:
        DatabaseError: the database does not answer.
    """
    started = time.monotonic()
    report = RetentionReport()
    try:
        with closing(connect(settings, "writer", "iot-retention")) as connection:
            require_migrated(connection)
            work = _Run(settings, connection, report, deadline=started + seconds, at=at, max_rows=max_rows, on_progress=on_progress)
            work.all()
    except psycopg2.Error as error:
        raise DatabaseUnreachableError(f"retention was not finished, repeat it: {' '.join(str(error).split())}") from error
    report.seconds = time.monotonic() - started
    return report


class _Run:
    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        report: RetentionReport,
        *,
        deadline: float,
        at: datetime | None,
        max_rows: int,
        on_progress: Callable[[Removal], None],
    ) -> None:
        self._settings, self._connection, self._report = settings, connection, report
        self._deadline, self._at, self._max_rows, self._on_progress = deadline, at, max_rows, on_progress
        self._size = BatchSize(min(FIRST_ROWS, max_rows), max_rows, min(LEAST_ROWS, max_rows))

    def all(self) -> None:
        """Everything of the plan, then what the audit may forget."""
        items = plan(self._connection, counted=False, at=self._at)
        self._report.sizes_before = self._sizes()
        stopped: set[tuple[str, str, str]] = set()
        try:
            if any(item.table in ROLLED_UP and not item.refused for item in items):
                self._roll_up()
            for item in items:
                if item.scope in stopped:
                    continue
                try:
                    if refused := item.refused or self._remove(item):
                        stopped.add(item.scope)
                        self._report.refused.append(replace(item, refused=refused))
                except _BusyError as error:
                    stopped.add(item.scope)
                    self._report.postponed.append(replace(item, refused=(str(error),)))
            while forgotten := self._call("SELECT retention_forget(%s)", self._max_rows)[0][0]:
                self._report.forgotten += forgotten
        except _OverError:
            self._report.unfinished = True
        self._report.sizes_after = self._sizes()

    def _roll_up(self) -> None:
        """Notes of late rows, and hours that are not stored yet, would be refused."""
        left = self._deadline - time.monotonic()
        if left > 0:
            roll_up(self._settings, min(ROLLUP_SECONDS, left))

    def _remove(self, item: Removal) -> tuple[str, ...]:
        """Remove; returns the reasons why (the rest of) it stays."""
        refused: tuple[str, ...] = ()
        try:
            for _ in range(NOTES_TRIES):
                refused = self._remove_chunk(item) if item.chunk is not None else self._remove_rows(item)
                if not any(WAITING in reason for reason in refused):
                    break
                self._roll_up()
        except RaiseException as error:  # its policy was changed meanwhile: the next run goes by the new one
            self._connection.rollback()
            return (error.diag.message_primary or str(error),)
        return refused

    def _remove_chunk(self, item: Removal) -> tuple[str, ...]:
        for rows, size, newest, refused in self._call(_CHUNK, item.table, item.chunk, self._at):
            if refused:
                return tuple(refused)
            self._note(replace(item, rows=rows, bytes=size, newest=newest))
        return ()

    def _remove_rows(self, item: Removal) -> tuple[str, ...]:
        done, gone, newest = item.range_from, 0, None
        # All of it, as the dry run says; each batch is looked at once more when it goes.
        refused = () if item.table == "accounting_1h" else self._refusals(item)

        def remove(since: datetime, until: datetime, most: int) -> tuple[int, datetime] | None:
            nonlocal done, gone, newest, refused
            rows, last, done_to, reasons = self._call(_ROWS, item.table, item.tenant, item.project, since, until, most, self._at)[0]
            refused = tuple(reasons or ())
            if refused:
                return None
            gone, newest, done = gone + rows, last or newest, done_to
            return rows, done_to

        try:
            if not refused:
                in_slices(item.range_from, item.range_to, self._size, remove)
        finally:
            if gone:
                self._note(replace(item, rows=gone, range_to=done, newest=newest))
        return refused

    def _refusals(self, item: Removal) -> tuple[str, ...]:
        rows = self._call(_REFUSALS, item.table, item.tenant, item.project, item.range_from, item.range_to)
        return tuple(reason for (reason,) in rows)

    def _note(self, item: Removal) -> None:
        self._report.removed.append(item)
        self._on_progress(item)

    def _call(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """One transaction; tried again when somebody holds its locks.

        Raises:
            _OverError: no time is left to begin it.
            _BusyError: somebody at work on the same rows or chunk did not end.
        """
        for attempt in range(1, LOCK_TRIES + 1):
            if time.monotonic() > self._deadline:
                raise _OverError
            try:
                with self._connection.cursor() as cursor:
                    cursor.execute(query, parameters)
                    rows = cursor.fetchall()
                self._connection.commit()
                return rows
            except (LockNotAvailable, DeadlockDetected) as error:
                self._connection.rollback()
                if attempt == LOCK_TRIES:
                    if "retention_begin()" in (error.diag.context or ""):
                        raise
                    raise _BusyError("somebody else is at work there (a chunk is being compressed …): the next run takes it") from error
                make_way(self._connection, error)
        raise AssertionError

    def _sizes(self) -> dict[str, int]:
        with self._connection.cursor() as cursor:
            cursor.execute(_SIZES)
            sizes = dict(cursor.fetchall())
        self._connection.rollback()
        return sizes
