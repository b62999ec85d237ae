"""Which MQTT version the next connection speaks: as IOT_MQTT_PROTOCOL says, or as `auto` has found out about the broker.

A wrong change of version could cost a session: brokers are free to keep one per version. So only the broker's own "unsupported protocol
version" changes a version that has once worked; a broker that is down, restarts or is overloaded says no such thing.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

CONNACK = 0x20


class Protocol(StrEnum):
    """An MQTT version, as in IOT_MQTT_PROTOCOL."""

    V5 = "5"
    V311 = "3.1.1"

    @property
    def other(self) -> "Protocol":
        """The version that is tried where this one is not spoken."""
        return Protocol.V311 if self is Protocol.V5 else Protocol.V5


class Answer(Enum):
    """What came of a CONNECT, as far as it tells of the version."""

    CONNACK = auto()
    """The version is spoken; the broker may have refused us for other reasons."""
    UNSUPPORTED = auto()
    """CONNACK with "unsupported protocol version"."""
    NONE = auto()
    """The broker closed the connection or said nothing: so RabbitMQ 3.10 and amqtt 0.12 answer MQTT 5, and any broker in trouble."""
    UNREACHABLE = auto()
    """There was no connection, or the answer was no MQTT."""


def answer_of(greeting: bytes, protocol: Protocol) -> Answer:
    """What the first bytes that came after a CONNECT of this version mean."""
    if not greeting:
        return Answer.NONE
    if greeting[0] != CONNACK:
        return Answer.UNREACHABLE
    flags = 2
    while flags <= 5 and greeting[flags - 1 : flags] >= b"\x80":  # further bytes of the length
        flags += 1
    code = greeting[flags + 1 : flags + 2]
    if not code:
        return Answer.NONE
    # Any CONNACK of MQTT 5 has properties, and so more than two bytes.
    if code in (b"\x01", b"\x84") or (protocol is Protocol.V5 and greeting[1] == 2):
        return Answer.UNSUPPORTED
    return Answer.CONNACK


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection to make. A probe has a client id and a session of its own, and ends with the answer."""

    protocol: Protocol
    probe: bool = False


_PROBES = (Protocol.V311, Protocol.V5, Protocol.V311, Protocol.V5)
"""A broker that answers each probe by 3.1.1 and none by 5, in turns, was there all the time."""


class ProtocolChoice:
    """`attempt` is what to try next; `learn` what came of it.

    `auto` begins with the version that worked last, else with 5. It changes to the other one when the broker says so, and from 5 to
    3.1.1 also when 5 has never worked here, is not answered, and `_PROBES` find a broker that speaks 3.1.1 only.
    """

    def __init__(self, wanted: str, worked: Protocol | None) -> None:
        """`wanted`: IOT_MQTT_PROTOCOL. `worked`: the version in which this broker accepted us before, if any."""
        self._fixed = wanted != "auto"
        self._worked = None if self._fixed else worked
        self._protocol = Protocol(wanted) if self._fixed else worked or Protocol.V5
        self._probed = 0
        self._probing = False

    @property
    def attempt(self) -> Attempt:
        """The next connection to make."""
        return Attempt(_PROBES[self._probed], probe=True) if self._probing else Attempt(self._protocol)

    def learn(self, answer: Answer) -> None:
        """What came of `attempt`."""
        if self._fixed:
            return
        if self._probing:
            self._learn_of_probe(answer)
        elif answer is Answer.CONNACK:
            self._worked = self._protocol
        elif answer is Answer.UNSUPPORTED:
            self._worked, self._protocol = None, self._protocol.other
        elif self._worked is None:
            self._probing, self._probed = answer is Answer.NONE and self._protocol is Protocol.V5, 0
            self._protocol = Protocol.V5

    def _learn_of_probe(self, answer: Answer) -> None:
        protocol = _PROBES[self._probed]
        spoken = answer is Answer.CONNACK
        if protocol is Protocol.V5 and spoken:
            self._worked = protocol  # so its silence has to do with our session
        if spoken is not (protocol is Protocol.V311) or answer is Answer.UNREACHABLE:
            self._probing = False
            return
        self._probed += 1
        if self._probed == len(_PROBES):
            self._probing, self._protocol = False, Protocol.V311
