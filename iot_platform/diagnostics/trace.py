"""Follows one Kafka record to its rows, its batch and its Dagster run. Reads only; each source may be down or may have forgotten it."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from iot_platform.diagnostics.trace_values import Place, compare, every, one
from iot_platform.settings import Settings
from iot_platform.telemetry.partitions import FIRST_IMPORT, IMPORT_TOPIC, topic_of_partition

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message
    from psycopg2.extensions import connection as Connection  # noqa: N812

KAFKA_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 30
SCAN_RECORDS: Final = 5000  # how far `--last` looks among the records that no batch holds yet, per partition
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_BATCH: Final = """
SELECT batch_id, kind, from_offset, to_offset, messages, duplicates, quarantined, measurements, measurement_duplicates,
       measurement_conflicts, first_received_at, last_received_at, committed_at, log_generation, leader_epoch, run_id, detail
FROM ledger
WHERE kafka_topic = %s AND kafka_partition = %s AND from_offset <= %s AND to_offset > %s AND kind IN ('drain', 'accepted_loss')
      AND (%s::int IS NULL OR log_generation = %s)
ORDER BY log_generation DESC, committed_at DESC LIMIT 1
"""
_MESSAGE: Final = """
SELECT received_at, topic, tenant_id, project_id, device_id, time_source, duplicate_of, duplicate_of_generation, client_id,
       connection_number, sequence, packet_id, dup, retain, qos, payload, source_id, time_shift_us
FROM message_named
WHERE kafka_partition = %s AND kafka_offset = %s AND received_at BETWEEN %s AND %s AND log_generation = %s ORDER BY received_at DESC LIMIT 1
"""
_QUARANTINE: Final = """
SELECT received_at, topic, tenant_id, project_id, reason, detail, duplicate_of, duplicate_of_generation, client_id, connection_number,
       sequence, packet_id, dup, retain, qos, payload, topic_bytes
FROM quarantine_named
WHERE kafka_partition = %s AND kafka_offset = %s AND received_at BETWEEN %s AND %s AND log_generation = %s ORDER BY received_at DESC LIMIT 1
"""
_LAST: Final = """
SELECT kafka_partition, kafka_offset FROM (
    SELECT received_at, kafka_partition, kafka_offset FROM message JOIN source USING (source_id)
    WHERE topic = %(topic)s AND received_at > %(since)s
    UNION ALL
    SELECT received_at, kafka_partition, kafka_offset FROM quarantine WHERE topic = %(topic)s AND received_at > %(since)s
) AS both_tables ORDER BY received_at DESC, kafka_offset DESC LIMIT 1
"""


_REPLACED: Final = """
SELECT 1 FROM ledger l WHERE l.kafka_topic = %(topic)s AND l.kafka_partition = %(partition)s AND l.log_generation > %(generation)s
    AND l.kind = 'log_cut' AND l.from_offset <= %(offset)s
