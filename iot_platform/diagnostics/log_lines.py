"""Log lines of every program of the platform, read: our JSON, Dagster's, PostgreSQL's, Kafka's and Mosquitto's own forms."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_WORDS: Final = {
    "trace": "debug", "debug": "debug", "info": "info", "log": "info", "notice": "info", "statement": "info",
    "warn": "warning", "warning": "warning", "error": "error", "fatal": "critical", "panic": "critical", "critical": "critical",
}  # fmt: skip
_TIME: Final = re.compile(r"^\[?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?\d*\s*(Z|UTC|[+-]\d\d:?\d\d)?\]?\s*")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_EPOCH: Final = re.compile(r"^(\d{9,11}): ")
_LEVEL: Final = re.compile(
    r"^(?:\[\d+\](?: \S+)? (?P<postgresql>[A-Z]+\d?):|\[(?P<structlog>\w+)\s*\]"
    r"|(?P<kafka>TRACE|DEBUG|INFO|WARN|ERROR|FATAL) |- \S+ - (?P<dagster>\w+) -)"
)
_CONTINUES: Final = frozenset({"DETAIL", "HINT", "CONTEXT", "STATEMENT", "QUERY", "LOCATION"})
"""PostgreSQL's lines that belong to the one before."""
_RUN: Final = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_PARTITION: Final = re.compile(r"\bpartitions?[ =:]\s*[\[(]?((?:\d+(?:,\s*)?)+)", re.IGNORECASE)
_BATCH: Final = re.compile(r"\bbatch[ =](\d+)\b")
_OFFSETS: Final = re.compile(r"\bfirst_offset=(\d+).*\blast_offset=(\d+)|\boffset[ =](\d+)")


@dataclass(frozen=True)
class Record:
    """One log line with what belongs to it. `at` is None where the program writes no time."""

    program: str
    raw: str
    at: datetime | None = None
    level: str = "info"
    text: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What a record has to be; None and "" want nothing. `run`: its first characters are enough. `offset` without `partition` is any's."""

    level: str = "debug"
    run: str = ""
    batch: int | None = None
    partition: int | None = None
    offset: int | None = None

    def takes(self, record: Record) -> bool:
        """Whether to show it."""
        if LEVELS.index(record.level) < LEVELS.index(self.level):
            return False
        if self.run and not any(run.startswith(self.run) for run in _runs(record)):
            return False
        if self.batch is not None and self.batch not in _batches(record):
            return False
        if self.offset is not None:
            return any(first <= self.offset <= last for first, last in _spans(record, self.partition))
        return self.partition is None or self.partition in _partitions(record)


def plain(line: str) -> str:
    """Without colours, which Dagster writes wherever its output goes."""
    return _COLOUR.sub("", line)


def begins(line: str) -> bool:
    """Whether a line is a record's first one; the rest, such as a traceback, belongs to the record before."""
    if line.startswith("{"):
        return True
    if found := _TIME.match(line):
        level = _LEVEL.match(line[found.end() :])
        return not (level and level["postgresql"] in _CONTINUES)
    return bool(_EPOCH.match(line))


def parse(program: str, lines: str) -> Record:
    """A record of its lines."""
    first = lines.split("\n", 1)[0]
    if first.startswith("{"):
        try:
            document = json.loads(first)
        except ValueError:
            document = None
        if isinstance(document, dict):
            return _of_json(program, lines, document)
    at, rest = _time(first)
    found = _LEVEL.match(rest)
    word = next((value for value in found.groupdict().values() if value), "") if found else ""
    level = _WORDS.get(re.sub(r"\d+$", "", word.lower()), "") or _guessed(rest)
    return Record(program, lines, at, level, lines[len(first) - len(rest) :])


def _of_json(program: str, raw: str, document: dict[str, Any]) -> Record:
    at, _ = _time(str(document.pop("timestamp", "")))
    level = _WORDS.get(str(document.pop("level", "info")).lower(), "info")
    return Record(program, raw, at, level, str(document.pop("event", "")), document)


def _time(text: str) -> tuple[datetime | None, str]:
    """The time that a text begins with, and the rest. Without a zone it counts as UTC, which our programs run in."""
    if found := _TIME.match(text):
        day, clock, fraction, zone = found.groups()
        zone = "+00:00" if zone in (None, "Z", "UTC") else zone
        try:
            return datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0'):0<6}{zone}"), text[found.end() :]
        except ValueError:
            return None, text
    if found := _EPOCH.match(text):
        return datetime.fromtimestamp(int(found[1]), UTC), text[found.end() :]
    return None, text


def _guessed(text: str) -> str:
    """Mosquitto and Java's own lines name no level."""
    lowered = text.lower()
    if "error" in lowered or "exception" in lowered or lowered.startswith("fatal"):
        return "error"
    return "warning" if "warning" in lowered else "info"


def _runs(record: Record) -> list[str]:
    found = [str(record.fields[name]) for name in ("run", "run_id") if record.fields.get(name)]
    return found + _RUN.findall(record.raw)


def _batches(record: Record) -> list[int]:
    value = record.fields.get("batch")
    return [value] if isinstance(value, int) else [int(number) for number in _BATCH.findall(record.text)]


def _partitions(record: Record) -> set[int]:
    fields = record.fields
    found = {int(number) for text in _PARTITION.findall(record.text) for number in re.findall(r"\d+", text)}
    if isinstance(fields.get("partition"), int):
        found.add(fields["partition"])
    if isinstance(fields.get("partitions"), list):
        found |= {number for number in fields["partitions"] if isinstance(number, int)}
    return found | {number for number, _, _ in _by_partition(fields)}


def _spans(record: Record, partition: int | None) -> list[tuple[int, int]]:
    """First and last offset that the record speaks of, in this partition (None: in any)."""
    fields = record.fields
    spans: list[tuple[int, int]] = []
    spans += [(first, last) for number, first, last in _by_partition(fields) if partition in (None, number)]
    if partition is not None and partition not in _partitions(record):
        return spans
    if isinstance(fields.get("first_offset"), int) and isinstance(fields.get("last_offset"), int):
        spans.append((fields["first_offset"], fields["last_offset"]))
    elif isinstance(fields.get("offset"), int):
        spans.append((fields["offset"], fields["offset"]))
    for first, last, one in _OFFSETS.findall(record.text):
        spans.append((int(first or one), int(last or one)))
    return spans


def _by_partition(fields: Mapping[str, Any]) -> Iterator[tuple[int, int, int]]:
    """Partition, first and last offset of our field `offsets`; other programs' field of that name is none of these."""
    offsets = fields.get("offsets")
    for number, span in offsets.items() if isinstance(offsets, dict) else ():
        match span:
            case [int(first), int(last)] if number.isdecimal():
                yield int(number), first, last
