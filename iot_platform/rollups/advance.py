"""One rollup run: batches until nothing is left or the time is up. Safe to repeat, to kill anywhere and to run beside everything else."""

import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.database.batches import BatchSize
from iot_platform.rollups.calls import call, count_notes, state
from iot_platform.rollups.result import RollupResult
from iot_platform.settings import Settings

RUN_SECONDS: Final = 240.0
_REFRESH: Final = "SELECT rollup_refresh(%s)"
_ADVANCE: Final = "SELECT rollup_advance(%s)"
_ADVANCE_TO: Final = "SELECT rollup_advance(%s, %s)"
_LOCKED, _CANCELLED = "55P03", "57014"


def roll_up(
    settings: Settings,
    seconds: float = RUN_SECONDS,
    *,
    until: datetime | None = None,
    on_batch: Callable[[RollupResult], None] = lambda _: None,
) -> RollupResult:
    """Bring both rollups up to date, for at most about `seconds`. Hours that ended before `until` (15 minutes ago unless given) become
    stored ones.

    Raises:
        DatabaseError, psycopg2.Error: the database does not answer, or refuses. What was committed stays; run again.
    """
    started = time.monotonic()
    with closing(connect(settings, application_name="rollup")) as connection:
        threshold, *_ = state(connection)
        result = RollupResult(threshold_before=threshold)
        _Run(connection, result, started + seconds, until).run(on_batch)
        result.threshold_after, *_ = state(connection)
        result.notes_left = count_notes(connection)
    result.seconds = round(time.monotonic() - started, 3)
    return result


class _Run:
    """Batches of both kinds in turn: notes of what changed, and hours and days that are not stored yet."""

    def __init__(self, connection: Connection, result: RollupResult, deadline: float, until: datetime | None) -> None:
        self._connection, self._result, self._deadline = connection, result, deadline
        self._notes, self._series = BatchSize(2_000, 50_000), BatchSize(100, 50_000)
        self._until = until

    def run(self, on_batch: Callable[[RollupResult], None]) -> None:
        """Until neither kind has anything left."""
        result = self._result
        notes_left = series_left = True
        while notes_left or series_left:
            if notes_left:
                notes_left = self._refresh()
                on_batch(result)
            if time.monotonic() >= self._deadline or result.hindered:
                break
            if series_left:
                series_left = self._advance()
                notes_left = notes_left or not series_left  # what came meanwhile
                on_batch(result)
            if time.monotonic() >= self._deadline or result.hindered:
                break
        result.complete = not notes_left and not series_left and not result.hindered

    def _refresh(self) -> bool:
        """One batch of notes; whether there may be more."""
        size = self._notes.value
        done = self._batch(_REFRESH, (size,), self._notes, lambda done: bool(done["notes"] == size))
        if done is None:
            return True
        self._result.notes += done["notes"]
        self._result.discarded += done["discarded"]
        return bool(done["notes"] == size)

    def _advance(self) -> bool:
        """One batch of hours or days; whether there may be more."""
        size = self._series.value
        query, parameters = (_ADVANCE, (size,)) if self._until is None else (_ADVANCE_TO, (size, self._until))
        done = self._batch(query, parameters, self._series, lambda done: bool(done["series"] == size))
        return done is None or done["step"] != "done"

    def _batch(
        self, query: str, parameters: tuple[Any, ...], size: BatchSize, full: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any] | None:
        """None: it did not end in time, nothing of it happened, and the next one is smaller (or the run is hindered)."""
        started = time.monotonic()
        try:
            done = call(self._connection, query, parameters)
        except psycopg2.Error as error:
            if error.pgcode == _LOCKED:
                self._result.hindered = "other maintenance or a long transaction of a drain held a lock"
            elif error.pgcode != _CANCELLED or not size.shrink():
                raise
            return None
        if full(done):
            size.learn(time.monotonic() - started)
        self._result.batches += 1
        self._result.rows += done["rows"]
        self._result.changed += done["changed"]
        return done
