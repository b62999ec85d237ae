"""The offset ledger against Kafka: where each partition continues, whether that is still possible, and accepting that it is not. Whether
the log is still the same one: see log_cut.py."""

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.kafka.watermarks import TopicIdentity, Watermarks
from iot_platform.telemetry.errors import (
    DataGoneError,
    DrainedElsewhereError,
    TopicRecreatedError,
    accept_command,
)


@dataclass(frozen=True)
class OffsetRow:
    """A row of kafka_offset."""

    partition: int
    next_offset: int
    cluster_id: str
    topic_id: str
    first_offset: int
    log_generation: int = 0
    leader_epoch: int | None = None
    verified_epoch: int | None = None
    record_offset: int | None = None
    record_sha256: str | None = None  # hexadecimal
    updated_at: float = 0.0  # seconds since the epoch


def read(connection: Connection, topic: str) -> dict[int, OffsetRow]:
    """The rows of kafka_offset for a topic."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT kafka_partition, next_offset, cluster_id, topic_id, first_offset, log_generation, leader_epoch, verified_epoch,"
            " record_offset, encode(record_sha256, 'hex'),"
            " extract(epoch FROM updated_at)::float8 FROM kafka_offset WHERE topic = %s ORDER BY 1",
            (topic,),
        )
        rows = [OffsetRow(*row) for row in cursor.fetchall()]
    connection.commit()
    return {row.partition: row for row in rows}


def begin(
    connection: Connection, identity: TopicIdentity, partitions: Iterable[int], watermarks: dict[int, Watermarks]
) -> dict[int, OffsetRow]:
    """Where each partition continues; partitions never drained before begin at the start of their log.

    Raises:
        TopicRecreatedError, DataGoneError.
    """
    partitions = tuple(partitions)
    with connection.cursor() as cursor:
        for partition in partitions:
            low = watermarks[partition].low
            cursor.execute(
                "INSERT INTO kafka_offset (topic, kafka_partition, next_offset, cluster_id, topic_id, first_offset)"
                " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (identity.topic, partition, low, identity.cluster_id, identity.topic_id, low),
            )
    connection.commit()
    rows = read(connection, identity.topic)
    check_identity(identity, rows)
    rows = {partition: rows[partition] for partition in partitions}
    check_log(identity.topic, rows, watermarks)
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


def check_log(topic: str, rows: dict[int, OffsetRow], watermarks: dict[int, Watermarks]) -> None:
    """Compare next offsets with where Kafka's log begins.

    Raises:
        DataGoneError: the message holds the command that accepts it.
    """
    if gone := [row for row in rows.values() if row.next_offset < watermarks[row.partition].low]:
        text = "; ".join(f"partition {row.partition}: offsets {row.next_offset}..{watermarks[row.partition].low - 1}" for row in gone)
        raise DataGoneError(
            f"Kafka deleted messages of topic '{topic}' before they were drained ({text}). Raise the topic's retention.ms;"
            f" to go on without these messages: {accept_command([row.partition for row in gone])}"
        )


def accept(
    connection: Connection, identity: TopicIdentity, row: OffsetRow, watermarks: Watermarks, run_id: str, *, from_beginning: bool = False
) -> str:
    """Record a loss and let the partition continue with what Kafka has, from the log's start: the topic is another one, or messages are
    gone, or (`from_beginning`) somebody wants all of it as new. Commits; returns what was done, "" if there was nothing to accept.

    Raises:
        DrainedElsewhereError: a drain moved the offset meanwhile. Look again.
    """
    if (row.cluster_id, row.topic_id) != (identity.cluster_id, identity.topic_id):
        lost, generation = (row.next_offset, row.next_offset), row.log_generation + 1
        detail = f"topic {row.topic_id} replaced by {identity.topic_id}; what the old one held from offset {row.next_offset} on is unknown"
    elif row.next_offset < watermarks.low:
        lost, generation = (row.next_offset, watermarks.low), row.log_generation
        detail = f"{watermarks.low - row.next_offset} messages deleted by Kafka before they were drained"
    elif from_beginning:
        lost, generation = (row.next_offset, row.next_offset), row.log_generation + 1
        detail = f"drained to {row.next_offset}; all that Kafka holds from offset {watermarks.low} on is taken as new"
    else:
        return ""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE kafka_offset SET next_offset = %(low)s, cluster_id = %(cluster_id)s, topic_id = %(topic_id)s, updated_at = now(),"
            " first_offset = least(first_offset, %(low)s), log_generation = %(generation)s, leader_epoch = NULL, verified_epoch = NULL,"
            " record_offset = NULL, record_sha256 = NULL WHERE topic = %(topic)s AND kafka_partition = %(partition)s"
            " AND next_offset = %(next_offset)s AND topic_id = %(old_topic_id)s AND log_generation = %(old_generation)s",
            {
                "low": watermarks.low,
                "cluster_id": identity.cluster_id,
                "topic_id": identity.topic_id,
                "generation": generation,
                "topic": identity.topic,
                "partition": row.partition,
                "next_offset": row.next_offset,
                "old_topic_id": row.topic_id,
                "old_generation": row.log_generation,
            },
        )
        if cursor.rowcount != 1:
            connection.rollback()
            raise DrainedElsewhereError(f"partition {row.partition} moved meanwhile: look at `iot offsets show` again")
        cursor.execute(
            "INSERT INTO ledger (kind, kafka_topic, topic_id, kafka_partition, log_generation, leader_epoch, from_offset, to_offset,"
            " run_id, detail) VALUES ('accepted_loss', %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (identity.topic, row.topic_id, row.partition, row.log_generation, row.leader_epoch, *lost, run_id, detail),
        )
    connection.commit()
    return f"partition {row.partition} continues at offset {watermarks.low}: {detail}"
