"""What other rules would make of quarantined messages, without writing anything."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from iot_platform.settings import Settings
from iot_platform.telemetry.corrections import rules_with
from iot_platform.telemetry.decode import Correction, DecodeRules, Message, Quarantined, decode_one

MOST_MESSAGES: Final = 1000
MOST_BYTES: Final = 16 * 1024 * 1024
SECONDS: Final = 5.0
EXAMPLES: Final = 20


class Stored(NamedTuple):
    """A quarantined message; received_at in µs."""

    partition: int
    offset: int
    topic: str
    payload: bytes
    received_at: int
    reason: str


@dataclass(frozen=True)
class Example:
    """One message, and what would become of it."""

    partition: int
    offset: int
    topic: str
    words: str
    would_store: bool


@dataclass
class Outcome:
    """Of the messages that were tried; `left`: how many were not, for want of time."""

    would_store: int = 0
    still_refused: int = 0
    left: int = 0
    examples: list[Example] = field(default_factory=list)


def correcting(settings: Settings, tenant: str, said: Mapping[str, Any]) -> Correction | None:
    """The correction that a tenant's operator would add; None where he says nothing. Raises CorrectionError."""
    return Correction(tenant, "", "", "", 0, None, rules_with(settings, said)) if said else None


def dry_run(
    rules: DecodeRules, tenant: str, messages: Iterable[Stored], tried: Correction | None = None, seconds: float = SECONDS
) -> Outcome:
    """What a replay would make of each by the rules, with `tried` behind their corrections: by the plain decoder, the contract's reference.
    Takes processor time: for a thread. What would become another tenant's counts as refused."""
    outcome, deadline = Outcome(), time.monotonic() + seconds
    if tried is not None:
        rules = replace(rules, corrections=(*rules.corrections, tried))
    kinds: set[tuple[str, bool]] = set()
    for message in messages:
        if time.monotonic() >= deadline:
            outcome.left += 1
            continue
        topic = message.topic.encode("utf-8", "surrogatepass")
        decoded = decode_one(rules, topic, message.payload, message.received_at)
        stored = isinstance(decoded, Message) and decoded.tenant == tenant
        outcome.would_store += stored
        outcome.still_refused += not stored
        if isinstance(decoded, Quarantined) and tried is not None:  # what is new to him: why his own rules refuse it
            decoded = decode_one(tried.rules, topic, message.payload, message.received_at)
        words = _words(decoded, stored, tenant)
        kind = (str(getattr(decoded, "reason", "")), stored)
        if len(outcome.examples) < EXAMPLES and (kind not in kinds or len(outcome.examples) < EXAMPLES // 2):
            kinds.add(kind)
            outcome.examples.append(Example(message.partition, message.offset, message.topic, words, stored))
    return outcome


def _words(decoded: Message | Quarantined, stored: bool, tenant: str) -> str:
    if isinstance(decoded, Quarantined):
        return f"{decoded.reason}: {decoded.detail}"
    if not stored:
        return "another tenant's" if decoded.tenant != tenant else "its topic names no tenant by the platform's rules"
    count = len(decoded.measurements)
    return f"{count} measurement{'s' * (count != 1)} of device {decoded.device!r} in project {decoded.project}"
