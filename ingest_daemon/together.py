"""Which messages must keep their order across topics: those of one Sparkplug B edge node go to one Kafka partition."""

from typing import Final
from zlib import crc32

NAMESPACE: Final = b"spBv1.0/"
_GROUP_TYPE_NODE: Final = 3


def partition_of(topic: bytes, partitions: int) -> int | None:
    """The partition of a topic `[prefix/]spBv1.0/GROUP/TYPE/NODE[/DEVICE]`, the same for all types and devices of the edge node; None for
    other topics, whose partition follows from the whole topic."""
    prefix, found, rest = topic.partition(NAMESPACE)
    levels = rest.split(b"/", _GROUP_TYPE_NODE)
    if not found or (prefix and not prefix.endswith(b"/")) or len(levels) < _GROUP_TYPE_NODE:
        return None
    return crc32(b"/".join((prefix, levels[0], levels[2]))) % partitions
