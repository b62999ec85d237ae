"""What a topic names: patterns such as IOT_TOPIC_PATTERN, level by level."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from iot_platform.settings import SettingsError

MAX_ID_BYTES = 128
TOPIC_VARIABLES: Final = ("tenant", "project", "device", "device...")


@dataclass(frozen=True, slots=True)
class TopicNames:
    """What a topic names; None where the pattern leaves it to the payload. Only patterns of IOT_TOPIC_CODECS can name a metric."""

    tenant: str | None
    project: str | None
    device: str | None
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class TopicPattern:
    """A compiled IOT_TOPIC_PATTERN, or pattern of IOT_TOPIC_CODECS."""

    text: str
    levels: tuple[str, ...]
    open_ended: bool  # the last level is {device...}

    @classmethod
    def compile(cls, text: str, setting: str = "IOT_TOPIC_PATTERN", variables: Sequence[str] = TOPIC_VARIABLES) -> Self:
        """Raises SettingsError, naming the setting, for a pattern that could never name things unambiguously."""
        levels = tuple(text.split("/"))
        names = [level[1:-1] for level in levels if level.startswith("{") and level.endswith("}")]
        kinds = ["device" if name == "device..." else name for name in names]
        if unknown := [name for name in names if name not in variables]:
            raise SettingsError(f"{setting}: {{{unknown[0]}}} is none of {', '.join(f'{{{name}}}' for name in variables)}")
        if len(kinds) != len(set(kinds)):
            raise SettingsError(f"{setting}: each of {', '.join(name for name in variables if name[-1] != '.')} may be named once")
        if "{device...}" in levels[:-1]:
            raise SettingsError(f"{setting}: {{device...}} takes all remaining levels, so it must be the last")
        if bad := [level for level in levels if re.search(r"[{}+#]", level) and level != "+" and level[1:-1] not in variables]:
            raise SettingsError(f"{setting}: level {bad[0]!r} must be a literal, + or one {{variable}} as a whole")
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
        return TopicNames(found.get("tenant"), found.get("project"), found.get("device"), found.get("metric"))


def is_id(text: str) -> bool:
    """Whether a tenant or project has 1..128 bytes."""
    return 0 < len(text.encode("utf-8", "surrogatepass")) <= MAX_ID_BYTES
