"""Reads tables, CSV and Parquet: one record is one row, in columns of texts that are JSON already."""

import csv
import io
from collections.abc import Iterator
from datetime import tzinfo
from decimal import ROUND_FLOOR, Decimal, InvalidOperation
from itertools import islice
from typing import BinaryIO, Final
from zoneinfo import ZoneInfo

import polars as pl

from iot_platform.imports.errors import ImportRefusedError
from iot_platform.imports.made import Made, NameRefusedError, TimePlace, micros_of, time_token, topic_of
from iot_platform.imports.mapping import UNITS, Mapping, Source, Time, json_text
from iot_platform.telemetry.decode import Reason
from iot_platform.telemetry.decode.codecs.table import IMPORT_PREFIX
from iot_platform.telemetry.decode.reasons import excerpt
from iot_platform.telemetry.decode.times import LocalTimes, parse_time

_NUMBER: Final = r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$"
_NOT_FINITE: Final = r"(?i)^[+-]?(?:nan|inf|infinity)$"
_BAD: Final = "!"
"""Stands for a number that is none; no JSON text begins so."""
_LIMIT: Final = 16 * 1024 * 1024


class TableReader:
    """Makes records of the rows of a table with these columns."""

    def __init__(self, columns: list[str], mapping: Mapping, place: TimePlace) -> None:
        """Raises ImportRefusedError for a mapping that names columns which are not there."""
        assert mapping.time is not None  # noqa: S101 - the mapping fits its format
        self._place, self._mapping, self._time = place, mapping, mapping.time
        self._zone: tzinfo = ZoneInfo(mapping.time.zone)
        self._topics: dict[tuple[str, str, str], bytes | str] = {}
        named = [item for item in (mapping.tenant, mapping.project, mapping.device, mapping.value) if item is not None]
        named += [mapping.metric] if isinstance(mapping.metric, Source) else []
        used = [item.column for item in named if item.column is not None] + [mapping.time.column]
        self._metrics = mapping.metrics
        if mapping.value is None and not self._metrics:
            self._metrics = {name: name for name in columns if name not in used}
        if lacking := [name for name in (*used, *self._metrics.values()) if name not in columns]:
            raise ImportRefusedError(f"the file has no column {lacking[0]!r}; there are: {', '.join(columns)}")
        if twice := [name for name in columns if columns.count(name) > 1]:
            raise ImportRefusedError(f"the file has two columns {twice[0]!r}")
        try:
            for name in self._metrics:
                place.check(name)
        except NameRefusedError as error:
            raise ImportRefusedError(str(error)) from error

    def make(self, frame: pl.DataFrame, first: int) -> Made:
        """The records of some rows, the first of which has this number."""
        made = Made()
        bodies = frame.select(body=self._body(frame), metric=self._metric_column(frame))
        times = self._times(frame.get_column(self._time.column))
        names = zip(
            *(self._names(frame, source) for source in (self._mapping.tenant, self._mapping.project, self._mapping.device)), strict=True
        )
        head, tail, unknown, key = self._place.head, self._place.tail, self._topics.get, self._place.key
        for at, (name, time, body, metric) in enumerate(
            zip(names, times, bodies.get_column("body").to_list(), bodies.get_column("metric").to_list(), strict=True)
        ):
            topic = unknown(name) or self._topic(name)
            if type(topic) is bytes and time[0] != _BAD and _BAD not in body[:1] and metric != key:
                made.add(topic, f"{head}{time}{tail}{body}}}".encode())
            else:
                self._refuse(made, frame.row(at, named=True), topic, time, f"row {first + at + 1}: ")
        return made

    def _refuse(self, made: Made, row: dict[str, object], topic: bytes | str, time: str, where: str) -> None:
        reason, detail = Reason.NOT_FINITE, "a number that is not finite"
        if isinstance(topic, str):
            reason, detail, topic = Reason.BAD_NAME, topic, f"{IMPORT_PREFIX}/".encode()
        elif time[0] == _BAD:
            reason, detail = Reason.BAD_TIMESTAMP, f"{excerpt(time[1:])} is no time in {self._time.unit}"
        elif isinstance(metric := self._mapping.metric, Source) and metric.column and str(row[metric.column]) == self._place.key:
            reason, detail = Reason.BAD_NAME, f"metric {excerpt(self._place.key)} is where IOT_TIME_POINTERS has the time"
        made.refuse(
            topic, json_text({name: None if value is None else str(value) for name, value in row.items()}).encode(), reason, where + detail
        )

    def _topic(self, name: tuple[str, str, str]) -> bytes | str:
        """The topic of these names, or why there is none."""
        if len(self._topics) > 1_000_000:
            self._topics.clear()
        try:
            made: bytes | str = topic_of(*name)
        except NameRefusedError as error:
            made = str(error)
        self._topics[name] = made
        return made

    def _names(self, frame: pl.DataFrame, source: Source | None) -> list[str]:
        if source is None or source.column is None:
            return [source.value or "" if source else ""] * len(frame)
        return frame.get_column(source.column).cast(pl.String).fill_null("").to_list()

    def _metric_column(self, frame: pl.DataFrame) -> pl.Expr:
        source = self._mapping.metric
        column = source.column if isinstance(source, Source) else None
        return pl.lit("") if column is None else pl.col(column).cast(pl.String).fill_null("")

    def _body(self, frame: pl.DataFrame) -> pl.Expr:
        """The measurements of each row as JSON behind the time; begins with _BAD where one is no finite number."""
        value = self._mapping.value
        if value is not None and value.column is not None:
            metric = self._mapping.metric
            name = pl.lit(metric.value) if isinstance(metric, Source) and metric.value else self._metric_column(frame)
            parts = [_member(_json(pl.String(), name), _token(frame, value.column))]
        else:
            parts = [_member(pl.lit(json_text(name)), _token(frame, column)) for name, column in self._metrics.items()]
        body = pl.concat_str(parts)
        bad = pl.any_horizontal(part.str.starts_with(_BAD) for part in parts)
        return pl.when(bad).then(pl.lit(_BAD)).otherwise(body)

    def _times(self, column: pl.Series) -> list[str]:
        """Each time as the contract reads it, or _BAD and what was there."""
        kind = column.dtype
        if isinstance(kind, pl.Datetime):
            zoned = column if kind.time_zone else column.dt.replace_time_zone(self._time.zone, ambiguous="earliest", non_existent="null")
            return [_BAD if value is None else time_token(value) for value in zoned.dt.timestamp("us").to_list()]
        if self._time.unit != "iso" and kind.is_integer():
            scale = UNITS[self._time.unit]
            return [_BAD if value is None else time_token(micros_of(value * scale)) for value in column.to_list()]
        read = _number_time if self._time.unit != "iso" else _iso_time
        known: dict[object, str] = {}
        found = []
        for value in column.to_list():
            if (token := known.get(value)) is None:
                token = known[value] = read(value, self._time, self._zone)
            found.append(token)
        return found


