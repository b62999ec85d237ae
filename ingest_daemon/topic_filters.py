"""MQTT topic filters as a user names them: one, a JSON list, or a file with one a line; which are valid, and which overlap."""

import json
from itertools import combinations

MOST_BYTES = 65_000


def parse(text: str) -> tuple[str, ...]:
    """The filters of IOT_MQTT_TOPIC_FILTER: one, or a JSON list (a comma is legal in a topic). Raises ValueError with the rule."""
    if not text.startswith('["'):
        return _checked([text])
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError('must be a topic filter, or a JSON list of them such as ["plant/+/line/#", "lab/#"]') from error
    if not all(isinstance(item, str) for item in found):
        raise ValueError("must be a JSON list of texts")
    return _checked(found)


def parse_lines(text: str) -> tuple[str, ...]:
    """The filters of a file, one a line; empty lines don't count. Raises ValueError with the rule."""
    return _checked([line.rstrip("\r") for line in text.split("\n") if line.strip()])


def overlapping(filters: tuple[str, ...]) -> list[tuple[str, str]]:
    """Pairs of filters that some topic matches both of: some brokers send such a message once for each."""
    return [(one, other) for one, other in combinations(filters, 2) if _meet(one.split("/"), other.split("/"))]


def _meet(one: list[str], other: list[str]) -> bool:
    for a, b in zip(one, other, strict=False):
        if "#" in (a, b):
            return True
        if a != b and "+" not in (a, b):
            return False
    # a/# matches a as well.
    longer = max(one, other, key=len)
    return len(one) == len(other) or (abs(len(one) - len(other)) == 1 and longer[-1] == "#")


def _checked(filters: list[str]) -> tuple[str, ...]:
    if not filters:
        raise ValueError("must name at least one topic filter")
    for item in filters:
        levels = item.split("/")
        if not item or "\0" in item or len(item.encode()) > MOST_BYTES:
            raise ValueError(f"must be an MQTT topic filter such as plant/+/line/#{_shown(item)}")
        if levels[0] == "$share":
            raise ValueError("must not begin with $share/; name the group in IOT_INGEST_SHARED_GROUP")
        if any(("#" in level or "+" in level) and len(level) > 1 for level in levels) or "#" in levels[:-1]:
            raise ValueError(f"+ and # must stand alone in their level, and # must be the last level{_shown(item)}")
    return tuple(dict.fromkeys(filters))


def _shown(item: str) -> str:
    return f": {item[:200]!a}"
