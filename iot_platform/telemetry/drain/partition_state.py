"""How each Kafka partition stands: how many records wait, and what keeps the drain from simply going on at next_offset."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.kafka.watermarks import WORK_SECONDS, TopicIdentity, TopicOffsets, Watermarks
from iot_platform.settings import Settings
from iot_platform.telemetry.drain import offsets
from iot_platform.telemetry.drain.offsets import OffsetRow
from iot_platform.telemetry.errors import accept_command


class Problem(StrEnum):
    """What is wrong with a partition. LOG_CUT mends itself with the next drain run; the others need a person."""

    TOPIC_RECREATED = "topic_recreated"
    OTHER_CLUSTER = "other_cluster"
    RECORDS_DELETED = "records_deleted"
    PARTITION_GONE = "partition_gone"
    LOG_CUT = "log_cut"


_WORDS: Final = {
    Problem.TOPIC_RECREATED: "topic is another one",
    Problem.OTHER_CLUSTER: "cluster is another one",
    Problem.PARTITION_GONE: "partition is gone",
    Problem.LOG_CUT: "log was cut",
}


@dataclass(frozen=True)
class PartitionState:
    """One partition. `lag`: records in Kafka that are not drained; below 0: Kafka has fewer than were drained. `text`: the problem
    as a sentence for people, with the command that ends it. `unverified`: the leader epoch has changed since the log was last compared."""

    partition: int
    next_offset: int | None
    ends: Watermarks | None
    lag: int
    problem: Problem | None = None
    text: str = ""
    unverified: bool = False

    @property
    def needs_person(self) -> bool:
        """Whether nothing is drained until somebody decides."""
        return self.problem is not None and self.problem is not Problem.LOG_CUT

    @property
    def word(self) -> str:
        """The problem in a few words; "" where there is none."""
        if self.problem is Problem.RECORDS_DELETED and self.ends is not None and self.next_offset is not None:
            return f"{self.ends.low - self.next_offset} messages gone"
        return "" if self.problem is None else _WORDS[self.problem]

    @property
    def wants_run(self) -> int:
        """Records that wait, as far as that is known: at least 1 where a drain run must look."""
        return max(self.lag, 1 if self.problem is not None or self.unverified else 0)


@dataclass(frozen=True)
class DrainState:
    """How the drain stands: the topic, the rows of kafka_offset, where the logs begin and end, and the state of each partition."""

    identity: TopicIdentity
    rows: dict[int, OffsetRow]
    watermarks: dict[int, Watermarks]
    partitions: dict[int, PartitionState]

    @property
    def lag(self) -> int:
        """Records in Kafka that are not drained, over all partitions; one with fewer records than were drained counts below 0."""
        return sum(state.lag for state in self.partitions.values())

    @property
    def wants_run(self) -> int:
        """Records that wait, or at least 1 where a drain run must look."""
        return sum(state.wants_run for state in self.partitions.values())

    @property
    def wrong(self) -> list[PartitionState]:
        """Partitions that cannot simply go on."""
        return [state for state in self.partitions.values() if state.problem]

    @property
    def problems(self) -> list[str]:
        """Each of them as a sentence for people."""
        return [f"partition {state.partition}: {state.text}" for state in self.wrong]


def look(settings: Settings, connection: Connection, topic: TopicOffsets | None = None) -> DrainState:
    """Ask the database and then Kafka, in this order: a drain that goes on meanwhile would seem to be ahead of the log. Commits. Blocks at
    most about 40 s; `topic` is a connection to Kafka that is there already.

    Raises:
        KafkaUnavailableError, TopicMissingError, psycopg2.Error.
    """
    rows = offsets.read(connection, settings.kafka_topic)
    if topic is not None:
        identity, watermarks = topic.look()
    else:
        with TopicOffsets(settings, WORK_SECONDS) as own:
            identity, watermarks = own.look()
    return DrainState(identity, rows, watermarks, judge(identity, rows, watermarks))


def judge(identity: TopicIdentity, rows: Mapping[int, OffsetRow], watermarks: Mapping[int, Watermarks]) -> dict[int, PartitionState]:
    """The state of every partition that Kafka names, or that was drained and is gone, by number. The rows must have been read before
    Kafka was asked: a drain that goes on meanwhile would seem to be ahead of the log."""
    gone = [partition for partition in rows if partition not in identity.partitions]
    return {
        partition: _judge(identity, partition, rows.get(partition), watermarks.get(partition)) for partition in sorted({*watermarks, *gone})
    }


def _judge(identity: TopicIdentity, partition: int, row: OffsetRow | None, ends: Watermarks | None) -> PartitionState:
    if ends is None:
        text = f"partition {partition} of topic '{identity.topic}' is gone: the topic has {len(identity.partitions)}. Was it made anew?"
        return PartitionState(partition, row.next_offset if row else None, None, 0, Problem.PARTITION_GONE, text)
    if row is None:
        return PartitionState(partition, None, ends, ends.high - ends.low)
    lag = ends.high - row.next_offset
    accept = accept_command([partition])
    if row.cluster_id != identity.cluster_id:
        text = (
            f"another Kafka cluster answers at this address ({identity.cluster_id}, drained so far: {row.cluster_id}): correct"
            f" IOT_KAFKA_BOOTSTRAP_SERVERS, or, if that is intended: {accept}"
        )
        return PartitionState(partition, row.next_offset, ends, ends.high - ends.low, Problem.OTHER_CLUSTER, text)
    if row.topic_id != identity.topic_id:
        text = (
            f"topic '{identity.topic}' was deleted and created anew; nothing of it is drained until somebody says that this is intended:"
            f" {accept}"
        )
        return PartitionState(partition, row.next_offset, ends, ends.high - ends.low, Problem.TOPIC_RECREATED, text)
    if row.next_offset < ends.low:
        text = (
            f"Kafka deleted {ends.low - row.next_offset} messages before they were drained (offsets {row.next_offset} to {ends.low - 1});"
            f" raise the topic's retention.ms, and to go on without them: {accept}"
        )
        return PartitionState(partition, row.next_offset, ends, lag, Problem.RECORDS_DELETED, text)
    if row.next_offset > ends.high:
        text = (
            f"Kafka's log ends at {ends.high}, before what was drained ({row.next_offset}): it lost its end, or an older disk was put back;"
            " the next drain run finds out where it was cut, and goes on there"
        )
        return PartitionState(partition, row.next_offset, ends, lag, Problem.LOG_CUT, text)
    unverified = ends.leader_epoch is not None and ends.leader_epoch != row.verified_epoch
    return PartitionState(partition, row.next_offset, ends, lag, unverified=unverified)
