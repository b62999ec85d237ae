"""Measurements or rollups as a file, in memory that does not grow with it: series by series, a page of rows at a time."""

import asyncio
import csv
import io
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, LiteralString

from iot_platform.api.access import Access
from iot_platform.api.rows import rows

if TYPE_CHECKING:
    import polars as pl

PAGE_ROWS: Final = 20_000
SERIES_AT_ONCE: Final = 200
_NAMES: Final = ("project", "device", "metric", "unit")
_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "raw": ("time", *_NAMES, "value", "value_int", "value_text", "flags"),
    **dict.fromkeys(("1h", "1d"), ("time", *_NAMES, "count", "min", "max", "avg", "first", "last")),
}
_SERIES: Final = """
SELECT device_id, metric, unit FROM series_page(%(project)s, %(device)s, %(metric)s, NULL, %(after_project)s, %(after)s, %(after_metric)s,
    %(limit)s)"""
_ONE: Final = "project_id = %(project)s AND device_id = %(device)s AND metric = %(metric)s"
_READ: Final[dict[str, LiteralString]] = {
    "raw": f"SELECT time, value, value_int, value_text, flags FROM measurement WHERE {_ONE} AND time > %(after)s AND time < %(to)s"  # noqa: S608
    " ORDER BY time LIMIT %(limit)s",
    "1h": "SELECT bucket, value_count, value_min, value_max, value_avg, value_first, value_last FROM measurement_1h"  # noqa: S608
    f" WHERE {_ONE} AND bucket > %(after)s AND bucket < %(to)s ORDER BY bucket LIMIT %(limit)s",
    "1d": "SELECT bucket, value_count, value_min, value_max, value_avg, value_first, value_last FROM measurement_1d"  # noqa: S608
    f" WHERE {_ONE} AND bucket > %(after)s AND bucket < %(to)s ORDER BY bucket LIMIT %(limit)s",
}
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Wanted:
    """What to export: rows after `after` (excluded) and before `to`."""

    project: str
    device: str | None
    metric: str | None
    after: datetime
    to: datetime
    resolution: str


async def pages(access: Access, wanted: Wanted) -> AsyncGenerator[Rows, None]:
    """All rows, by series and time. A connection is borrowed for a page, so that a long export does not keep one from the tenant's pages.

    Raises:
        Problem: the database does not answer, or is busy. What was given is whole up to there.
    """
    begin: dict[str, str | None] = dict.fromkeys(("after_project", "after", "after_metric"))
    while True:
        values = {"project": wanted.project, "device": wanted.device, "metric": wanted.metric}
        async with access.read() as connection:
            found = await rows(connection, _SERIES, {**values, **begin, "limit": SERIES_AT_ONCE})
        collected: Rows = []
        for device, metric, unit in found:
            async with aclosing(_of_one(access, wanted, device, metric)) as parts:
                async for part in parts:
                    names = (wanted.project, device, metric, unit)
                    collected += [(row[0], *names, *row[1:]) for row in part]
                    if len(collected) >= PAGE_ROWS:
                        yield collected
                        collected = []
        if collected:
            yield collected
        if len(found) < SERIES_AT_ONCE:
            return
        begin = {"after_project": wanted.project, "after": found[-1][0], "after_metric": found[-1][1]}


async def _of_one(access: Access, wanted: Wanted, device: str, metric: str) -> AsyncGenerator[Rows, None]:
    after = wanted.after
    while True:
        values = {
            "project": wanted.project, "device": device, "metric": metric, "after": after, "to": wanted.to, "limit": PAGE_ROWS,
        }  # fmt: skip
        async with access.read() as connection:
            found = await rows(connection, _READ[wanted.resolution], values)
        yield found
        if len(found) < PAGE_ROWS:
            return
        after = found[-1][0]


async def as_csv(access: Access, wanted: Wanted) -> AsyncIterator[bytes]:
    """Lines of CSV (RFC 4180); times as ISO 8601 UTC."""
    yield (",".join(_COLUMNS[wanted.resolution]) + "\r\n").encode()
    async with aclosing(pages(access, wanted)) as found:
        async for page in found:
            yield await asyncio.to_thread(_lines, page)


def _lines(page: Rows) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows((f"{row[0]:%Y-%m-%dT%H:%M:%S.%f}Z", *row[1:]) for row in page)
    return text.getvalue().encode()


async def write_parquet(access: Access, wanted: Wanted) -> Path:
    """Write a Parquet file (a page is a row group at most) into the folder for temporary files; the caller removes it.

    Raises:
        Problem: see `pages`. OSError: the disk is full.
    """
    import polars as pl  # 0.1 s and 50 MB, for those who want Parquet only
    from polars.io.plugins import register_io_source

    types: dict[str, Any] = {"time": pl.Datetime("us", "UTC"), "count": pl.Int64, "value_int": pl.Int64, "flags": pl.Int16}
    texts = {*_NAMES, "value_text"}
    schema = {name: types.get(name, pl.String if name in texts else pl.Float64) for name in _COLUMNS[wanted.resolution]}
    with tempfile.NamedTemporaryFile(prefix="iot-export-", suffix=".parquet", delete=False) as made:
        path = Path(made.name)
    loop = asyncio.get_running_loop()
    found = pages(access, wanted)

    def next_page() -> Rows | None:
        return asyncio.run_coroutine_threadsafe(anext(found, None), loop).result()

    def source(columns: list[str] | None, _predicate: object, _rows: int | None, _batch: int | None) -> "Iterator[pl.DataFrame]":
        while (page := next_page()) is not None:
            frame = pl.DataFrame(page, schema=schema, orient="row")
            yield frame if columns is None else frame.select(columns)

    try:
        frames = register_io_source(source, schema=schema)
        await asyncio.to_thread(frames.sink_parquet, path, compression="zstd", row_group_size=PAGE_ROWS * 5)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        await found.aclose()
    return path
