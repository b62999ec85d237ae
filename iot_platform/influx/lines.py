"""Line protocol: how a measurement of the main store is written for InfluxDB, and read back.

One fixed type for each field, for ever: `value` is a float, `value_int` an integer, `value_bool` a boolean, `value_text` a string.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

VALUE, VALUE_INT, VALUE_BOOL, VALUE_TEXT = 1, 2, 4, 8
"""Bits: which fields a point has."""
FIELDS: Final = ("value", "value_int", "value_bool", "value_text")
TAGS: Final = ("device", "metric", "project", "tenant")
"""In the order in which InfluxDB sorts them."""
MOST_TAG_BYTES: Final = 60_000
"""Of all names of a series together: InfluxDB 1.x takes keys up to 65,535 bytes."""

_KEPT_BADLY: Final = re.compile(r"[\x00-\x1f\x7f\\]|%(?=[0-9A-Fa-f]{2})")
_WRITTEN: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_SPECIAL: Final = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ "})
_SPECIAL_NAME: Final = str.maketrans({",": "\\,", " ": "\\ "})
_QUOTED: Final = str.maketrans({'"': '\\"', "\\": "\\\\"})

Key = tuple[str, str, str, str]
"""Device, metric, project, tenant: as TAGS."""


class Row(NamedTuple):
    """One measurement as the main store has it; time in µs since the epoch."""

    series_id: int
    time: int
    value: float | None
    value_int: int | None
    value_text: str | None


def tag_value(name: str) -> str:
    """A name as InfluxDB can keep it: control characters, backslashes, and % before two hexadecimal digits, become %XX. `name_of` undoes
    it. An empty name is a tag that is left out, which InfluxDB shows as empty."""
    return _KEPT_BADLY.sub(lambda found: f"%{ord(found[0]):02X}", name)


def name_of(tag: str) -> str:
    """The name that `tag_value` wrote."""
    return _WRITTEN.sub(lambda found: chr(int(found[1], 16)), tag)


def series_key(measurement: str, key: Key) -> str:
    """Measurement and tags as a line begins with them."""
    tags = (f",{tag}={tag_value(name).translate(_SPECIAL)}" for tag, name in zip(TAGS, key, strict=True) if name)
    return f"{measurement.translate(_SPECIAL_NAME)}{''.join(tags)} "


def kinds(row: Row) -> int:
    """Which fields its point has."""
    found = VALUE if row.value is not None else 0
    if row.value_int is not None:
        found |= VALUE_INT
    if row.value_text is not None:
        found |= VALUE_BOOL if is_boolean(row) else VALUE_TEXT
    return found


def is_boolean(row: Row) -> bool:
    """Whether the payload had true or false there: these two texts, with the number 1 or 0 beside."""
    return row.value_text in ("true", "false") and row.value is not None


def line(prefix: str, row: Row) -> str:
    """The point of a measurement; `prefix` from series_key. Nanoseconds: to be sent with precision=ns."""
    _, time, value, value_int, text = row
    if value_int is None and text is None:
        return f"{prefix}value={value!r} {time}000"
    fields = [] if value is None else [f"value={value!r}"]
    if value_int is not None:
        fields.append(f"value_int={value_int}i")
    if text is not None:
        fields.append(f"value_bool={text}" if is_boolean(row) else f'value_text="{text.translate(_QUOTED)}"')
    return f"{prefix}{','.join(fields)} {time}000"


def requests(lines: Iterable[str], most_lines: int = 5_000, most_bytes: int = 4 * 1024 * 1024) -> "list[slice]":
    """How many lines go into one request: slices of the list, each bounded in both (a single longer line alone). 25 MB is where servers
    refuse by default; more than 5,000 lines gain nothing."""
    slices: list[slice] = []
    start = size = end = 0
    for end, text in enumerate(lines):
        length = len(text) * 3 if not text.isascii() else len(text)
        if end > start and (end - start >= most_lines or size + length > most_bytes):
            slices.append(slice(start, end))
            start, size = end, 0
        size += length + 1
    if size:
        slices.append(slice(start, end + 1))
    return slices
