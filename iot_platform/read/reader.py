"""What a data team calls: each question gives a LazyFrame, which reads when it is collected, in frames of a bounded size."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import polars as pl
from polars.io.plugins import register_io_source

from iot_platform.read.errors import ReadAccessError, ReadQuestionError
from iot_platform.read.resolution import resolution_for
from iot_platform.read.scan import BATCH_ROWS, Question
from iot_platform.read.session import Session
from iot_platform.read.tables import HISTORY, INCIDENTS, LATEST, MEASUREMENTS, ROLLUPS, Table
from iot_platform.settings import get_settings

VARIABLE: Final = "IOT_READ_DATABASE_URL"
Names = str | Sequence[str] | None
"""One name, several, or (None) all."""


class Reader:
    """Reads one tenant's data, that of the login in `url` (else IOT_READ_DATABASE_URL); other tenants' rows are out of its reach in the
    database itself.

    Every question gives a LazyFrame. Nothing is read before it is collected, and each collecting reads anew. `collect_batches()` and the
    `sink_…` functions of polars hold a few frames of at most `batch_rows` rows in memory. Times are UTC, in microseconds; `start` is
    included, `end` is not, and both need a time zone. What arrives while a range is read may be in the result or not; no row comes twice.

    Raises, when a frame is collected:
        ReadInterruptedError: the server is away, or ends the session again and again. Retry.
        ReadAccessError: the login was taken away meanwhile. Never retry.
    """

    def __init__(self, url: str | None = None, *, batch_rows: int = BATCH_ROWS) -> None:
        """Connect once, to see that the login is a tenant's.

        Raises:
            ReadAccessError: no address, refused, or a login that belongs to no tenant. Never retry.
            ReadInterruptedError: no server answers. Retry.
        """
        if batch_rows < 1:
            raise ReadQuestionError("batch_rows must be at least 1")
        self._variable = VARIABLE if url is None else "the address given to Reader(…)"
        self._url = _address(url)
        self._batch_rows = batch_rows
        session = Session(self._url, self._variable)
        try:
            self.tenant = session.check()
        finally:
            session.close()

    def measurements(
        self, *, start: datetime, end: datetime, project: Names = None, device: Names = None, metric: Names = None
    ) -> pl.LazyFrame:
        """Measurements as stored: time, project_id, device_id, metric, value, value_int (integers that a double cannot hold), value_text,
        unit, flags (docs/readings.md)."""
        return self._ask(MEASUREMENTS, {"project_id": project, "device_id": device, "metric": metric}, start, end)

    def rollups(
        self,
        *,
        start: datetime,
        end: datetime,
        project: Names = None,
        device: Names = None,
        metric: Names = None,
        resolution: str = "auto",
    ) -> pl.LazyFrame:
        """Hours (`1h`) or days (`1d`) whose bucket begins in the range; `auto`: hours up to 92 days. The current one is up to now."""
        chosen = resolution_for(*_range(start, end), resolution)
        if resolution == "raw":
            raise ReadQuestionError(
                "rollups are hours or days: resolution must be auto, 1h or 1d; measurements() has what they are made of"
            )
        return self._ask(
            ROLLUPS["1d" if chosen == "1d" else "1h"], {"project_id": project, "device_id": device, "metric": metric}, start, end
        )

    def history(
        self,
        *,
        start: datetime,
        end: datetime,
        project: Names = None,
        device: Names = None,
        metric: Names = None,
        resolution: str = "auto",
    ) -> pl.LazyFrame:
        """The same columns at every resolution, for charts: time, value_count, value_min, value_max, value_avg, value_first, value_last.
        `auto`: measurements (`raw`) up to 2 days, hours up to 92 days, days beyond."""
        return self._ask(
            HISTORY[resolution_for(*_range(start, end), resolution)],
            {"project_id": project, "device_id": device, "metric": metric},
            start,
            end,
        )

    def latest(self, *, project: Names = None, device: Names = None, metric: Names = None) -> pl.LazyFrame:
        """The latest measurement of each series: which series there are, and when each was last seen."""
        return self._ask(LATEST, {"project_id": project, "device_id": device, "metric": metric})

    def incidents(
        self, *, start: datetime, end: datetime, project: Names = None, device: Names = None, metric: Names = None
    ) -> pl.LazyFrame:
        """Incidents of the quality rules that were open at some moment of the range, one row each, with who silenced or acknowledged it,
        and a Kafka record that shows it, for `iot trace`."""
        return self._ask(INCIDENTS, {"project_id": project, "device_id": device, "metric": metric}, start, end)

    def _ask(self, table: Table, given: dict[str, Names], start: datetime | None = None, end: datetime | None = None) -> pl.LazyFrame:
        names = {column: _texts(column, value) for column, value in given.items() if value is not None}
        if table.ranged:
            start, end = _range(start, end)
        question = Question(table, names, start, end, self._batch_rows, self._url, self._variable)
        return register_io_source(question.frames, schema=table.schema, explain_name=f"iot {table.name}")


def _address(url: str | None) -> str:
    if url is None:
        setting = get_settings().read_database_url
        if setting is None:
            raise ReadAccessError(f"set {VARIABLE} to a tenant's login, postgresql://login:password@host/iot, or give Reader(…) an address")
        return setting.get_secret_value()
    if urlsplit(url).scheme not in ("postgresql", "postgres"):
        raise ReadAccessError("the address given to Reader(…) must be postgresql://login:password@host[:port]/database")
    return url


def _texts(column: str, given: str | Sequence[str]) -> list[str]:
    values = [given] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise ReadQuestionError(f"{column}: {wrong[0]!r} is no text; ids are texts, also those of 19 digits")
    return values


def _range(start: datetime | None, end: datetime | None) -> tuple[datetime, datetime]:
    for name, moment in (("start", start), ("end", end)):
        if not isinstance(moment, datetime) or moment.tzinfo is None or moment.utcoffset() is None:
            raise ReadQuestionError(
                f"{name} must be a datetime with a time zone, such as datetime(2026, 11, 1, tzinfo=UTC), not {moment!r}"
            )
    assert start is not None and end is not None  # noqa: S101, PT018
    if end <= start:
        raise ReadQuestionError(f"end ({end}) must be later than start ({start})")
    return start.astimezone(UTC), end.astimezone(UTC)
