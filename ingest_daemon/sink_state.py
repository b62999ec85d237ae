"""Where the sink sends messages now, and which state may follow which."""

from enum import Enum, auto


class SinkState(Enum):
    """In every state but DIRECT new messages go into the spool."""

    DIRECT = auto()
    """Messages go to librdkafka as they come; nothing in the spool has still to be handed to it."""
    PROBING = auto()
    """What librdkafka has, if anything, is a probe: once all of it has been reported, and nothing failed, Kafka is well."""
    UNPROVEN = auto()
    """What librdkafka has proves nothing, if it has anything: once all of it has been reported, a probe goes out."""
    FORWARDING = auto()
    """Kafka is well: the spool flows into it, oldest entries first, then what waits in memory."""
    FAILED = auto()
    """Nothing goes to librdkafka until all that it has has been reported, and it is time to try again."""
    CLOSED = auto()
    """librdkafka gives up what it has, and its reports change nothing any more."""


FOLLOWING = {
    SinkState.DIRECT: frozenset(
        {
            SinkState.PROBING,  # no confirmation in time, or librdkafka's queue or the memory for refused messages is full
            SinkState.UNPROVEN,  # new certificates, or the daemon ends
            SinkState.FAILED,
            SinkState.CLOSED,
        }
    ),
    SinkState.PROBING: frozenset(
        {
            SinkState.FORWARDING,  # all reported
            SinkState.UNPROVEN,  # new certificates: the probe is about the old ones
            SinkState.FAILED,
            SinkState.CLOSED,
        }
    ),
    SinkState.UNPROVEN: frozenset(
        {
            SinkState.PROBING,  # the probe is out
            SinkState.DIRECT,  # there is nothing to probe with
            SinkState.FAILED,
            SinkState.CLOSED,
        }
    ),
    SinkState.FORWARDING: frozenset(
        {
            SinkState.DIRECT,  # the last message is out
            SinkState.FAILED,
            SinkState.CLOSED,
        }
    ),
    SinkState.FAILED: frozenset(
        {
            SinkState.UNPROVEN,  # time to try again
            SinkState.FAILED,  # one more report, or no new producer
            SinkState.CLOSED,
        }
    ),
    SinkState.CLOSED: frozenset[SinkState](),
}
"""The states that may follow each state, and when."""