def _number_time(value: object, time: Time, zone: tzinfo) -> str:
    try:
        exact = Decimal(str(value))
        nanoseconds = int((exact * UNITS[time.unit]).to_integral_value(ROUND_FLOOR)) if exact.is_finite() else None
    except (InvalidOperation, OverflowError):
        nanoseconds = None
    return _BAD + str(value) if nanoseconds is None or abs(nanoseconds) >= 1 << 80 else time_token(micros_of(nanoseconds))


def _iso_time(value: object, time: Time, zone: tzinfo) -> str:
    text = str(value) if value is not None else ""
    plain = text.replace(".", "", 1).isdecimal()  # an epoch of a unit that nobody named
    micros = None if plain else parse_time(text, zone, LocalTimes(1 << 62))
    return _BAD + text if micros is None else time_token(micros)


def _member(name: pl.Expr, token: pl.Expr) -> pl.Expr:
    """`,"name":token`, nothing where there is no value, _BAD where it is no finite number."""
    return (
        pl.when(token.is_null())
        .then(pl.lit(""))
        .when(token == _BAD)
        .then(pl.lit(_BAD))
        .otherwise(pl.concat_str(pl.lit(","), name, pl.lit(":"), token))
    )


def _json(kind: pl.DataType, column: pl.Expr) -> pl.Expr:
    """Each value as JSON."""
    return pl.struct(column.alias("")).struct.json_encode().str.slice(4).str.head(-1)


