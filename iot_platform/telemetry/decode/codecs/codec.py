"""What a codec is: bytes of one payload in, a document or ready points out. Everything after is the same for all codecs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict

from iot_platform.telemetry.decode.document import Document
from iot_platform.telemetry.decode.sparkplug.births import Births, Place
from iot_platform.telemetry.decode.topic_pattern import TopicNames

Raw: TypeAlias = "Mapping[Any, Any] | Sequence[Any] | str | bytes | int | float | bool | Any"
"""A value as a format's library gives it; `Tree` (tree.py) turns it into a document's."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a codec may know of a message besides its payload: its topic and what that names, its place, the births that came before it (of
    Sparkplug B), and the most bytes that may come out of what is compressed in it."""

    topic: str
    names: TopicNames
    at: Place
    births: Births
    max_bytes: int

    @property
    def received_at(self) -> int:
        """µs since the epoch."""
        return self.at.received_at


@dataclass(frozen=True, slots=True)
class Reading:
    """One ready point: an object is flattened below the metric, None gives nothing, all else follows the contract's rule for fields."""

    metric: str
    value: Raw
    time: int | None = None  # µs since the epoch; None: the message's
    device: str | None = None  # None: the message's
    is_historical: bool = False  # kept back by the device: it is nobody's latest value


@dataclass(frozen=True, slots=True)
class Points:
    """A payload whose format has names and times of its own. Pointers don't apply to it: tenant and project are the topic's."""

    readings: Sequence[Reading]
    device: str | None = None  # instead of the topic's; None: the topic's


class Codec(BaseModel, ABC):
    """A format with its options, which are the fields; they come from IOT_TOPIC_CODECS and are validated at start.

    One object serves one decoder, which one thread uses; it may be asked about any record again (replay, `iot trace`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def read(self, payload: bytes, record: Record) -> Document | Points:
        """The content of a payload of at least one byte, already decompressed. Bounded time and memory for any bytes.

        Raises:
            Rejection: it must be quarantined. No other exception, whatever the bytes.
        """
