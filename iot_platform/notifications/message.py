"""What Alertmanager posts to a web hook (its version 4), as a title and paragraphs in English and Chinese."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from iot_platform.visible import visible

_SHOWN: Final = 20
"""Alerts of a group that are told one by one; the rest is counted."""
_MEANINGFUL: Final = str.maketrans({"<": "＜", ">": "＞", "[": "［", "]": "］", "*": "＊", "`": "｀", "@": "＠", "\n": " "})
"""What would be a link, a mention or markup in a robot's Markdown: labels hold names that devices chose."""


class MalformedError(Exception):
    """The body is no notification of Alertmanager. Never retry."""


@dataclass(frozen=True)
class Message:
    """One notification. `critical`: one of the firing alerts is. `paragraphs`: one an alert."""

    title: str
    firing: bool
    critical: bool
    paragraphs: tuple[str, ...]

    def text(self, most_bytes: int) -> str:
        """Paragraphs with an empty line between, cut to so many bytes of UTF-8; what was left out is counted."""
        kept: list[str] = []
        used = 0
        for place, paragraph in enumerate(self.paragraphs):
            rest = f"… +{len(self.paragraphs) - place}"
            used += len(paragraph.encode()) + 2
            if used + len(rest.encode()) > most_bytes:
                return "\n\n".join([*kept, rest])
            kept.append(paragraph)
        return "\n\n".join(kept)


def plain(text: str) -> str:
    """Without what steers a chat."""
    return visible(text).translate(_MEANINGFUL)[:500]


def read(document: Any) -> Message:
    """From the JSON of the web hook.

    Raises:
        MalformedError: it has not the fields of a notification.
    """
    try:
        alerts = document["alerts"]
        common = document["commonLabels"]
        name = plain(common.get("alertname") or common.get("area") or "alerts")
        firing = [alert for alert in alerts if alert["status"] == "firing"]
        word = f"FIRING {len(firing)} 告警" if firing else f"RESOLVED {len(alerts)} 恢复"
        more = int(document.get("truncatedAlerts") or 0) + max(0, len(alerts) - _SHOWN)
        paragraphs = [_paragraph(alert) for alert in alerts[:_SHOWN]] + ([f"… +{more}"] if more else [])
        critical = any(alert["labels"].get("severity") == "critical" for alert in firing)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise MalformedError(f"no notification of Alertmanager: {type(error).__name__} {error}") from error
    return Message(f"[{word}] {name}", bool(firing), critical, tuple(paragraphs))


def _paragraph(alert: Mapping[str, Any]) -> str:
    labels, annotations = alert["labels"], alert["annotations"]
    state = plain(labels.get("severity", "")) if alert["status"] == "firing" else "resolved 恢复"
    when = alert["startsAt"] if alert["status"] == "firing" else alert["endsAt"]
    since = re.sub(r"T(\d\d:\d\d:\d\d).*", r" \1 UTC", when) if when.endswith("Z") else when
    lines = [f"**{state}** {plain(annotations.get('summary') or labels.get('alertname', ''))}"]
    lines += [plain(annotations[name]) for name in ("summary_zh", "runbook") if annotations.get(name)]
    return "\n".join([*lines, plain(since)])
