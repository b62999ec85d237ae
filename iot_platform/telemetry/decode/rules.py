"""The configurable part of the decode contract: where topic and payload name tenant, project, device and time."""

import re
from dataclasses import dataclass
from datetime import tzinfo
from typing import Self
from zoneinfo import ZoneInfo

from iot_platform.settings import Settings, SettingsError

MAX_ID_BYTES = 128
MAX_NAME_BYTES = 256
MAX_LEVELS = 32
MAX_MEASUREMENTS = 1000
MAX_WINDOW_US = 2**60  # 36,000 years; sums with times stay within 64 bits

Pointer = tuple[str, ...]
_VARIABLES = ("tenant", "project", "device", "device...")


@dataclass(frozen=True, slots=True)
class TopicNames:
    """What a topic names; None where the pattern leaves it to the payload."""

    tenant: str | None
    project: str | None
    device: str | None


@dataclass(frozen=True, slots=True)
class TopicPattern:
    """A compiled IOT_TOPIC_PATTERN."""

    text: str
    levels: tuple[str, ...]
    open_ended: bool  # the last level is {device...}

    @classmethod
    def compile(cls, text: str) -> Self:
        """Raises SettingsError for a pattern that could never name things unambiguously."""
        levels = tuple(text.split("/"))
        names = [level[1:-1] for level in levels if level.startswith("{") and level.endswith("}")]
        kinds = ["device" if name == "device..." else name for name in names]
        if unknown := [name for name in names if name not in _VARIABLES]:
            raise SettingsError(f"IOT_TOPIC_PATTERN: {{{unknown[0]}}} is none of {{tenant}}, {{project}}, {{device}}, {{device...}}")
        if len(kinds) != len(set(kinds)):
            raise SettingsError("IOT_TOPIC_PATTERN: each of tenant, project and device may be named once")
        if "{device...}" in levels[:-1]:
            raise SettingsError("IOT_TOPIC_PATTERN: {device...} takes all remaining levels, so it must be the last")
        if bad := [level for level in levels if re.search(r"[{}+#]", level) and level != "+" and level[1:-1] not in _VARIABLES]:
            raise SettingsError(f"IOT_TOPIC_PATTERN: level {bad[0]!r} must be a literal, + or one {{variable}} as a whole")
        open_ended = levels[-1] == "{device...}"
        return cls(text, levels[:-1] if open_ended else levels, open_ended)

    def match(self, topic: str) -> TopicNames | None:
        """What the topic names, or None if it does not fit. An empty device level names the device \"\"."""
        parts = topic.split("/")
        if len(parts) < len(self.levels) or (len(parts) > len(self.levels) and not self.open_ended):
            return None
        found: dict[str, str] = {}
        for level, part in zip(self.levels, parts, strict=False):
            if level.startswith("{"):
                found[level[1:-1]] = part
            elif level not in ("+", part):
                return None
        if len(parts) > len(self.levels):
            found["device"] = "/".join(parts[len(self.levels) :])
        for name in ("tenant", "project"):
            if name in found and not is_id(found[name]):
                return None
        return TopicNames(found.get("tenant"), found.get("project"), found.get("device"))


def is_id(text: str) -> bool:
    """Whether a tenant or project has 1..128 bytes."""
    return 0 < len(text.encode("utf-8", "surrogatepass")) <= MAX_ID_BYTES


def parse_pointers(texts: tuple[str, ...], variable: str) -> tuple[Pointer, ...]:
    """RFC 6901 pointers to object members as tuples of keys."""
    pointers = []
    for text in texts:
        if not text.startswith("/") or re.search(r"~(?![01])", text):
            raise SettingsError(f'{variable}: {text!r} is no JSON pointer; write for example ["/ts", "/meta/time"]')
        pointers.append(tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")))
    return tuple(pointers)


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """Everything the decoder depends on but the message itself."""

    pattern: TopicPattern
    tenant_pointers: tuple[Pointer, ...]
    project_pointers: tuple[Pointer, ...]
    device_pointers: tuple[Pointer, ...]
    time_pointers: tuple[Pointer, ...]
    zone: tzinfo
    past_us: int
    future_us: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Raises SettingsError, naming the variable, for a pattern or pointer that means nothing."""
        return cls(
            pattern=TopicPattern.compile(settings.topic_pattern),
            tenant_pointers=parse_pointers(settings.tenant_pointers, "IOT_TENANT_POINTERS"),
            project_pointers=parse_pointers(settings.project_pointers, "IOT_PROJECT_POINTERS"),
            device_pointers=parse_pointers(settings.device_pointers, "IOT_DEVICE_POINTERS"),
            time_pointers=parse_pointers(settings.time_pointers, "IOT_TIME_POINTERS"),
            zone=ZoneInfo(settings.default_timezone),
            past_us=min(settings.time_window_past_seconds * 1_000_000, MAX_WINDOW_US),
            future_us=min(settings.time_window_future_seconds * 1_000_000, MAX_WINDOW_US),
        )

    def topic_names(self, topic: bytes | None) -> TopicNames | None:
        """What the topic names, or None if it does not fit the pattern or is not UTF-8. Also for quarantined messages."""
        try:
            return self.pattern.match((topic or b"").decode())
        except UnicodeDecodeError:
            return None
