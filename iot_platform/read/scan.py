"""Reads a range of time in pieces, each a short statement of its own: no transaction stays open while the reader computes, a broken
connection costs one piece, and the pieces follow how dense the data is. No piece overlaps another, so no row comes twice."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl
from psycopg2 import sql

from iot_platform.read.errors import ReadInterruptedError
from iot_platform.read.session import Session, TooMuchError
from iot_platform.read.tables import TIME, Table

BATCH_ROWS: Final = 100_000
FIRST_SPAN: Final = timedelta(hours=1)
LEAST_SPAN: Final = timedelta(milliseconds=1)
GROWTH: Final = 8
TOLERANCE: Final = 10
"""A piece with so many times the rows that it should have is asked for again, smaller."""


@dataclass(frozen=True)
class Question:
    """What is asked of a table; names to compare with, by column. start and end are None for a table without a range."""

    table: Table
    names: Mapping[str, Sequence[str]]
    start: datetime | None = None
    end: datetime | None = None
    batch_rows: int = BATCH_ROWS
    url: str = field(default="", repr=False)
    variable: str = "IOT_READ_DATABASE_URL"

    def frames(
        self, with_columns: list[str] | None = None, predicate: pl.Expr | None = None, n_rows: int | None = None, _: int | None = None
    ) -> Iterator[pl.DataFrame]:
        """The rows, a frame at a time; the signature is that of polars' IO plugins. A session of its own, closed with the iterator."""
        left = n_rows
        with closing(Session(self.url, self.variable)) as session:
            for frame in self._read(session, self._needed(with_columns, predicate)):
                found = frame if predicate is None else frame.filter(predicate)
                found = found if with_columns is None else found.select(with_columns)
                if left is not None:
                    found = found.head(left)
                    left -= len(found)
                yield found
                if left is not None and left <= 0:
                    return

    def _needed(self, with_columns: list[str] | None, predicate: pl.Expr | None) -> list[str]:
        """The columns that must be fetched, in the table's order; those of `order`, too, because each frame is sorted."""
        if with_columns is None:
            return list(self.table.columns)
        wanted = {*with_columns, *self.table.order, *(predicate.meta.root_names() if predicate is not None else ())}
        return [name for name in self.table.columns if name in wanted]

    def _read(self, session: Session, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        if self.start is None or self.end is None or self.table.time is None:
            try:
                yield from self._piece(session, columns, self.start, self.end, None)
            except _TooMuchOfItError as error:
                raise self._too_slow() from error
            return
        at, span = self.start, FIRST_SPAN
        while at < self.end:
            until = min(at + span, self.end)
            try:
                rows = 0
                for frame in self._piece(session, columns, at, until, None if span <= LEAST_SPAN else TOLERANCE * self.batch_rows):
                    rows += len(frame)
                    yield frame
            except _TooMuchOfItError as error:
                if span <= LEAST_SPAN:
                    raise self._too_slow() from error
                span = max(min(span, until - at) / GROWTH, LEAST_SPAN)
                continue
            at = until
            span = max(span * min(GROWTH, self.batch_rows / rows if rows else GROWTH), LEAST_SPAN)

    def _piece(
        self, session: Session, columns: Sequence[str], start: datetime | None, end: datetime | None, most: int | None
    ) -> Iterator[pl.DataFrame]:
        """One statement; nothing is yielded before all of its answer is here."""
        query, parameters = self._query(columns, start, end)
        try:
            answer = session.fetch(query, parameters, self.batch_rows, most)
        except TooMuchError as error:
            raise _TooMuchOfItError from error
        with closing(answer):
            for part in answer.parts():
                yield self._frame(part, columns)

    def _query(self, columns: Sequence[str], start: datetime | None, end: datetime | None) -> tuple[sql.Composable, dict[str, Any]]:
        chosen = [self.table.columns[name] for name in columns]
        texts = [
            f"(extract(epoch FROM {expression}) * 1000000)::bigint" if kind == TIME else expression  # of our own tables, never a user's
            for kind, expression in chosen
        ]
        conditions: list[sql.Composable] = [sql.SQL("{} = ANY (%({})s)").format(sql.Identifier(name), sql.SQL(name)) for name in self.names]
        parameters: dict[str, Any] = {name: list(values) for name, values in self.names.items()}
        if self.table.time is not None:
            time = sql.Identifier(self.table.time)
            conditions.append(sql.SQL("{0} >= %(start)s::timestamptz AND {0} < %(end)s::timestamptz").format(time))
        elif self.table.span is not None:
            conditions.append(sql.SQL(self.table.span))
        if self.table.ranged:
            parameters |= {"start": start, "end": end}
        where = sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("")
        source = sql.SQL(" FROM tenant.{}").format(sql.Identifier(self.table.view))
        return sql.SQL("SELECT " + ", ".join(texts)) + source + where, parameters

    def _frame(self, part: bytes, columns: Sequence[str]) -> pl.DataFrame:
        kinds = {name: self.table.columns[name][0] for name in columns}
        plain = {name: pl.Int64 if kind == TIME else kind for name, kind in kinds.items()}
        frame = pl.read_csv(io.BytesIO(part), has_header=False, schema=plain)
        return frame.with_columns(pl.col(name).cast(TIME) for name, kind in kinds.items() if kind == TIME).sort(self.table.order)

    def _too_slow(self) -> ReadInterruptedError:
        return ReadInterruptedError(
            f"{self.table.name}: one statement takes longer than this login's statements may: name a project, device or metric, "
            "or `iot tenant grant T --statement-seconds N`"
        )


class _TooMuchOfItError(Exception):
    """Of this piece."""
