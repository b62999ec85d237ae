"""The offset ledger against Kafka: where each partition continues, whether that is still possible, and accepting that it is not."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.kafka.causes import ConnectionCauses
from iot_platform.kafka.rights import reading
from iot_platform.settings import Settings
from iot_platform.telemetry.errors import (
    DataGoneError,
    DrainedElsewhereError,
    TopicMissingError,
    TopicRecreatedError,
    TransientError,
    accept_command,
)

KAFKA_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class TopicIdentity:
    """What distinguishes a topic from a later one of the same name."""

    topic: str
    cluster_id: str
    topic_id: str
    partitions: tuple[int, ...]


@dataclass(frozen=True)
class Watermarks:
    """The log of one partition holds offsets [low, high)."""

    low: int
    high: int


@dataclass(frozen=True)
class OffsetRow:
    """A row of kafka_offset."""

    partition: int
    next_offset: int
    cluster_id: str
    topic_id: str
    first_offset: int


def describe(settings: Settings) -> TopicIdentity:
    """Ask Kafka for the topic. Blocks at most about 20 s.

    Raises:
        TransientError, TopicMissingError.
    """
    causes, topic = ConnectionCauses(settings), settings.kafka_topic
    admin = AdminClient({**causes.config, "log_level": 0})
    try:
        cluster = admin.describe_cluster(request_timeout=KAFKA_TIMEOUT_SECONDS).result()
        found = admin.describe_topics(TopicCollection([topic]), request_timeout=KAFKA_TIMEOUT_SECONDS)[topic].result()
    except KafkaException as error:
        if error.args[0].name() == "UNKNOWN_TOPIC_OR_PART":
            raise TopicMissingError(f"Kafka has no topic '{topic}': create it (`iot up` does), or correct IOT_KAFKA_TOPIC") from error
        raise TransientError(causes.explain(error, admin.poll, reading(topic))) from error
    return TopicIdentity(topic, cluster.cluster_id, str(found.topic_id), tuple(sorted(item.id for item in found.partitions)))


def watermarks(consumer: Consumer, identity: TopicIdentity, partitions: Iterable[int]) -> dict[int, Watermarks]:
    """What the log of each partition holds now.

    Raises:
        TopicMissingError, TransientError.
    """
    found, topic = {}, identity.topic
    partitions = tuple(partitions)
    if absent := sorted(set(partitions) - set(identity.partitions)):
        raise TopicMissingError(f"topic '{topic}' has no partition {absent[0]}: it has {len(identity.partitions)}")
    for partition in partitions:
        try:
            answer = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=KAFKA_TIMEOUT_SECONDS)
        except KafkaException as error:
            raise TransientError(f"Kafka does not say what partition {partition} of '{topic}' holds: {error.args[0].str()}") from error
        if answer is None:
            raise TransientError(f"Kafka does not say what partition {partition} of '{topic}' holds: timed out")
        found[partition] = Watermarks(*answer)
    return found


def read(connection: Connection, topic: str) -> dict[int, OffsetRow]:
    """The rows of kafka_offset for a topic."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT kafka_partition, next_offset, cluster_id, topic_id, first_offset FROM kafka_offset WHERE topic = %s ORDER BY 1",
            (topic,),
        )
        rows = [OffsetRow(*row) for row in cursor.fetchall()]
    connection.commit()
    return {row.partition: row for row in rows}


def begin(connection: Connection, identity: TopicIdentity, partitions: Iterable[int], marks: dict[int, Watermarks]) -> dict[int, OffsetRow]:
    """Where each partition continues; partitions never drained before begin at the start of their log.

    Raises:
        TopicRecreatedError, DataGoneError.
    """
    partitions = tuple(partitions)
    with connection.cursor() as cursor:
        for partition in partitions:
            low = marks[partition].low
            cursor.execute(
                "INSERT INTO kafka_offset (topic, kafka_partition, next_offset, cluster_id, topic_id, first_offset)"
                " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (identity.topic, partition, low, identity.cluster_id, identity.topic_id, low),
            )
    connection.commit()
    rows = read(connection, identity.topic)
    check_identity(identity, rows)
    rows = {partition: rows[partition] for partition in partitions}
    check_log(identity.topic, rows, marks)
    return rows


