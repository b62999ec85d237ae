"""Reads InfluxDB's line protocol as `influx_inspect export` and `influxd inspect export-lp` write it: one record is one line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from iot_platform.imports.made import Made, NameRefusedError, TimePlace, time_token, topic_of
from iot_platform.imports.mapping import UNITS, Mapping, Source, json_text
from iot_platform.telemetry.decode import Reason
from iot_platform.telemetry.decode.codecs.line_protocol_codec import Line, parse
from iot_platform.telemetry.decode.codecs.table import IMPORT_PREFIX
from iot_platform.telemetry.decode.reasons import Rejection

MAX_TEXT_BYTES: Final = 1 << 20
"""A text with line breaks may be so long; where no quote ends it by then, the line alone is the record."""
_CONTEXT: Final = {b"# CONTEXT-DATABASE:": "database", b"# CONTEXT-RETENTION-POLICY:": "retention_policy"}
_HEAD: Final = re.compile(rb"(?:[^ \\\n]|\\.)*+ ++", re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\.", re.DOTALL)
_FLOAT: Final = re.compile(rb"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?")
_INTEGER: Final = re.compile(rb"(-?(?:0|[1-9][0-9]{0,17}))i")
_TIME: Final = re.compile(rb"-?(?:[0-9]{1,18}|[1-8][0-9]{18})")
_BOOLEANS: Final = dict.fromkeys((b"t", b"T", b"true", b"True", b"TRUE"), b"true") | dict.fromkeys(
    (b"f", b"F", b"false", b"False", b"FALSE"), b"false"
)


@dataclass(slots=True)
class _Series:
    """What the part of a line before its fields means: the topic, how its metrics are called, and their names as JSON by field."""

    topic: bytes
    prefix: str
    suffix: str
    keys: dict[bytes, bytes] = field(default_factory=dict)


class LineReader:
    """Makes records of lines, the n-th line that is no comment being record n. Comments, blank lines and the DDL at the beginning of an
    export are passed over."""

    def __init__(self, stream: BinaryIO, mapping: Mapping, place: TimePlace) -> None:
        self._stream = stream
        self._mapping = mapping
        self._place = place
        self._head, self._between = place.head.encode(), place.tail.encode()
        self._divisor = UNITS[mapping.precision]
        self._context: dict[str, str] = {}
        self._series: dict[bytes, _Series] = {}
        self._number = 0  # of the line
        self._pending: list[bytes] = []
        metric = mapping.metric if isinstance(mapping.metric, str) else "{measurement}.{field}"
        self._before, self._behind = metric.split("{field}", 1)

    def read(self, skip: int, records: int, size: int) -> Iterator[Made]:
        """The records behind the first `skip`, in batches of so many records or bytes."""
        made = Made()
        for at, record in enumerate(self._records()):
            if at < skip:
                continue
            self._make(made, record)
            if len(made) >= records or made.size >= size:
                yield made
                made = Made()
        if len(made):
            yield made

    def _lines(self) -> Iterator[bytes]:
        while True:
            line = self._pending.pop(0) if self._pending else self._stream.readline()
            if not line:
                return
            self._number += 1
            yield line

    def _records(self) -> Iterator[bytes]:
        in_ddl = False
        for line in self._lines():
            if line[0] in b"# \t\r\n":
                text = line.strip()
                if not text:
                    continue
                if text.startswith(b"#"):
                    in_ddl = text == b"# DDL" or (in_ddl and text != b"# DML")
                    self._note_context(text)
                    continue
            if in_ddl:
                continue
            yield self._whole(line) if b'"' in line and _is_open(line) else line

    def _whole(self, line: bytes) -> bytes:
        """A line with the lines that its text goes on in."""
        parts, size = [line], len(line)
        while size < MAX_TEXT_BYTES and (more := self._pending.pop(0) if self._pending else self._stream.readline()):
            parts.append(more)
            size += len(more)
            if b'"' in more and not _is_open(b"".join(parts)):
                self._number += len(parts) - 1
                return b"".join(parts)
        self._pending = parts[1:] + self._pending
        return line

    def _note_context(self, comment: bytes) -> None:
        for prefix, name in _CONTEXT.items():
            if comment.startswith(prefix):
                self._context[name] = comment[len(prefix) :].decode("utf-8", "replace").strip()
                self._series.clear()

    def _make(self, made: Made, record: bytes) -> None:
        record = record.rstrip(b"\r\n")
        topic = b""
        try:
            if (quick := self._quick(record)) is not None:
                made.add(*quick)
                return
            lines = list(parse(record, self._mapping.precision))
            if len(lines) != 1:
                raise Rejection(Reason.BAD_ENCODING, "is not one line of line protocol")
            series = self._named(lines[0])
            topic = series.topic
            made.add(topic, self._document(series, lines[0]))
        except Rejection as error:
            made.refuse(topic or self._constant_topic(), record, error.reason, f"line {self._number}: {error.detail}")
        except NameRefusedError as error:
            made.refuse(topic or self._constant_topic(), record, Reason.BAD_NAME, f"line {self._number}: {error}")

    def _quick(self, record: bytes) -> tuple[bytes, bytes] | None:
        """Topic and payload of an ordinary line; None for one that has to be looked at more closely."""
        parts = record.split(b" ")
        if len(parts) != 3 or b'"' in record or b"\\" in record or b"\0" in record:
            return None
        key, fields, time = parts
        if _TIME.fullmatch(time) is None:
            return None
        series = self._series.get(key)
        if series is None:
            (line,) = parse(key + b" f=1", "ns")
            series = self._named(line)
            if len(self._series) > 1_000_000:
                self._series.clear()
            self._series[key] = series
        found = []
        for pair in fields.split(b","):
            name, _, token = pair.partition(b"=")
            metric = series.keys.get(name)
            if metric is None:
                metric = self._add_key(series, name)
            if _FLOAT.fullmatch(token) is not None:
                found.append(metric + token)
            elif (integer := _INTEGER.fullmatch(token)) is not None:
                found.append(metric + integer[1])
            elif (boolean := _BOOLEANS.get(token)) is not None:
                found.append(metric + boolean)
            else:
                return None
        if len(found) > 1 and fields.count(b",") and len({pair.partition(b"=")[0] for pair in fields.split(b",")}) < len(found):
            return None
        return series.topic, b"".join((self._head, self._time(int(time)).encode(), self._between, b",", b",".join(found), b"}"))

    def _add_key(self, series: _Series, name: bytes) -> bytes:
        try:
            text = name.decode()
        except UnicodeDecodeError as error:
            raise Rejection(Reason.NOT_UTF8, f"the name of a field is not UTF-8: {error.reason}") from None
        if not name:
            raise Rejection(Reason.BAD_ENCODING, "the key of a field is missing")
        metric = self._place.check(series.prefix + text + series.suffix)
        key = series.keys[name] = json_text(metric).encode() + b":"
        return key

    def _time(self, value: int) -> str:
        nanoseconds = value * self._divisor
        return time_token(nanoseconds // 1000 if nanoseconds >= 0 else -(-nanoseconds // 1000))

    def _document(self, series: _Series, line: Line) -> bytes:
        if line.time is None:
            raise Rejection(Reason.BAD_TIMESTAMP, "has no time, and history needs one")
        found = []
        for name, value in line.fields.items():
            key = json_text(self._place.check(series.prefix + name + series.suffix))
            found.append(f"{key}:{json_text(value)}")
        return f"{self._place.head}{time_token(line.time)}{self._place.tail},{','.join(found)}}}".encode()

    def _named(self, line: Line) -> _Series:
        tags = dict(line.tags)
        names = [self._name(source, tags) for source in (self._mapping.tenant, self._mapping.project, self._mapping.device)]
        used = {source.tag for source in (self._mapping.tenant, self._mapping.project, self._mapping.device) if source is not None}
        rest = [(key, value) for key, value in line.tags if key not in used] if self._mapping.tags == "append" else []
        suffix = "".join(f",{key}={value}" for key, value in rest)
        before, behind = (part.replace("{measurement}", line.measurement) for part in (self._before, self._behind))
        return _Series(topic_of(*names), before, behind + suffix)

    def _name(self, source: Source | None, tags: dict[str, str]) -> str:
        if source is None:
            return ""
        if source.context is not None:
            return self._context.get(source.context, "")
        return source.value or tags.get(source.tag or "", "")

    def _constant_topic(self) -> bytes:
        """Of a line that names nothing: what holds for all lines."""
        names = [self._name(source, {}) for source in (self._mapping.tenant, self._mapping.project)]
        return f"{IMPORT_PREFIX}{'/'.join(names)}/".encode()


def _is_open(record: bytes) -> bool:
    """Whether a text begins in the fields and does not end."""
    head = _HEAD.match(record)
    return head is not None and _ESCAPED.sub(b"", record[head.end() :]).count(b'"') % 2 == 1
