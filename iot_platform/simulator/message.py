"""What the simulator publishes, and what it knows must become of it (its own knowledge, never the decoder's)."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value that the platform must derive from a message.

    `time_us` is µs since the epoch, None for the receive time; `device` is None for the message's own device.
    """

    metric: str
    value: float | None
    value_int: int | None = None
    value_text: str | None = None
    time_us: int | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """The one right outcome of a message: decoded (`reason` None) or quarantined for `reason`."""

    reason: str | None
    tenant: str = ""
    project: str = ""
    device: str = ""
    time_source: Literal["receive", "payload"] = "receive"
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One publish of the plan.

    `number` counts from 0 in publish order; `offset_us` is its due time since the start; `device` selects the connection,
    so that a device's messages keep their order; `copy_of` is the number of the message that this one repeats byte for byte.
    """

    number: int
    offset_us: int
    device: int
    kind: str
    topic: str
    payload: bytes
    expected: Expected
    retain: bool = False
    copy_of: int | None = None