def check_identity(identity: TopicIdentity, rows: dict[int, OffsetRow]) -> None:
    """Compare the topic that was drained with the one that is there; for all partitions at once, as one command accepts them.

    Raises:
        TopicRecreatedError: the message holds that command.
    """
    if strange := [row for row in rows.values() if (row.cluster_id, row.topic_id) != (identity.cluster_id, identity.topic_id)]:
        row = strange[0]
        what = (
            f"deleted and created anew (topic id {identity.topic_id}, drained so far: {row.topic_id})"
            if row.cluster_id == identity.cluster_id
            else f"in another Kafka cluster ({identity.cluster_id}, drained so far: {row.cluster_id})"
        )
        raise TopicRecreatedError(
            f"topic '{identity.topic}' is {what}. Its offsets begin again, so next_offset {row.next_offset} of partition {row.partition}"
            f" means nothing. If that is intended, accept it: {accept_command([row.partition for row in strange])}"
        )


def check_log(topic: str, rows: dict[int, OffsetRow], marks: dict[int, Watermarks]) -> None:
    """Compare next offsets with what Kafka's log holds.

    Raises:
        DataGoneError: the message holds the command that accepts it.
    """
    if gone := [row for row in rows.values() if row.next_offset < marks[row.partition].low]:
        text = "; ".join(f"partition {row.partition}: offsets {row.next_offset}..{marks[row.partition].low - 1}" for row in gone)
        raise DataGoneError(
            f"Kafka deleted messages of topic '{topic}' before they were drained ({text}). Raise the topic's retention.ms;"
            f" to go on without these messages: {accept_command([row.partition for row in gone])}"
        )
    if beyond := [row for row in rows.values() if row.next_offset > marks[row.partition].high]:
        text = "; ".join(f"partition {row.partition}: next {row.next_offset}, log ends at {marks[row.partition].high}" for row in beyond)
        raise DataGoneError(
            f"the log of topic '{topic}' ends before what was drained already ({text}): Kafka lost its tail, or was"
            f" restored from a backup. To continue with what it has now: {accept_command([row.partition for row in beyond])}"
        )


def accept(connection: Connection, identity: TopicIdentity, row: OffsetRow, marks: Watermarks, run_id: str) -> str:
    """Record a loss and let the partition continue with what Kafka has: from the log's start if the topic is another one or the
    messages are gone, from its end if the log ends before next_offset. Commits; returns what was done, "" if there was nothing to accept.

    Raises:
        DrainedElsewhereError: a drain moved the offset meanwhile. Look again.
    """
    if (row.cluster_id, row.topic_id) != (identity.cluster_id, identity.topic_id):
        lost, target = (row.next_offset, row.next_offset), marks.low
        detail = f"topic {row.topic_id} replaced by {identity.topic_id}; what the old one held from offset {row.next_offset} on is unknown"
    elif row.next_offset < marks.low:
        lost, target = (row.next_offset, marks.low), marks.low
        detail = f"{marks.low - row.next_offset} messages deleted by Kafka before they were drained"
    elif row.next_offset > marks.high:
        lost, target = (marks.high, row.next_offset), marks.high
        detail = f"log ends at {marks.high}, drained to {row.next_offset}: offsets from {marks.high} on will be used again"
    else:
        return ""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE kafka_offset SET next_offset = %s, cluster_id = %s, topic_id = %s, updated_at = now(),"
            " first_offset = least(first_offset, %s) WHERE topic = %s AND kafka_partition = %s AND next_offset = %s AND topic_id = %s",
            (target, identity.cluster_id, identity.topic_id, target, identity.topic, row.partition, row.next_offset, row.topic_id),
        )
        if cursor.rowcount != 1:
            connection.rollback()
            raise DrainedElsewhereError(f"partition {row.partition} moved meanwhile: look at `iot offsets show` again")
        cursor.execute(
            "INSERT INTO ledger (kind, kafka_topic, topic_id, kafka_partition, from_offset, to_offset, run_id, detail)"
            " VALUES ('accepted_loss', %s, %s, %s, %s, %s, %s, %s)",
            (identity.topic, row.topic_id, row.partition, *lost, run_id, detail),
        )
    connection.commit()
    return f"partition {row.partition} continues at offset {target}: {detail}"
