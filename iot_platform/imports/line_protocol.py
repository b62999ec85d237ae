"""Reads InfluxDB's line protocol as `influx_inspect export` and `influxd inspect export-lp` write it: one record is one line."""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from iot_platform.imports.line_columns import FALSE, FLOAT, INTEGER, TRUE, LineColumns, Name
from iot_platform.imports.made import Made, NameRefusedError, TimePlace, micros_of, time_token, topic_of
from iot_platform.imports.mapping import UNITS, Mapping, Source, json_text
from iot_platform.telemetry.decode import Reason
from iot_platform.telemetry.decode.codecs.line_protocol_codec import Line, parse
from iot_platform.telemetry.decode.codecs.table import IMPORT_PREFIX
from iot_platform.telemetry.decode.reasons import Rejection

MAX_TEXT_BYTES: Final = 1 << 20
"""A text with line breaks may be so long; where no quote ends it by then, the line alone is the record."""
BLOCK: Final = 1 << 20
"""Bytes of lines that are looked at together."""
_MOST_SERIES: Final = 1_000_000
_UNUSUAL: Final = (b'"', b"\r", b"\n#", b"\n ", b"\n\t", b"\n\n")
"""In lines behind each other: comments, blank ones, indented ones, texts (whose lines may go on)."""
_CONTEXT: Final = {b"# CONTEXT-DATABASE:": "database", b"# CONTEXT-RETENTION-POLICY:": "retention_policy"}
_HEAD: Final = re.compile(rb"(?:[^ \\\n]|\\.)*+ ++", re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\.", re.DOTALL)
_FLOAT: Final = re.compile(FLOAT.encode())
_INTEGER: Final = re.compile(INTEGER.encode())
_TIME: Final = re.compile(rb"-?(?:[0-9]{1,18}|[1-8][0-9]{18})")
_BOOLEANS: Final = {word.encode(): token for words, token in ((TRUE, b"true"), (FALSE, b"false")) for word in words}


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
        self._pending: deque[bytes] = deque()
        self._in_ddl = False
        self._columns = LineColumns(place, self._divisor, self._ordinary)
        metric = mapping.metric if isinstance(mapping.metric, str) else "{measurement}.{field}"
        self._before, self._behind = metric.split("{field}", 1)

    def read(self, skip: int, records: int, size: int) -> Iterator[Made]:
        """The records behind the first `skip`, in batches of so many records, or bytes or little more."""
        made = Made()
        for numbers, lines in self._blocks():
            if skip >= len(lines):
                skip -= len(lines)
                continue
            while skip < len(lines):
                end = skip + records - len(made)
                self._make_all(made, numbers[skip:end], lines[skip:end])
                skip = end
                if len(made) >= records or made.size >= size:
                    yield made
                    made = Made()
            skip = 0
        if len(made):
            yield made

    def _blocks(self) -> Iterator[tuple[Sequence[int], list[bytes]]]:
        """Records (lines with their ends) and the numbers of their lines, so many at once as stand under the same context."""
        while lines := self._stream.readlines(BLOCK):
            block = b"\n" + b"".join(lines)
            if self._in_ddl or any(mark in block for mark in _UNUSUAL):
                self._pending.extend(lines)
                yield from self._carefully()
            else:
                numbers = range(self._number + 1, self._number + len(lines) + 1)
                self._number += len(lines)
                yield numbers, lines

    def _carefully(self) -> Iterator[tuple[list[int], list[bytes]]]:
        """Of the lines that are pending, with those that a text at their end goes on in."""
        numbers: list[int] = []
        lines: list[bytes] = []
        while self._pending:
            line = self._pending.popleft()
            self._number += 1
            if line[0] in b"# \t\r\n":
                text = line.strip()
                if not text:
                    continue
                if text.startswith(b"#"):
                    if lines:
                        yield numbers, lines
                        numbers, lines = [], []
                    self._in_ddl = text == b"# DDL" or (self._in_ddl and text != b"# DML")
                    self._note_context(text)
                    continue
            if not self._in_ddl:
                numbers.append(self._number)
                lines.append(self._whole(line) if b'"' in line and _is_open(line) else line)
        if lines:
            yield numbers, lines

    def _whole(self, line: bytes) -> bytes:
        """A line with the lines that its text goes on in."""
        parts, size = [line], len(line)
        while size < MAX_TEXT_BYTES and (more := self._pending.popleft() if self._pending else self._stream.readline()):
            parts.append(more)
            size += len(more)
            if b'"' in more and not _is_open(b"".join(parts)):
                self._number += len(parts) - 1
                return b"".join(parts)
        self._pending.extendleft(reversed(parts[1:]))
        return line

    def _note_context(self, comment: bytes) -> None:
        for prefix, name in _CONTEXT.items():
            if comment.startswith(prefix):
                self._context[name] = comment[len(prefix) :].decode("utf-8", "replace").strip()
                self._series.clear()
                self._columns.forget()

    def _make_all(self, made: Made, numbers: Sequence[int], lines: list[bytes]) -> None:
        """Ordinary lines all at once, the others one by one in between."""
        topics, payloads, odd = self._columns.make(lines)
        begin = 0
        for at in (*odd, len(lines)):
            made.extend(Made(topics[begin:at], payloads[begin:at], size=sum(map(len, payloads[begin:at]))))
            if at < len(lines):
                self._make(made, numbers[at], lines[at])
            begin = at + 1

    def _ordinary(self, key: str, name: str) -> Name:
        """Topic and metric of lines that begin so."""
        try:
            series = self._series_of(key.encode())
            return series.topic, self._add_key(series, name.encode()).decode()
        except (Rejection, NameRefusedError):
            return None, None

    def _make(self, made: Made, number: int, record: bytes) -> None:
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
            made.refuse(topic or self._constant_topic(), record, error.reason, f"line {number}: {error.detail}")
        except NameRefusedError as error:
            made.refuse(topic or self._constant_topic(), record, Reason.BAD_NAME, f"line {number}: {error}")

    def _quick(self, record: bytes) -> tuple[bytes, bytes] | None:
        """Topic and payload of an ordinary line; None for one that has to be looked at more closely."""
        parts = record.split(b" ")
        if len(parts) != 3 or b'"' in record or b"\\" in record or b"\0" in record:
            return None
        key, fields, time = parts
        if _TIME.fullmatch(time) is None:
            return None
        series = self._series_of(key)
        found = []
        for pair in fields.split(b","):
            name, _, token = pair.partition(b"=")
            metric = series.keys.get(name)
            if metric is None:
                metric = self._add_key(series, name)
            if _FLOAT.fullmatch(token) is not None:
                found.append(metric + token)
            elif _INTEGER.fullmatch(token) is not None:
                found.append(metric + token[:-1])
            elif (boolean := _BOOLEANS.get(token)) is not None:
                found.append(metric + boolean)
            else:
                return None
        if len(found) > 1 and fields.count(b",") and len({pair.partition(b"=")[0] for pair in fields.split(b",")}) < len(found):
            return None
        return series.topic, b"".join((self._head, self._time(int(time)).encode(), self._between, b",", b",".join(found), b"}"))

    def _series_of(self, key: bytes) -> _Series:
        series = self._series.get(key)
        if series is None:
            (line,) = parse(key + b" f=1", "ns")
            series = self._named(line)
            if len(self._series) > _MOST_SERIES:
                self._series.clear()
            self._series[key] = series
        return series

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
        return time_token(micros_of(value * self._divisor))

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