UNION ALL
SELECT 1 FROM ledger l JOIN kafka_offset k ON k.topic = l.kafka_topic AND k.kafka_partition = l.kafka_partition
WHERE l.kafka_topic = %(topic)s AND l.kafka_partition = %(partition)s AND l.log_generation = %(generation)s AND l.topic_id <> k.topic_id
LIMIT 1
"""
_FILE: Final = "SELECT name, started_at FROM import_file WHERE kafka_partition = %s"
_WAITS: Final = "SELECT 1 FROM kafka_offset WHERE topic = %s AND kafka_partition = %s AND next_offset <= %s"
_GENERATIONS: Final = """
SELECT log_generation, min(first_received_at), max(last_received_at) FROM ledger
WHERE kafka_topic = %s AND kafka_partition = %s AND from_offset <= %s AND to_offset > %s AND kind = 'drain' GROUP BY 1 ORDER BY 1
"""


@dataclass
class Trace:
    """What each station knows of one record; None: it knows nothing, and `notes` says why. `generation`: of which of the partition's logs
    the offset is; None: of the newest one that has it."""

    partition: int
    offset: int
    generation: int | None = None
    where: str = "unknown"  # stored, quarantined, in flight, accepted loss, never written, unknown
    record: dict[str, Any] | None = None
    row: dict[str, Any] | None = None
    measurements: list[dict[str, Any]] = field(default_factory=list)
    batch: dict[str, Any] | None = None
    run_url: str | None = None
    notes: list[str] = field(default_factory=list)


def find_last(settings: Settings, topic: str) -> tuple[int, int] | None:
    """Partition and offset of the newest message of an MQTT topic: first among those in flight, then among the stored ones."""
    from iot_platform.database.connection import connect

    connection = connect(settings, "reader", "iot trace")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '20s'")
            cursor.execute("SELECT kafka_partition, next_offset FROM kafka_offset WHERE topic = %s", (settings.kafka_topic,))
            waiting = _last_in_flight(settings, topic, dict(cursor.fetchall()))
            if waiting:
                return waiting
            for back in (timedelta(hours=1), timedelta(days=1), timedelta(days=3650)):
                cursor.execute(_LAST, {"topic": topic, "since": datetime.now(UTC) - back})
                row = cursor.fetchone()
                if row:
                    return int(row[0]), int(row[1])
    finally:
        connection.close()
    return None


def follow(settings: Settings, partition: int, offset: int, generation: int | None = None) -> Trace:
    """Everything known of one record."""
    from confluent_kafka import KafkaError, KafkaException

    trace = Trace(partition, offset, generation=generation)
    try:
        if partition < FIRST_IMPORT:
            _from_kafka(settings, trace)
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() in (KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART):
            trace.where = "never written"
            trace.notes.append(f"topic {settings.kafka_topic} (IOT_KAFKA_TOPIC) has no partition {partition}")
        else:
            trace.notes.append(f"Kafka at {settings.kafka_bootstrap_servers} does not answer: {reason.str()}")
    _from_database(settings, trace)
    return trace


def _consumer(settings: Settings) -> "Consumer":
    from confluent_kafka import Consumer

    config = settings.kafka_config() | {"group.id": "iot-trace", "enable.auto.commit": False, "log_level": 0, "enable.partition.eof": True}
    return Consumer(config)


def _from_kafka(settings: Settings, trace: Trace) -> None:
    from confluent_kafka import TopicPartition

    consumer = _consumer(settings)
    try:
        marks = consumer.get_watermark_offsets(TopicPartition(settings.kafka_topic, trace.partition), timeout=KAFKA_SECONDS)
        if marks is None:
            trace.notes.append("Kafka did not answer in time")
        elif trace.offset >= marks[1]:
            trace.where = "never written"
            trace.notes.append(f"Kafka has not written this offset yet: partition {trace.partition} ends before {marks[1]}")
        elif trace.offset < marks[0]:
            trace.notes.append(f"gone from Kafka (retention): partition {trace.partition} begins at {marks[0]}; rows may still be there")
        else:
            found = next(_records(consumer, settings.kafka_topic, trace.partition, trace.offset, trace.offset + 1), None)
            if found is None:
                trace.notes.append("Kafka keeps no message at this offset (transaction marker or compacted)")
            else:
                trace.record = describe(found)
    finally:
        consumer.close()


def _records(consumer: "Consumer", topic: str, partition: int, begin: int, end: int) -> "Iterator[Message]":
    """Messages of [begin, end) in order."""
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    consumer.assign([TopicPartition(topic, partition, begin)])
    give_up = time.monotonic() + KAFKA_SECONDS
    while time.monotonic() < give_up:
        for message in consumer.consume(500, timeout=0.2):
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:  # the library's public name of it
                return
            if error is not None:
                raise KafkaException(error)
            offset = message.offset()
            if offset is None or offset >= end:
                return
            yield message
            if offset + 1 >= end:
                return


def _last_in_flight(settings: Settings, topic: str, following: dict[int, int]) -> tuple[int, int] | None:
    from confluent_kafka import KafkaException, TopicPartition

    consumer, best = _consumer(settings), None
    try:
        for partition in consumer.list_topics(settings.kafka_topic, timeout=KAFKA_SECONDS).topics[settings.kafka_topic].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(settings.kafka_topic, partition), timeout=KAFKA_SECONDS) or (0, 0)
            begin = max(low, following.get(partition, low), high - SCAN_RECORDS)
            if begin < high:
                for message in _records(consumer, settings.kafka_topic, partition, begin, high):
                    if (message.key() or b"") == topic.encode():
                        best = (partition, message.offset() or 0)
    except KafkaException:
        return None  # follow() says that Kafka does not answer
    finally:
        consumer.close()
    return best


def describe(message: "Message") -> dict[str, Any]:
    """A Kafka record with its header taken apart."""
    from iot_platform.telemetry.envelope import HEADER, unpack

    header = next((item[1] for item in message.headers() or () if item[0] == HEADER), None)
    kafka_us = message.timestamp()[1] * 1000
    envelope = unpack([header if isinstance(header, bytes) else None], lambda _: kafka_us)
    flags = int(envelope.flags[0])
    readable = bool(envelope.readable[0])
    record: dict[str, Any] = {
        "key": message.key() or b"",
        "payload": message.value() or b"",
        "kafka_time": _utc_time(kafka_us),
        "received_at": _utc_time(int(envelope.received_at[0])),
        "header": None,
    }
    if readable:
        client, number = envelope.connections[int(envelope.connection[0])]
        record["header"] = {
            "client_id": client, "connection_number": number, "sequence": int(envelope.sequence[0]),
            "packet_id": int(envelope.packet_id[0]), "dup": bool(flags & 1), "retain": bool(flags & 2), "qos": flags >> 2 & 3,
        }  # fmt: skip
        if (named := envelope.receipts.get(0)) is not None and named.earlier:
            record["header"]["earlier_receipts"] = ", ".join(f"{number}/{sequence}" for number, sequence, _ in named.earlier)
    return record


def _utc_time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _from_database(settings: Settings, trace: Trace) -> None:
    from iot_platform.database.connection import connect

    connection = connect(settings, "reader", "iot trace")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = %s", (f"{STATEMENT_SECONDS}s",))
        connection.commit()  # or the next rollback takes it back
        topic = topic_of_partition(trace.partition, settings.kafka_topic)
        if topic == IMPORT_TOPIC:
            _from_file(connection, trace)
        place = (topic, trace.partition, trace.offset, trace.offset)
        others = [tuple(row.values()) for row in every(connection, _GENERATIONS, place)]
        waiting = trace.generation is None and trace.record is not None and one(connection, _WAITS, place[:3]) is not None
        trace.batch = None if waiting else one(connection, _BATCH, (*place, trace.generation, trace.generation))
        if waiting:
            for number, first, last in others:
                trace.notes.append(_other(number, first, last))
        if trace.batch is None:
            _not_committed(connection, topic, trace)
            return
        generation = trace.generation = trace.batch["log_generation"]
        for number, first, last in others:
            if number != generation:
                trace.notes.append(_other(number, first, last))
        if one(
            connection,
            _REPLACED,
            {"topic": topic, "partition": trace.partition, "generation": generation, "offset": trace.offset},
        ):
            trace.record = None
            trace.notes.append("what Kafka has at this offset today is another record: the log was cut or made anew since")
        if _is_run(trace.batch["run_id"]):
            trace.run_url = f"{settings.dagster_url.rstrip('/')}/runs/{trace.batch['run_id']}"
        if trace.batch["kind"] == "accepted_loss":
            trace.where = "accepted loss"
            return
        window = (trace.partition, trace.offset, trace.batch["first_received_at"], trace.batch["last_received_at"], generation)
        trace.row = one(connection, _MESSAGE, window)
        if trace.row is not None:
            trace.where = "stored"
            trace.measurements, notes = compare(connection, settings, Place(trace.partition, generation, trace.offset), trace.row)
            trace.notes += notes
            return
        trace.row = one(connection, _QUARANTINE, window)
        trace.where = "quarantined" if trace.row is not None else "expired"
        if trace.row is None:
            trace.notes.append("its batch is in the ledger, its row is not: deleted by retention, or an offset without a message")
    finally:
        connection.close()


def _other(generation: int, first: datetime, last: datetime) -> str:
    return (
        f"another record has had this offset, in generation {generation} of the partition's log (received {first:%Y-%m-%d %H:%M:%S}"
        f" to {last:%H:%M:%S} UTC): --generation {generation} shows it"
    )


def _from_file(connection: "Connection", trace: Trace) -> None:
    found = one(connection, _FILE, (trace.partition,))
    if found is None:
        trace.where = "never written"
        trace.notes.append(f"no import has partition {trace.partition}")
    else:
        began = found["started_at"].astimezone(UTC)
        trace.notes.append(f"record {trace.offset} of {found['name']}, an import that began {began:%Y-%m-%d %H:%M:%S} UTC")


def _not_committed(connection: "Connection", topic: str, trace: Trace) -> None:
    query = "SELECT next_offset, first_offset FROM kafka_offset WHERE topic = %s AND kafka_partition = %s"
    row = one(connection, query, (topic, trace.partition))
    if row is not None and trace.offset < row["first_offset"]:
        trace.notes.append(f"draining of this partition began at offset {row['first_offset']}: earlier messages were gone by then")
    elif row is not None and trace.offset < row["next_offset"]:
        trace.notes.append("committed, but its ledger row is gone (retention)")
    elif trace.record is not None:
        trace.where = "in flight"
        waiting = "this partition was never drained" if row is None else f"next_offset of the partition is {row['next_offset']}"
        trace.notes.append(f"in flight: no transaction holds it yet ({waiting})")


def _is_run(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
