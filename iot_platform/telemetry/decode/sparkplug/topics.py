"""Topics of Sparkplug B: `[prefix/]spBv1.0/GROUP/TYPE/EDGE NODE[/DEVICE]`."""

from enum import StrEnum
from typing import Final, NamedTuple

NAMESPACE: Final = "spBv1.0"


class MessageType(StrEnum):
    """What a message is. Commands and the host's STATE carry no readings."""

    NBIRTH = "NBIRTH"
    NDATA = "NDATA"
    NDEATH = "NDEATH"
    DBIRTH = "DBIRTH"
    DDATA = "DDATA"
    DDEATH = "DDEATH"
    NCMD = "NCMD"
    DCMD = "DCMD"

    @property
    def is_birth(self) -> bool:
        """Whether it defines metrics."""
        return self in (MessageType.NBIRTH, MessageType.DBIRTH)

    @property
    def is_command(self) -> bool:
        """Whether it is written to an edge node, not by one."""
        return self in (MessageType.NCMD, MessageType.DCMD)

    @property
    def is_of_device(self) -> bool:
        """Whether its topic has a device."""
        return self.value.startswith("D")


class SparkplugTopic(NamedTuple):
    """A topic, taken apart. `node` is the edge node's own topic without the type: what its births, and their sequence, belong to."""

    node: str
    type: MessageType
    device: str


def parse_topic(topic: str) -> SparkplugTopic | None:
    """None if it is no topic of an edge node or device."""
    levels = topic.split("/")
    if NAMESPACE not in levels:
        return None
    at = levels.index(NAMESPACE)
    rest = levels[at + 1 :]
    if len(rest) not in (3, 4) or not all(rest) or rest[1] not in MessageType.__members__:
        return None
    kind = MessageType(rest[1])
    if kind.is_of_device != (len(rest) == 4):
        return None
    return SparkplugTopic("/".join([*levels[: at + 1], rest[0], rest[2]]), kind, rest[3] if len(rest) == 4 else "")
