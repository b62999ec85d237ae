"""The configurable part of the decode contract: which codec a topic has, where topic and payload name tenant, project, device and time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Self
from zoneinfo import ZoneInfo

from paho.mqtt.client import topic_matches_sub

from iot_platform.settings import Settings, SettingsError
from iot_platform.telemetry.decode.codecs.table import IMPORT_PREFIX, TopicCodec, TopicCodecs
from iot_platform.telemetry.decode.limits import MAX_WINDOW_US
from iot_platform.telemetry.decode.reasons import Reason
from iot_platform.telemetry.decode.sparkplug.births import Births
from iot_platform.telemetry.decode.topic_pattern import TopicNames, TopicPattern
from iot_platform.telemetry.project_options import narrowest

Pointer = tuple[str, ...]
Choices = Mapping[tuple[str, str], bool]
"""What was chosen for (tenant, project); an empty project means all of the tenant's, both empty all. The narrowest choice counts."""


def parse_pointers(texts: tuple[str, ...], variable: str) -> tuple[Pointer, ...]:
    """RFC 6901 pointers to object members as tuples of keys."""
    pointers = []
    for text in texts:
        if not text.startswith("/") or re.search(r"~(?![01])", text):
            raise SettingsError(f'{variable}: {text!r} is no JSON pointer; write for example ["/ts", "/meta/time"]')
        pointers.append(tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")))
    return tuple(pointers)


@dataclass(frozen=True, slots=True)
class Correction:
    """Other rules for a tenant's messages that the platform's own refuse: received in [start, end) (µs; None: no end), refused for the
    reason ("": any), their topic names the tenant and project ("": any) by the platform's rules; or names no tenant, and fits the MQTT
    topic filter, if there is one."""

    tenant: str
    project: str
    topic_filter: str
    reason: str
    start: int
    end: int | None
    rules: "DecodeRules"

    def takes(self, topic: str, named: TopicNames, reason: Reason, received_at: int) -> bool:
        """Whether a refused message is to be decoded by it. `named`: by the platform's rules."""
        if named.tenant != self.tenant and not (named.tenant is None and self.topic_filter and topic_matches_sub(self.topic_filter, topic)):
            return False
        return (
            self.project in ("", named.project)
            and self.reason in ("", reason)
            and self.start <= received_at
            and (self.end is None or received_at < self.end)
        )


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """Everything the decoder depends on but the message itself."""

    pattern: TopicPattern
    codecs: TopicCodecs
    tenant_pointers: tuple[Pointer, ...]
    project_pointers: tuple[Pointer, ...]
    device_pointers: tuple[Pointer, ...]
    time_pointers: tuple[Pointer, ...]
    zone: tzinfo
    past_us: int
    future_us: int
    numbers_in_strings: Choices = field(default_factory=dict)
    corrections: tuple[Correction, ...] = ()
    """For what these rules refuse: the first counts that takes the message and decodes it. A message that these rules take is never changed
    by one, and one that is added behind the others changes nothing that was decoded before."""
    births: Births = field(default_factory=Births, repr=False, compare=False)
    """What came by before a message of Sparkplug B; a drain and a replay have their own, which know the database."""

    @classmethod
    def from_settings(cls, settings: Settings, numbers_in_strings: Choices | None = None) -> Self:
        """`numbers_in_strings`: whose strings that spell numbers are numbers; without a choice they are texts.

        Raises SettingsError, naming the variable, for a pattern, pointer or codec that means nothing.
        """
        return cls(
            pattern=TopicPattern.compile(settings.topic_pattern),
            codecs=TopicCodecs.from_settings(settings),
            tenant_pointers=parse_pointers(settings.tenant_pointers, "IOT_TENANT_POINTERS"),
            project_pointers=parse_pointers(settings.project_pointers, "IOT_PROJECT_POINTERS"),
            device_pointers=parse_pointers(settings.device_pointers, "IOT_DEVICE_POINTERS"),
            time_pointers=parse_pointers(settings.time_pointers, "IOT_TIME_POINTERS"),
            zone=ZoneInfo(settings.default_timezone),
            past_us=min(settings.time_window_past_seconds * 1_000_000, MAX_WINDOW_US),
            future_us=min(settings.time_window_future_seconds * 1_000_000, MAX_WINDOW_US),
            numbers_in_strings=numbers_in_strings or {},
        )

    def reads_numbers_in_strings(self, tenant: str, project: str) -> bool:
        """Whether strings that spell numbers are numbers in a project."""
        return bool(narrowest(self.numbers_in_strings, tenant, project))

    def past_us_of(self, topic: str) -> int:
        """How long before receive time an event of this topic may be. Imports are history: what retention does not keep they refuse
        themselves."""
        return MAX_WINDOW_US if topic.startswith(IMPORT_PREFIX) else self.past_us

    def topic_names(self, topic: bytes | None) -> TopicNames | None:
        """What the topic names, or None if it does not fit the pattern or is not UTF-8. Also for quarantined messages."""
        try:
            text = (topic or b"").decode()
        except UnicodeDecodeError:
            return None
        rule = self.codecs.find(text)
        return self.pattern.match(text) if rule is None else rule.names(text, self.pattern)

    def needs_births(self, topic: str) -> bool:
        """Whether a message of the topic is read by what came before it."""
        rule = self.codecs.find(topic)
        return rule is not None and rule.needs_births

    def topic_codec(self, topic: str) -> TopicCodec | None:
        """How payloads of a topic are read; None for plain JSON."""
        rule = self.codecs.find(topic)
        return None if rule is None or rule.plain_json else rule