def _token(frame: pl.DataFrame, name: str) -> pl.Expr:
    """Each value of a column as JSON, null where there is none. Texts that are numbers or booleans are such, digit by digit."""
    column, kind = pl.col(name), frame.schema[name]
    if kind == pl.String:
        lower = column.str.to_lowercase()
        return (
            pl.when(column == "")
            .then(None)
            .when(column.str.contains(_NUMBER))
            .then(column)
            .when(lower.is_in(["true", "false"]))
            .then(lower)
            .when(column.str.contains(_NOT_FINITE))
            .then(pl.lit(_BAD))
            .otherwise(_json(kind, column))
        )
    if kind.is_float():
        wide = column.cast(pl.Float64)
        return pl.when(column.is_null()).then(None).when(wide.is_finite()).then(_json(kind, wide)).otherwise(pl.lit(_BAD))
    if not kind.is_integer() and kind != pl.Boolean:
        column = column.cast(pl.String)
    return pl.when(column.is_null()).then(None).otherwise(_json(kind, column))


def read_csv(stream: BinaryIO, mapping: Mapping, place: TimePlace, skip: int, records: int) -> Iterator[Made]:
    """Records of a CSV file with a header, behind the first `skip`. A row with another number of cells than the header is refused whole.

    Raises:
        ImportRefusedError: no header, columns that the mapping names are missing, or a quote that never ends.
    """
    csv.field_size_limit(_LIMIT)
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    rows = (row for row in csv.reader(text, delimiter=mapping.separator) if row)
    try:
        header = next(rows, [])
        if not header:
            raise ImportRefusedError("the file is empty: a CSV file begins with the names of its columns")
        reader = TableReader(header, mapping, place)
        for _ in islice(rows, skip):
            pass
        while batch := list(islice(rows, records)):
            yield from _csv_batch(reader, header, batch, skip)
            skip += len(batch)
    except csv.Error as error:
        raise ImportRefusedError(f"the file is no CSV behind row {skip}: {error}") from error
    finally:
        text.detach()  # or it would close the file


def _csv_batch(reader: TableReader, header: list[str], rows: list[list[str]], first: int) -> Iterator[Made]:
    """Stretches of whole rows as one, what cannot be a row by itself in between."""
    width, start = len(header), 0
    odd = [at for at, row in enumerate(rows) if len(row) != width or not _is_utf8(row)]
    for at in (*odd, len(rows)):
        if part := rows[start:at]:
            columns = {name: list(cells) for name, cells in zip(header, zip(*part, strict=True), strict=True)}
            yield reader.make(pl.DataFrame(columns, schema=dict.fromkeys(header, pl.String)), first + start)
        if at < len(rows):
            made, row = Made(), rows[at]
            raw = ",".join(row).encode("utf-8", "surrogateescape")
            reason = Reason.BAD_ENCODING if len(row) != width else Reason.NOT_UTF8
            detail = f"{len(row)} cells instead of {width}" if len(row) != width else "a cell is not UTF-8"
            made.refuse(f"{IMPORT_PREFIX}/".encode(), raw, reason, f"row {first + at + 1}: {detail}")
            yield made
        start = at + 1


def _is_utf8(row: list[str]) -> bool:
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_parquet(path: str, mapping: Mapping, place: TimePlace, skip: int, records: int) -> Iterator[Made]:
    """Records of a Parquet file behind the first `skip`.

    Raises:
        ImportRefusedError: it is no Parquet, or has not the columns that the mapping names.
    """
    try:
        table = pl.scan_parquet(path)
        reader = TableReader(table.collect_schema().names(), mapping, place)
        while len(frame := table.slice(skip, records).collect()):
            yield reader.make(frame, skip)
            skip += len(frame)
    except pl.exceptions.PolarsError as error:
        raise ImportRefusedError(f"{path} cannot be read as Parquet: {error}") from error
