"""PostgreSQL's binary COPY format from numpy columns (https://www.postgresql.org/docs/17/sql-copy.html, "Binary Format")."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
POSTGRES_EPOCH_US: Final = 946_684_800_000_000
"""2000-01-01, PostgreSQL's zero, in µs since the Unix epoch."""

_SHARED: Final = 32
"""With fewer rows of one text, numpy's fixed costs exceed those of writing them one by one."""
_MOST_SHARED: Final = 64
_TYPES: Final = {"int2": ">i2", "int4": ">i4", "int8": ">i8", "float8": ">f8", "timestamptz": ">i8"}


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of byte strings as positions in a list, in which each may stand for many rows; only rows that are not null have one."""

    texts: list[bytes]
    position: npt.NDArray[np.int32]

    def take(self, rows: npt.NDArray[np.intp] | None) -> list[bytes]:
        """The byte strings of some rows, or of all."""
        chosen = self.position if rows is None else self.position[rows]
        return list(map(self.texts.__getitem__, chosen.tolist()))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of n rows. `valid` None: no nulls. Fixed types hold numpy values (timestamptz: µs since the Unix epoch);
    a column of kind bytes holds Texts or n byte strings (text must be UTF-8 without U+0000), and must come last."""

    kind: str  # int2 int4 int8 float8 timestamptz bytes
    values: Any
    valid: npt.NDArray[np.bool_] | None = None


def encode(columns: Sequence[Column], count: int) -> list[bytes]:
    """Rows in COPY's format, as pieces to join between HEADER and TRAILER. Rows keep their order as far as they are null in the same
    columns and, where many rows share few Texts, have the same one; groups of rows follow each other otherwise."""
    nullable = [index for index, column in enumerate(columns) if column.valid is not None]
    code = np.zeros(count, np.int64)
    for bit, index in enumerate(nullable):
        code |= cast("npt.NDArray[np.bool_]", columns[index].valid).astype(np.int64) << bit
    pieces: list[bytes] = []
    for value in [0] if not nullable else np.unique(code).tolist():
        rows = None if not nullable or (code == value).all() else np.flatnonzero(code == value)
        null = frozenset(index for bit, index in enumerate(nullable) if not value >> bit & 1)
        texts = columns[-1].values
        if isinstance(texts, Texts) and len(columns) - 1 not in null:
            pieces += _encode_by_text(columns, null, np.arange(count) if rows is None else rows, texts)
        else:
            pieces += _encode_alike(columns, null, rows, count)
    return pieces


def _encode_by_text(columns: Sequence[Column], null: frozenset[int], rows: npt.NDArray[np.intp], texts: Texts) -> list[bytes]:
    """Rows of one text are of one size, and made by numpy alone; the others one by one."""
    position = texts.position[rows]
    counts = np.bincount(position, minlength=len(texts.texts))
    shared = np.flatnonzero(counts >= _SHARED)
    pieces = [_encode_alike(columns, null, rows[position == each], 0, texts.texts[each])[0] for each in shared[:_MOST_SHARED].tolist()]
    rest = rows[~np.isin(position, shared[:_MOST_SHARED])]
    return pieces + _encode_alike(columns, null, rest, 0) if len(rest) else pieces


@lru_cache(1000)
def _layout(kinds: tuple[str, ...], null: frozenset[int], tail: int | None = None) -> np.dtype[Any]:
    """A row without its byte string, or with one of that many bytes."""
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for index, kind in enumerate(kinds):
        fields.append((f"length{index}", ">i4"))
        if index not in null and kind != "bytes":
            fields.append((f"value{index}", _TYPES[kind]))
    if tail:
        fields.append(("tail", f"V{tail}"))
    return np.dtype(fields)


def _encode_alike(
    columns: Sequence[Column], null: frozenset[int], rows: npt.NDArray[np.intp] | None, count: int, text: bytes | None = None
) -> list[bytes]:
    """Some rows (None: all), which are null in the same columns; with `text`, that is the byte string of all of them."""
    layout = _layout(tuple(column.kind for column in columns), null, None if text is None else len(text))
    out = np.empty(count if rows is None else len(rows), layout)
    out["fields"] = len(columns)
    tail: Sequence[bytes] | None = None
    for index, column in enumerate(columns):
        if index in null:
            out[f"length{index}"] = -1
        elif text is not None and index == len(columns) - 1:
            out[f"length{index}"] = len(text)
            if text:
                out["tail"] = np.void(text)
        elif column.kind == "bytes":
            tail = _strings(column.values, rows)
            out[f"length{index}"] = np.fromiter(map(len, tail), np.int32, len(out))
        else:
            values = column.values if rows is None else column.values[rows]
            out[f"length{index}"] = layout[f"value{index}"].itemsize
            out[f"value{index}"] = values - POSTGRES_EPOCH_US if column.kind == "timestamptz" else values
    if tail is None:
        return [out.tobytes()]
    heads = out.view(np.dtype((np.void, layout.itemsize))).tolist()
    pieces: list[bytes] = [b""] * (2 * len(out))
    pieces[0::2], pieces[1::2] = heads, tail
    return pieces


def _strings(values: Texts | Sequence[bytes], rows: npt.NDArray[np.intp] | None) -> Sequence[bytes]:
    if isinstance(values, Texts):
        return values.take(rows)
    return values if rows is None else [values[row] for row in rows.tolist()]


def encode_row(values: Sequence[bytes | None]) -> bytes:
    """One row whose values are in PostgreSQL's binary form already."""
    parts = [b"\xff\xff\xff\xff" if value is None else struct.pack(">i", len(value)) + value for value in values]
    return struct.pack(">h", len(values)) + b"".join(parts)


def int4(value: int) -> bytes:
    """An integer column's value."""
    return struct.pack(">i", value)


def int2(value: int) -> bytes:
    """A smallint column's value."""
    return struct.pack(">h", value)


def int8(value: int) -> bytes:
    """A bigint column's value."""
    return struct.pack(">q", value)


def timestamptz(microseconds: int) -> bytes:
    """A timestamptz column's value from µs since the Unix epoch."""
    return struct.pack(">q", microseconds - POSTGRES_EPOCH_US)
