"""What other rules would make of quarantined messages, without writing anything."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from iot_platform.actions.errors import ActionError
from iot_platform.settings import Settings, SettingsError
from iot_platform.telemetry.decode import DecodeRules, Message, decode_one

SETTINGS: Final = (
    "topic_pattern",
    "topic_codecs",
    "tenant_pointers",
    "project_pointers",
    "device_pointers",
    "time_pointers",
    "default_timezone",
)
"""What of the settings a rule may say otherwise."""
MOST_MESSAGES: Final = 1000
MOST_BYTES: Final = 16 * 1024 * 1024
SECONDS: Final = 5.0
EXAMPLES: Final = 20


class Quarantined(NamedTuple):
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


def rules_with(settings: Settings, rule: Mapping[str, Any]) -> DecodeRules:
    """The platform's rules, with what `rule` says otherwise, named as the settings are.

    Raises:
        ActionError: what it says means nothing; `field` is the setting.
    """
    for name in rule:
        if name not in SETTINGS:
            raise ActionError(f"is none of {', '.join(SETTINGS)}", f"rule.{name}")
    kept = {name: getattr(settings, name) for name in ("max_decompressed_bytes", "time_window_past_seconds", "time_window_future_seconds")}
    said = {name: getattr(settings, name) for name in SETTINGS} | dict(rule)
    try:
        return DecodeRules.from_settings(_Rules.model_validate({**kept, **said}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        words = first["msg"].removeprefix("Value error, ")
        raise ActionError(words, f"rule.{first['loc'][0]}" if first["loc"] else _named_in(words)) from error
    except SettingsError as error:
        raise ActionError(str(error), _named_in(str(error))) from error


def _named_in(words: str) -> str:
    named = next((name for name in SETTINGS if f"IOT_{name.upper()}" in words), "")
    return f"rule.{named}".rstrip(".")


class _Rules(Settings):
    """Settings from what is given alone: neither environment nor files."""

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        """Only what is given."""
        return (init_settings,)


def dry_run(rules: DecodeRules, tenant: str, messages: Iterable[Quarantined], seconds: float = SECONDS) -> Outcome:
    """Decode each by the plain decoder, the contract's reference. Takes processor time: for a thread. What would become another tenant's
    counts as refused."""
    outcome, deadline = Outcome(), time.monotonic() + seconds
    kinds: set[tuple[str, bool]] = set()
    for message in messages:
        if time.monotonic() >= deadline:
            outcome.left += 1
            continue
        decoded = decode_one(rules, message.topic.encode("utf-8", "surrogatepass"), message.payload, message.received_at)
        stored = isinstance(decoded, Message) and decoded.tenant == tenant
        outcome.would_store += stored
        outcome.still_refused += not stored
        if isinstance(decoded, Message):
            count = len(decoded.measurements)
            words = (
                f"{count} measurement{'s' * (count != 1)} of device {decoded.device!r} in project {decoded.project}"
                if stored
                else "another tenant's"
            )
        else:
            words = f"{decoded.reason}: {decoded.detail}"
        kind = (str(getattr(decoded, "reason", "")), stored)
        if len(outcome.examples) < EXAMPLES and (kind not in kinds or len(outcome.examples) < EXAMPLES // 2):
            kinds.add(kind)
            outcome.examples.append(Example(message.partition, message.offset, message.topic, words, stored))
    return outcome
