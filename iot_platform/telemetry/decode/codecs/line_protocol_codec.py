"""InfluxDB line protocol: numbers, escapes and texts exactly as InfluxDB reads them. One bad line, and the whole message is refused."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final, Literal, NamedTuple, NoReturn, TypeAlias

from pydantic import field_validator

from iot_platform.telemetry.decode.codecs.codec import Codec, Points, Reading, Record
from iot_platform.telemetry.decode.limits import MAX_MEASUREMENTS
from iot_platform.telemetry.decode.reasons import Reason, Rejection, beyond_double, excerpt, not_utf8

Precision: TypeAlias = Literal["ns", "us", "ms", "s"]
Tags: TypeAlias = tuple[tuple[str, str], ...]

_NANOSECONDS: Final[dict[Precision, int]] = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)

# A backslash escapes what follows only if that would end the name: two of them before a comma are one of the name, and one that escapes.
# Possessive repeats: no input makes them go back.
_MEASUREMENT = re.compile(r"(?:[^, \n\\]|\\++[, ]?+)++")
_KEY = re.compile(r"(?:[^,= \n\\]|\\++[,= ]?+)++")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_SCALAR = re.compile(r"[^, \r\n\"]++")
_SPACE = re.compile(r" ++")
_INDENT = re.compile(r"[ \t]*+")
_BLANK = re.compile(r"(?:[ \t\r]*+(?:#[^\n]*+)?+\n)*+")
_COMMENT = re.compile(r"[ \t\r]*+(?:#[^\n]*+)?+")
_END = re.compile(r" *+\r?(?:\n|\Z)")
_FLOAT = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"(-?[0-9]+)i|([0-9]+)u")
_TIME = re.compile(r"-?[0-9]+")
_BOOLEANS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(("f", "F", "false", "False", "FALSE"), False)
_ESCAPED_MEASUREMENT = re.compile(r"\\([, ])")
_ESCAPED_KEY = re.compile(r"\\([,= ])")
_ESCAPED_TEXT = re.compile(r'\\(["\\])')
_PLACEHOLDER = re.compile(r"(\{measurement\}|\{field\})")
_MOST_DIGITS = 40


class Line(NamedTuple):
    """One line: its fields share measurement, tags (sorted) and time (µs since the epoch, None where the line has none)."""

    measurement: str
    tags: Tags
    fields: dict[str, bool | int | float | str]
    time: int | None


class LineProtocolCodec(Codec):
    """`precision`: of the timestamps. `device_tags`: the first of these tags that a line has names its device, and is no part of the
    metric. `metric`: how a metric is called, by {measurement} and {field}. Other tags follow as `,tag=value`, because series that differ
    in a tag only would be one without it; `tags` "drop" leaves them out."""

    precision: Precision = "ns"
    device_tags: tuple[str, ...] = ()
    metric: str = "{measurement}.{field}"
    tags: Literal["append", "drop"] = "append"

    @field_validator("metric")
    @classmethod
    def _names_field(cls, value: str) -> str:
        if "{field}" not in value:
            raise ValueError("must have {field}, and may have {measurement}")
        return value

    def read(self, payload: bytes, record: Record) -> Points:
        readings = (reading for line in parse(payload, self.precision) for reading in self._readings(line))
        return Points(list(islice(readings, MAX_MEASUREMENTS + 1)))

    def _readings(self, line: Line) -> Iterator[Reading]:
        device, tags = _device(line.tags, self.device_tags)
        suffix = "".join(f",{key}={value}" for key, value in tags) if self.tags == "append" else ""
        for field, value in line.fields.items():
            names = {"{measurement}": line.measurement, "{field}": field}
            metric = "".join(names.get(part, part) for part in _PLACEHOLDER.split(self.metric))
            yield Reading(metric + suffix, value, line.time, device)


def _device(tags: Tags, wanted: tuple[str, ...]) -> tuple[str | None, Tags]:
    present = dict(tags)
    for name in wanted:
        if name in present:
            return present[name], tuple(tag for tag in tags if tag[0] != name)
    return None, tags


def parse(payload: bytes, precision: Precision = "ns") -> Iterator[Line]:
    """The lines of a payload, in order; comments and blank lines are passed over.

    Raises:
        Rejection: not_utf8, bad_encoding, not_finite, bad_timestamp.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(error, f"line protocol: byte {error.start + 1} of {len(payload)}") from None
    reader = _Reader(text, _NANOSECONDS[precision])
    while (line := reader.line()) is not None:
        yield line


