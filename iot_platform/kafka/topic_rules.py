"""Which settings of our Kafka topics keep the promise: pure judgement of a topic as it is. docs/kafka-topics.md explains each rule."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from iot_platform.kafka.topic_state import TopicState
from iot_platform.settings import Settings

RECORD_OVERHEAD_BYTES: Final = 256 * 1024
"""Key, headers and framing of one record; the ingest daemon's OVERHEAD_BYTES."""
PART_BYTES: Final = 512 * 1024
"""A dead letter's part; the ingest daemon's FIRST_PART_BYTES."""
LARGEST_BATCH_BYTES: Final = 20 * 1024 * 1024
"""What topics of ours take at least: Kafka's default would make dead letters of messages of 1 MiB."""
DEAD_LETTER_BATCH_BYTES: Final = 1_048_588
RETENTION_MS: Final = 7 * 24 * 3600 * 1000
_HOUR_MS: Final = 3600 * 1000
_WRITE_ON_TWO: Final = 2

LOOKED_AT: Final = (
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "unclean.leader.election.enable",
    "min.insync.replicas",
    "flush.messages",
    "message.timestamp.type",
    "max.message.bytes",
)


@dataclass(frozen=True)
class Finding:
    """Something about a topic that endangers acknowledged messages (`refused`, or `accepted` by name), or is worth knowing."""

    topic: str
    setting: str
    value: str
    state: Literal["refused", "accepted", "warning"]
    reason: str
    risk: str = ""
    """The word that accepts it; empty where nothing can."""
    mend: tuple[str, str] | None = None
    """Setting and value that put it right."""

    @property
    def line(self) -> str:
        """One sentence, without what to do about it."""
        return f"topic {self.topic}: {self.setting}={self.value}: {self.reason}"


def message_config(settings: Settings) -> dict[str, str]:
    """What we create the message topic with."""
    kept = max(RETENTION_MS, int(settings.kafka_outage_budget_hours * _HOUR_MS))
    return {
        # With CreateTime, retention follows the sender's clock, and a clock a year back gets its messages deleted at once.
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(kept),
        "cleanup.policy": "delete",
        "max.message.bytes": str(max(LARGEST_BATCH_BYTES, needed_bytes(settings, dead_letters=False))),
        **durability(settings, settings.kafka_replication_factor),
    }


def dead_letter_config(settings: Settings) -> dict[str, str]:
    """What we create the dead-letter topic with: kept for ever, because Kafka is the only place that has these messages."""
    return {
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": "-1",
        "cleanup.policy": "delete",
        "max.message.bytes": str(DEAD_LETTER_BATCH_BYTES),
        **durability(settings, settings.kafka_replication_factor),
    }


def durability(settings: Settings, replicas: int) -> dict[str, str]:
    """What makes an acknowledged record outlive a power cut: two brokers have it, or the disk has it."""
    if replicas > _WRITE_ON_TWO:
        return {"min.insync.replicas": "2"}
    # With two replicas, min.insync.replicas=2 would keep the promise, too, and stop writing whenever one broker restarts.
    return {"min.insync.replicas": "1", **({"flush.messages": "1"} if settings.kafka_flush else {})}


def needed_bytes(settings: Settings, *, dead_letters: bool) -> int:
    """The largest batch that the ingest daemon may have to write."""
    return (PART_BYTES if dead_letters else settings.ingest_max_record_bytes) + RECORD_OVERHEAD_BYTES


def judge(state: TopicState, settings: Settings) -> list[Finding]:
    """Everything that is to be said about a topic; accepted risks are marked so."""
    accepted = {word for word in settings.kafka_accept_risks.split(",") if word}
    if not settings.kafka_flush:
        accepted.add("flush")
    found = [*_settings(state, settings), *_cluster(state, settings)]
    return [replace(item, state="accepted") if item.state == "refused" and item.risk in accepted else item for item in found]


def _settings(state: TopicState, settings: Settings) -> Iterator[Finding]:
    dead_letters = state.name == settings.kafka_dead_letter_topic
    if not state.config:
        yield Finding(state.name, "configuration", "?", "warning", "we may not read it (right DESCRIBE_CONFIGS): nothing was checked")
        return
    yield from _kept(state, settings, dead_letters=dead_letters)
    yield from _copies(state, settings)
    if _value(state, "message.timestamp.type") not in (None, "LogAppendTime"):
        reason = "Kafka deletes or refuses messages of a host with a wrong clock"
        yield _refuse(state, "message.timestamp.type", "timestamp", reason, mend="LogAppendTime")
    limit, needed = state.number("max.message.bytes"), needed_bytes(settings, dead_letters=dead_letters)
    if limit is not None and limit < needed:
        reason = f"larger messages become dead letters; {needed} are needed (IOT_INGEST_MAX_RECORD_BYTES, and {RECORD_OVERHEAD_BYTES})"
        if dead_letters:
            reason = f"dead letters are written in parts that need {needed}"
        enough = DEAD_LETTER_BATCH_BYTES if dead_letters else max(LARGEST_BATCH_BYTES, needed)
        yield _refuse(state, "max.message.bytes", "size", reason, mend=str(enough))


