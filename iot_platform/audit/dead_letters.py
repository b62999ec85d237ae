"""Imports Kafka's dead-letter topic into dead_letter: each record once, its offset in the same transaction, as the drain does."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, Message
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extras import execute_values

from iot_platform.database.interval import interval
from iot_platform.kafka.watermarks import WORK_SECONDS, TopicIdentity, TopicOffsets, Watermarks
from iot_platform.settings import Settings
from iot_platform.telemetry.drain import offsets
from iot_platform.telemetry.errors import DataGoneError, TopicRecreatedError, TransientError

BATCH: Final = 50
"""Records may have many MiB each."""
SILENCE_SECONDS: Final = 10.0
ERROR_HEADER: Final = "iot-error"
PART_HEADER: Final = "iot-part"

_CLAIM: Final = """
UPDATE kafka_offset SET next_offset = %s, updated_at = now(), leader_epoch = coalesce(%s, leader_epoch),
    record_offset = coalesce(%s, record_offset), record_sha256 = coalesce(%s, record_sha256)
WHERE topic = %s AND topic_id = %s AND kafka_partition = %s AND log_generation = %s AND next_offset = %s"""
_ROWS: Final = """
INSERT INTO dead_letter (topic_id, kafka_partition, log_generation, kafka_offset, received_at, client_id, connection_number, sequence,
    topic, reason, part, parts, payload_bytes) VALUES %s"""
_ROW: Final = "(%s, %s, %s, %s, 'epoch'::timestamptz + %s::interval, %s, %s, %s, %s, %s, %s, %s, %s)"


def import_dead_letters(settings: Settings, connection: Connection) -> list[str]:
    """Take in what the dead-letter topic holds now; returns notes on what is out of the ordinary. Safe beside another import.

    Raises:
        DrainError, KafkaUnavailableError: Kafka does not answer, or has no such topic.
    """
    with TopicOffsets(settings, WORK_SECONDS, settings.kafka_dead_letter_topic) as topic:
        identity, watermarks = topic.look()
    notes: list[str] = []
    try:
        rows = offsets.begin(connection, identity, identity.partitions, watermarks)
    except (TopicRecreatedError, DataGoneError):
        # Goes on by itself: a dead letter that is gone before its import is named by the sequence proof.
        known = offsets.read(connection, identity.topic).values()
        notes = [
            offsets.accept(connection, identity, row, watermarks[row.partition], "iot audit")
            for row in known
            if row.partition in watermarks
        ]
        rows = offsets.begin(connection, identity, identity.partitions, watermarks)
    if moved := {
        number: row for number, row in rows.items() if row.next_offset != watermarks[number].high or _is_other(row, watermarks[number])
    }:
        notes += _import(settings, connection, identity, moved, watermarks)
    return [f"dead-letter topic: {text}" for text in notes if text]


def _import(
    settings: Settings,
    connection: Connection,
    identity: TopicIdentity,
    rows: dict[int, offsets.OffsetRow],
    watermarks: dict[int, Watermarks],
) -> list[str]:
    """Returns notes on logs that were cut: what Kafka has there now is imported, what it lost stays."""
    from iot_platform.telemetry.drain.log_cut import LogCheck
    from iot_platform.telemetry.drain.source import KafkaSource  # numpy, only where there is something to read

    with closing(KafkaSource(settings, identity.topic)) as source:
        try:
            verified = LogCheck(settings, source.consumer, connection, identity).go_on(rows, watermarks, "iot audit")
        except DataGoneError:  # nothing tells where the logs part: a letter that is imported twice does no harm
            accept = partial(offsets.accept, connection, identity, run_id="iot audit", from_beginning=True)
            return [accept(row, watermarks[partition]) for partition, row in rows.items()]
        rows |= offsets.read(connection, identity.topic)
        for partition, start in verified.starts.items():
            if start.offset < watermarks[partition].high and start.offset == rows[partition].next_offset:  # else another audit imports
                source.assign({partition: start})
                _import_partition(source.consumer, connection, identity, rows[partition], watermarks[partition].high)
    return [cut.text for cut in verified.cuts]


def _is_other(row: offsets.OffsetRow, ends: Watermarks) -> bool:
    """Whether the log may be another one although it ends where it should."""
    return ends.leader_epoch is not None and ends.leader_epoch != row.verified_epoch


def _import_partition(consumer: Consumer, connection: Connection, identity: TopicIdentity, row: offsets.OffsetRow, high: int) -> None:
    from iot_platform.telemetry.records import last_record

    position = row.next_offset
    for messages, following in _batches(consumer, high):
        with connection.cursor() as cursor:
            last = last_record(messages[-1]) if messages else None
            known = (last and last.leader_epoch, last and last.offset, last and last.sha256)
            cursor.execute(_CLAIM, (following, *known, identity.topic, identity.topic_id, row.partition, row.log_generation, position))
            if cursor.rowcount != 1:
                connection.rollback()
                return  # another audit imports
            if messages:
                execute_values(
                    cursor,
                    _ROWS,
                    [(identity.topic_id, row.partition, row.log_generation, *_columns(message)) for message in messages],
                    template=_ROW,
                )
        connection.commit()
        position = following


def _batches(consumer: Consumer, high: int) -> Iterator[tuple[list[Message], int]]:
    """Messages up to `high`, and the offset after them."""
    following, messages = -1, []
    while following < high:
        message = consumer.poll(SILENCE_SECONDS)
        if message is None:
            raise TransientError(f"Kafka sends no dead letters for {SILENCE_SECONDS:g} s, but has some up to offset {high}")
        error, offset = message.error(), message.offset() or 0
        if error is None:
            messages.append(message)
            following = offset + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            following = max(following, offset)
        else:
            raise TransientError(f"Kafka: {error.str()} (dead-letter topic)")
        if len(messages) >= BATCH or following >= high:
            yield messages, following
            messages = []


def _columns(message: Message) -> tuple[Any, ...]:
    from iot_platform.telemetry.envelope import escaped
    from iot_platform.telemetry.records import to_records

    envelope = to_records([message], {}).envelope
    headers = dict(message.headers() or [])
    client, number, sequence = None, None, None
    if envelope.readable[0]:
        client, number = envelope.connections[0]
        sequence = int(envelope.sequence[0])
    topic, reason = escaped(_bytes(message.key())), escaped(_bytes(headers.get(ERROR_HEADER)))
    received = interval(envelope.received_at[0])
    return (message.offset(), received, client, number, sequence, topic, reason, *_part(_bytes(headers.get(PART_HEADER))), len(message))


def _part(header: bytes) -> tuple[int, int]:
    part, _, parts = header.partition(b"/")
    return (int(part), int(parts)) if part.isdigit() and parts.isdigit() and len(header) < 20 else (1, 1)


def _bytes(value: object) -> bytes:
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b""