class _Reader:
    """One payload, read from left to right."""

    def __init__(self, text: str, nanoseconds: int) -> None:
        self._text = text
        self._nanoseconds = nanoseconds
        self._at = 0

    def line(self) -> Line | None:
        """The next line, None at the end."""
        self._take(_BLANK)
        self._take(_INDENT)
        if self._at >= len(self._text) or ((found := _COMMENT.match(self._text, self._at)) and found.end() == len(self._text)):
            return None
        measurement = _ESCAPED_MEASUREMENT.sub(r"\1", self._need(_MEASUREMENT, "a measurement"))
        tags = self._tags()
        self._need(_SPACE, "a space before the fields")
        fields = self._fields()
        return Line(measurement, tags, fields, self._time())

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]

    def _need(self, pattern: re.Pattern[str], what: str) -> str:
        return self._take(pattern) or self._fail(f"{what} is missing")

    def _fail(self, what: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - (self._text.rfind("\n", 0, self._at) + 1) + 1
        raise Rejection(Reason.BAD_ENCODING, f"line protocol: line {line}, character {column}: {what}")

    def _next_is(self, character: str) -> bool:
        if self._text.startswith(character, self._at):
            self._at += 1
            return True
        return False

    def _tags(self) -> Tags:
        tags: dict[str, str] = {}
        while self._next_is(","):
            key = _name(self._need(_KEY, "the key of a tag"))
            if not self._next_is("="):
                self._fail(f"tag {excerpt(key)} has no value")
            if key in tags:
                self._fail(f"tag {excerpt(key)} is there twice")
            tags[key] = _name(self._need(_KEY, f"the value of tag {excerpt(key)}"))
        return tuple(sorted(tags.items()))

    def _fields(self) -> dict[str, bool | int | float | str]:
        fields: dict[str, bool | int | float | str] = {}
        while True:
            key = _name(self._need(_KEY, "the key of a field"))
            if not self._next_is("="):
                self._fail(f"field {excerpt(key)} has no value")
            fields[key] = self._value(key)  # of a field that is there twice, InfluxDB takes the last value
            if not self._next_is(","):
                return fields

    def _value(self, key: str) -> bool | int | float | str:
        if self._text.startswith('"', self._at):
            quoted = self._take(_STRING) or self._fail(f"the text of field {excerpt(key)} has no end")
            return _ESCAPED_TEXT.sub(r"\1", quoted[1:-1])
        start = self._at
        token = self._need(_SCALAR, f"the value of field {excerpt(key)}")
        value = _scalar(token)
        if value is None:
            self._at = start
            self._fail(f"{excerpt(token)} is neither a number (1, 1i, 1u) nor a boolean nor a text in quotes")
        return value

    def _time(self) -> int | None:
        """The timestamp of a line, to µs (finer is cut off); takes the line's end, too."""
        if self._take(_END) or self._at >= len(self._text):
            return None
        self._need(_SPACE, "a space, comma or the end of the line")
        token = self._need(_TIME, "a timestamp")
        if not self._take(_END) and self._at < len(self._text):
            self._fail("more follows the timestamp")
        if len(token) > _MOST_DIGITS or int(token) not in _INT64:
            raise Rejection(Reason.BAD_TIMESTAMP, f"{excerpt(token)} does not fit 64 bits")
        nanoseconds = int(token) * self._nanoseconds
        return nanoseconds // 1000 if nanoseconds >= 0 else -(-nanoseconds // 1000)


def _name(token: str) -> str:
    return _ESCAPED_KEY.sub(r"\1", token) if "\\" in token else token


def _scalar(token: str) -> bool | int | float | None:
    """A boolean or number; None if it is none. Raises not_finite for what a double, or 64 bits, cannot hold."""
    if token in _BOOLEANS:
        return _BOOLEANS[token]
    if (found := _INTEGER.fullmatch(token)) is not None:
        signed, unsigned = found.groups()
        digits = signed or unsigned
        if len(digits) > _MOST_DIGITS or int(digits) not in (_INT64 if signed else _UINT64):
            raise Rejection(Reason.NOT_FINITE, f"the integer {excerpt(token)} does not fit 64 bits")
        return int(digits)
    if _FLOAT.fullmatch(token) is None:
        return None
    number = float(token)
    if number in (float("inf"), float("-inf")):
        raise beyond_double(token)
    return number