def _kept(state: TopicState, settings: Settings, *, dead_letters: bool) -> Iterator[Finding]:
    """Whether Kafka keeps what the database has not taken yet."""
    policy = _value(state, "cleanup.policy") or ""
    if "compact" in policy:
        yield _refuse(state, "cleanup.policy", "cleanup", "compaction deletes all but the newest message of each MQTT topic", mend="delete")
    if "delete" not in policy:
        return
    budget = settings.kafka_outage_budget_hours
    kept, size = state.number("retention.ms"), state.number("retention.bytes")
    if kept is not None and 0 <= kept < budget * _HOUR_MS:
        reason = (
            f"messages are deleted after {_span(kept)}, drained or not, and the database may be away for "
            f"{_span(budget * _HOUR_MS)} (IOT_KAFKA_OUTAGE_BUDGET_HOURS)"
        )
        if dead_letters:
            reason = f"the only copy of a message that Kafka refused is deleted after {_span(kept)}"
        mend = "-1" if dead_letters else str(int(budget * _HOUR_MS))
        yield _refuse(state, "retention.ms", "retention", reason, mend=mend)
    elif kept is not None and kept >= 0 and dead_letters:
        reason = f"the only copy of a message that Kafka refused is deleted after {_span(kept)}; -1 keeps it"
        yield Finding(state.name, "retention.ms", str(kept), "warning", reason)
    if size is not None and size >= 0:
        reason = f"the oldest messages of a partition that holds {size} bytes are deleted, drained or not"
        yield _refuse(state, "retention.bytes", "retention", reason, mend="-1")


def _copies(state: TopicState, settings: Settings) -> Iterator[Finding]:
    """Whether an acknowledged record is on two brokers or on a disk, and stays the leader's."""
    if _value(state, "unclean.leader.election.enable") == "true":
        reason = "a broker without the newest messages may become leader, and deletes them from the others"
        yield _refuse(state, "unclean.leader.election.enable", "unclean_election", reason, mend="false")
    least, flush = state.number("min.insync.replicas"), state.number("flush.messages")
    if least is None:
        return
    if least > state.replicas:
        mend = durability(settings, state.replicas)["min.insync.replicas"]
        reason = f"with {_replicas(state)} nothing can ever be written"
        yield _refuse(state, "min.insync.replicas", "insync", reason, mend=mend)
        return
    if least == state.replicas > 1:
        reason = "while one of its brokers is away nothing can be written, and the spool fills"
        yield Finding(state.name, "min.insync.replicas", str(least), "warning", reason)
    if least >= _WRITE_ON_TWO or flush is None or flush == 1:
        return
    if state.replicas > _WRITE_ON_TWO:
        reason = f"with {_replicas(state)}, one broker alone confirms when the others are away; its power cut loses what it confirmed"
        yield _refuse(state, "min.insync.replicas", "insync", reason, mend="2")
    else:
        reason = f"with {_replicas(state)}, Kafka confirms before its disk has the message: a power cut loses it"
        yield _refuse(state, "flush.messages", "flush", reason, mend="1")


def _cluster(state: TopicState, settings: Settings) -> Iterator[Finding]:
    """Brokers and replicas as they are at the moment; nothing that settings could mend."""
    if state.replicas == 1 < state.brokers:
        reason = f"{state.brokers} brokers are there, but the messages are on one disk (kafka-reassign-partitions.sh adds replicas)"
        yield Finding(state.name, "replicas", "1", "warning", reason)
    elif state.replicas < settings.kafka_replication_factor:
        reason = f"IOT_KAFKA_REPLICATION_FACTOR={settings.kafka_replication_factor} counts for topics that we create only"
        yield Finding(state.name, "replicas", str(state.replicas), "warning", reason)
    if state.leaderless:
        reason = f"of {state.partitions} partitions have no leader: nothing can be written to them or read from them"
        yield Finding(state.name, "leaderless", str(state.leaderless), "warning", reason)
    if state.under_replicated:
        least = state.number("min.insync.replicas") or 1
        halt = "; fewer than min.insync.replicas, so nothing can be written" if state.in_sync < least else ""
        reason = f"of {state.partitions} partitions have fewer copies than they should{halt}"
        yield Finding(state.name, "under-replicated", str(state.under_replicated), "warning", reason)


def _refuse(state: TopicState, setting: str, risk: str, reason: str, *, mend: str) -> Finding:
    return Finding(state.name, setting, state.config[setting].value, "refused", reason, risk, (setting, mend))


def _replicas(state: TopicState) -> str:
    return f"{state.replicas} replica{'s' if state.replicas > 1 else ''}"


def _span(milliseconds: float) -> str:
    hours = milliseconds / _HOUR_MS
    return f"{hours:.4g} h" if hours >= 1 else f"{milliseconds / 1000:.4g} s"


def _value(state: TopicState, setting: str) -> str | None:
    return state.config[setting].value if setting in state.config else None
