"""What every reader of files makes: records with the topic and payload of a live message, and what is refused before it is decoded."""

from dataclasses import dataclass, field
from typing import Final

from iot_platform.imports.errors import ImportRefusedError
from iot_platform.imports.mapping import json_text
from iot_platform.telemetry.decode import Reason
from iot_platform.telemetry.decode.codecs.table import IMPORT_PREFIX
from iot_platform.telemetry.decode.reasons import DETAIL_CHARACTERS, excerpt
from iot_platform.telemetry.decode.times import SECONDS_BELOW, format_time

MICROS_FROM: Final = SECONDS_BELOW * 1000
"""The contract reads integers from here on as µs; earlier times (before March 1973) are written as texts."""


@dataclass(slots=True)
class Made:
    """Some records in the order of the file: topic and payload of each, and of those that are refused why (by position)."""

    topics: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    refused: dict[int, tuple[Reason, str]] = field(default_factory=dict)
    size: int = 0  # bytes of the payloads

    def add(self, topic: bytes, payload: bytes) -> None:
        """One record."""
        self.topics.append(topic)
        self.payloads.append(payload)
        self.size += len(payload)

    def refuse(self, topic: bytes, payload: bytes, reason: Reason, detail: str) -> None:
        """One record, kept as it was."""
        self.refused[len(self.topics)] = (reason, detail[:DETAIL_CHARACTERS])
        self.add(topic, payload)

    def extend(self, more: "Made") -> None:
        """Those of the other behind these."""
        self.refused |= {len(self.topics) + at: why for at, why in more.refused.items()}
        self.topics += more.topics
        self.payloads += more.payloads
        self.size += more.size

    def __len__(self) -> int:
        return len(self.topics)


class NameRefusedError(Exception):
    """A row names no tenant or project that can be one."""


def topic_of(tenant: str, project: str, device: str) -> bytes:
    """The topic of an imported record. Raises NameRefusedError."""
    for what, name in (("tenant", tenant), ("project", project)):
        if not name:
            raise NameRefusedError(f"the row names no {what}")
        if "/" in name:
            raise NameRefusedError(f"{what} {excerpt(name)} has a slash, which no topic can name")
    return f"{IMPORT_PREFIX}{tenant}/{project}/{device}".encode()


class TimePlace:
    """Where the decoder looks first for a message's time (IOT_TIME_POINTERS), as the beginning and the end of a document."""

    def __init__(self, pointers: tuple[tuple[str, ...], ...]) -> None:
        if not pointers:
            raise ImportRefusedError('IOT_TIME_POINTERS is empty: an import needs one, such as ["/ts"]')
        self.key = pointers[0][0]
        self.head = "".join("{" + json_text(key) + ":" for key in pointers[0])
        self.tail = "}" * (len(pointers[0]) - 1)

    def check(self, metric: str) -> str:
        """The metric. Raises NameRefusedError where the document has the time in its place."""
        if metric == self.key:
            raise NameRefusedError(f"metric {excerpt(metric)} is where IOT_TIME_POINTERS has the time: map it to another name")
        return metric


def micros_of(nanoseconds: int) -> int:
    """Cut towards 1970."""
    return nanoseconds // 1000 if nanoseconds >= 0 else -(-nanoseconds // 1000)


def time_token(micros: int) -> str:
    """A time as the contract reads it, whatever its size."""
    return str(micros) if abs(micros) >= MICROS_FROM else f'"{format_time(micros)}"'
