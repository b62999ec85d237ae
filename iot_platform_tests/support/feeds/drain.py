"""Writes records into the Kafka topic as the ingest daemon does, and reads back what a drain made of them."""

import itertools
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psycopg2
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from ingest_daemon.envelope import HEADER, pack, with_receipts
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.drain import Drain, Progress, Shift

TOPIC = "mtic/msg/client/realtime/1968193631353446400/1968193691042586624"
QOS1, DUP, RETAIN = 0x32, 0x08, 0x01


def kafka_admin(settings: Settings) -> AdminClient:
    """A client of the test's Kafka, for a `with`."""
    return AdminClient({**settings.kafka_config(), "log_level": 0})


def delete_records(settings: Settings, partition: int, before: int) -> None:
    """Let Kafka delete the topic's records below an offset."""
    with kafka_admin(settings) as admin:
        for future in admin.delete_records([TopicPartition(settings.kafka_topic, partition, before)]).values():
            future.result(30)


@dataclass(frozen=True)
class Sent:
    """A record as it was produced."""

    payload: bytes | None
    key: bytes | None
    partition: int
    headers: list[tuple[str, str | bytes | None]]

    @property
    def receipt(self) -> tuple[int, int, int]:
        """Connection number, sequence and receive time of its header."""
        value = self.headers[0][1]
        assert isinstance(value, bytes)
        received_at, number, sequence = struct.unpack_from("!qqQ", value, 4)
        return number, sequence, received_at


@dataclass
class Feed:
    """Produces to explicit partitions; every record gets the next sequence of its connection unless told otherwise."""

    settings: Settings
    producer: Producer = field(init=False)

    def __post_init__(self) -> None:
        # Idempotent: a retried batch must not be overtaken by the next one, the tests know every offset.
        self.producer = Producer({**self.settings.kafka_config(), "enable.idempotence": True, "linger.ms": 5, "log_level": 0})
        self._sequences: dict[tuple[str, int], Any] = {}

    def send(
        self,
        payload: bytes | None,
        *,
        partition: int = 0,
        topic: bytes | str | None = TOPIC,
        client: str = "ingest",
        connection: int = 1,
        packet: int = 0,
        dup: bool = False,
        header: bool = True,
        sequence: int | None = None,
        age: timedelta = timedelta(0),
        at: int | None = None,
        retain: bool = False,
        earlier: Sequence["Sent"] | None = None,
        known: int = 0,
        lost: bool = False,
    ) -> Sent:
        """One record, as received now, or so long ago, or at a moment (µs). `earlier`: records that its header names as the same message,
        also none; `known`: it is said to repeat nothing else of connections up to this. `lost`: the daemon dies before Kafka has it."""
        numbers = self._sequences.setdefault((client, connection), itertools.count(1))
        value = pack(
            QOS1 | DUP * dup | RETAIN * retain,
            packet,
            time.time_ns() // 1000 - age // timedelta(microseconds=1) if at is None else at,
            connection,
            sequence or next(numbers),
            client.encode(),
        )
        if earlier is not None:
            value = with_receipts(value, known, [sent.receipt for sent in earlier])
        headers: list[tuple[str, str | bytes | None]] = [(HEADER, value)] if header else []
        key = topic.encode() if isinstance(topic, str) else topic
        sent = Sent(payload, key, partition, headers)
        if not lost:
            self.again(sent)
        return sent

    def again(self, sent: Sent) -> None:
        """The same record once more, as the daemon writes it after a fatal producer error."""
        self.producer.produce(self.settings.kafka_topic, sent.payload, sent.key, sent.partition, headers=sent.headers)
        self.producer.poll(0)

    def flush(self) -> None:
        """Wait until Kafka has everything."""
        assert self.producer.flush(90) == 0


def drain(settings: Settings, partitions: tuple[int, ...] = (0, 1), run_id: str = "test") -> Progress:
    """Drain what is there."""
    return Drain(settings, Shift(partitions, run_id, until_caught_up=True)).run()


def query(settings: Settings, text: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Rows of a query as the database's owner; bytea as bytes."""
    connection = psycopg2.connect(settings.admin_url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(text, parameters)
            if cursor.description is None:
                return []
            return [tuple(bytes(value) if isinstance(value, memoryview) else value for value in row) for row in cursor.fetchall()]
    finally:
        connection.close()


def check_books(settings: Settings) -> None:
    """The invariants that hold after any history of drains and replays: every offset once, ledger gapless and equal to the tables."""
    stored = query(
        settings,
        "SELECT kafka_partition, kafka_offset FROM message UNION ALL SELECT kafka_partition, kafka_offset FROM quarantine ORDER BY 1, 2",
    )
    offsets = "SELECT kafka_partition, next_offset, first_offset FROM kafka_offset WHERE topic = %s ORDER BY 1"
    expected = [
        (partition, offset)
        for partition, next_offset, first in query(settings, offsets, settings.kafka_topic)
        for offset in range(first, next_offset)
    ]
    assert stored == expected
    ranges = query(settings, "SELECT kafka_partition, from_offset, to_offset FROM ledger WHERE kind = 'drain' ORDER BY 1, 2")
    for before, after in itertools.pairwise(ranges):
        assert before[0] != after[0] or before[2] == after[1], "the ledger has a gap or an overlap"
    sums = (
        "sum(messages)::bigint, sum(duplicates)::bigint, sum(quarantined)::bigint, sum(measurements)::bigint,"
        " sum(measurement_duplicates)::bigint, sum(measurement_conflicts)::bigint"
    )
    ledger = query(settings, f"SELECT {sums} FROM ledger")
    assert ledger == query(settings, f"SELECT {sums} FROM accounting_1h")
    tables = query(
        settings,
        "SELECT (SELECT count(*) FROM message), (SELECT count(duplicate_of) FROM message) + (SELECT count(duplicate_of) FROM quarantine),"
        " (SELECT count(*) FROM quarantine), (SELECT count(*) FROM measurement)",
    )
    assert [row[:4] for row in ledger] == tables
    latest = "SELECT time, series_id, value, value_int, value_text, flags FROM"
    # No DISTINCT ON: of a chunk that is compressed in part, TimescaleDB's SkipScan gives it the oldest row instead.
    newest = "(SELECT series_id, max(time) AS time FROM measurement GROUP BY 1) n JOIN measurement m USING (series_id, time)"
    assert query(settings, f"{latest} series_latest ORDER BY 2") == query(settings, f"{latest} {newest} ORDER BY 2")
    counts = "SELECT tenant_id, project_id, count(*) FROM {} GROUP BY 1, 2 ORDER BY 1, 2"
    for table, column in (("series", "series_count"), ("source", "source_count")):
        noted = query(settings, f"SELECT tenant_id, project_id, {column} FROM project WHERE {column} > 0 ORDER BY 1, 2")
        assert query(settings, counts.format(table)) == noted


def backdate_ledger(settings: Settings, interval: str, from_offset: int | None = None) -> None:
    """Batches as if they had been committed so much earlier; deleted and written anew, because that may be another day's chunk."""
    query(
        settings,
        "WITH old AS (DELETE FROM ledger WHERE %s::bigint IS NULL OR from_offset = %s RETURNING *)"
        " INSERT INTO ledger OVERRIDING SYSTEM VALUE SELECT (jsonb_populate_record(NULL::ledger,"
        " to_jsonb(old) || jsonb_build_object('committed_at', old.committed_at - %s::interval))).* FROM old",
        from_offset,
        from_offset,
        interval,
    )
