"""Probes: messages by which `iot doctor` finds out whether the daemon's own session still brings what the broker is given.

A probe is published to the topic of `topic_of`, with a payload of `payload`. The daemon acknowledges it in its turn and forwards nothing:
it has no sequence, and no counter of messages knows it. Any other message, to the same topic or not, is data.
"""

import json
from collections import deque
from collections.abc import Iterable

LEVEL = "iot-probe"
_MARK = b"iot-probe "
PAYLOAD_BYTES = len(_MARK) + 32
_KEPT = 64


def topic_of(topic_filter: str) -> str:
    """A topic that the filter matches: each wildcard is replaced by the level `iot-probe`."""
    return "/".join(LEVEL if level in ("+", "#") else level for level in topic_filter.split("/"))


def payload(identifier: str) -> bytes:
    """The payload of a probe; `identifier` is 32 hexadecimal digits of the sender's own."""
    return _MARK + identifier.encode("ascii")


class Probes:
    """Recognises probes and remembers the last ones, for any thread to ask."""

    def __init__(self) -> None:
        self._topics: frozenset[bytes] = frozenset()
        self._shown: tuple[str, ...] = ()
        self._last: deque[str] = deque(maxlen=_KEPT)

    def follow(self, topic_filters: Iterable[str]) -> None:
        """These are the filters from now on. Probes by former ones stay probes: one may be on its way."""
        self._shown = tuple(dict.fromkeys(map(topic_of, topic_filters)))
        self._topics |= {topic.encode() for topic in self._shown}

    def take(self, topic: bytes, content: bytes) -> bool:
        """Whether this message is a probe; it is remembered then."""
        if topic not in self._topics or not content.startswith(_MARK) or len(content) != PAYLOAD_BYTES:
            return False
        self._last.append(content[len(_MARK) :].decode("ascii", "replace"))
        return True

    def page(self) -> bytes:
        """The body of /probe: where a probe may be published, and those that arrived last."""
        return json.dumps({"topics": self._shown, "received": list(self._last)}).encode() + b"\n"
