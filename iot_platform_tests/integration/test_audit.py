"""The audit on real servers: clean when all is well, and each thing that can be wrong is named by its exact place."""

import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from ingest_daemon.dead_letter import ERROR_HEADER, PART_HEADER
from ingest_daemon.envelope import HEADER, pack
from iot_platform.audit import AuditResult, run_audit
from iot_platform.audit.proofs import PROOFS
from iot_platform.kafka.topics import ensure_topics
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.settings import Settings
from iot_platform.telemetry.drain import offsets
from iot_platform_tests.support.feeds.accountant import Accountant
from iot_platform_tests.support.feeds.drain import QOS1, TOPIC, Feed, backdate_ledger, drain, query
from iot_platform_tests.support.waiting import eventually

RECEIVED_AT = 1_790_000_000_000_000
CLEAN = {
    "received": 40,
    "stored": 36,
    "duplicates": 0,
    "quarantined": 4,
    "dead_lettered": 0,
    "in_flight": 0,
    "unacknowledged": 0,
    "missing": 0,
}


def audit(settings: Settings, *, everything: bool = True) -> AuditResult:
    """An audit that has to wait for nothing."""
    return run_audit(settings, since=None if everything else datetime.now(UTC) - timedelta(hours=1), wait_seconds=0)


Do = Callable[[str], Any]


def texts(result: AuditResult) -> list[str]:
    return [item.text for item in result.differences]


@pytest.mark.parametrize("everything", [True, False])
def test_clean(reported: Settings, everything: bool) -> None:
    result = audit(reported, everything=everything)
    assert (result.ok, texts(result), result.notes, result.doubts) == (True, [], [], [])
    assert result.sequence_sums() == CLEAN
    assert [(row.partition, row.from_offset, row.to_offset, row.expected, row.found) for row in result.partitions] == [
        (0, 0, 20, 20, 20),
        (1, 0, 20, 20, 20),
    ]
    assert [row.checked_to for row in result.connections] == [40]
    assert result.lag == 0
    for view in ("audit_offset", "audit_sequence", "audit_hour", "audit_daemon"):
        assert query(reported, f"SELECT count(*) FROM {view} WHERE problem IS NOT NULL") == [(0,)]


def test_nothing_at_all(settings: Settings) -> None:
    result = audit(settings)
    assert result.ok
    assert result.doubts == []
    assert "IOT_INGEST_HTTP_URL" in result.notes[0]


def delete_message(do: Do) -> None:
    do("DELETE FROM message WHERE kafka_partition = 1 AND kafka_offset = 10")


def delete_quarantined(do: Do) -> None:
    do("DELETE FROM quarantine WHERE kafka_partition = 1 AND kafka_offset = 6")


def insert_twice(do: Do) -> None:
    do("INSERT INTO message SELECT * FROM message WHERE kafka_partition = 0 AND kafka_offset = 5")


def in_both_tables(do: Do) -> None:
    do(
        "INSERT INTO quarantine (received_at, kafka_offset, sequence, kafka_partition, connection_id, reason, detail, tenant_id,"
        " project_id, topic, payload)"
        " SELECT received_at, kafka_offset, sequence, kafka_partition, connection_id, 'x', '', 't', 'p', '', payload FROM message"
        " WHERE kafka_partition = 0 AND kafka_offset = 19",
    )


def insert_all_twice(do: Do) -> None:
    do("INSERT INTO message SELECT * FROM message")


def lose_in_ledger_too(do: Do) -> None:
    """As a drain that passes over a record, and counts it nowhere: offsets and sums agree."""
    do("DELETE FROM message WHERE kafka_partition = 0 AND kafka_offset = 10")
    do("UPDATE ledger SET messages = messages - 1, empty_offsets = 1 WHERE kafka_partition = 0 AND from_offset <= 10 AND to_offset > 10")
    do("UPDATE accounting_1h SET messages = messages - 1 WHERE kafka_partition = 0 AND tenant_id <> ''")
    do("DELETE FROM measurement WHERE value = 20")
    do("UPDATE accounting_1h SET measurements = measurements - 1 WHERE kafka_partition = 0 AND tenant_id <> ''")


def falsify_sum(do: Do) -> None:
    do("UPDATE accounting_1h SET messages = messages + 2 WHERE kafka_partition = 0 AND tenant_id <> ''")


def drop_batch(do: Do) -> None:
    do("DELETE FROM ledger WHERE kafka_partition = 1 AND from_offset <= 9 AND to_offset > 9")


def move_next_offset(do: Do) -> None:
    do("UPDATE kafka_offset SET next_offset = 25 WHERE kafka_partition = 1")


def widen_batch(do: Do) -> None:
    do("UPDATE ledger SET from_offset = from_offset - 2 WHERE kafka_partition = 0 AND to_offset = 20")


def invent_record(do: Do) -> None:
    """A batch that says Kafka lacks a record, while the row is there."""
    do("UPDATE ledger SET empty_offsets = 1 WHERE kafka_partition = 0 AND from_offset = 0")


def forget_mark(do: Do) -> None:
    """Stored twice, the second one not marked."""
    do("UPDATE message SET sequence = 1 WHERE sequence = 3")


DAMAGES: list[tuple[Callable[[Do], None], list[str]]] = [
    (delete_message, ["partition 1 offset 10 is in no table", "sequence 22 is nowhere", "36 messages accounted, 35 stored"]),
    (delete_quarantined, ["partition 1 offset 6 is in no table", "sequence 14 is nowhere", "4 quarantined accounted, 3 stored"]),
    (insert_twice, ["partition 0 offset 5 is stored 2 times", "sequence 11 is stored twice without being marked"]),
    (insert_all_twice, ["partition 0 offset 0-19 is stored 2 times", "sequence 1 and 35 more are stored twice"]),
    (in_both_tables, ["partition 0 offset 19 is stored 2 times", "0 quarantined accounted, 1 stored"]),
    (lose_in_ledger_too, ["connection 1 of ingest: sequence 21 is nowhere"]),
    (falsify_sum, ["38 messages accounted, 36 stored"]),
    (drop_batch, ["partition 1: offset "]),
    (move_next_offset, ["partition 1: the ledger ends at offset 20, next_offset is 25"]),
    (widen_batch, ["is in two batches of the ledger"]),
    (invent_record, ["0 are in no table, but Kafka has no record for 1 of them"]),
    (forget_mark, ["sequence 3 is nowhere; sequence 1 is stored twice without being marked"]),
]


@pytest.mark.parametrize("everything", [True, False])
def test_damage_is_named(reported: Settings, everything: bool) -> None:
    """Each damage in a transaction that is rolled back after the proofs have seen it."""
    assert audit(reported).ok
    since = "-infinity" if everything else datetime.now(UTC) - timedelta(hours=1)
    with closing(psycopg2.connect(reported.admin_url)) as connection:
        for damage, named in DAMAGES:
            with connection.cursor() as cursor:
                damage(cursor.execute)
            result = AuditResult(None, datetime.now(UTC))
            for name, (_, prove) in PROOFS.items():
                if name != "measurements":
                    prove(connection, {"since": since, "window": 2000, "tenant": None}, result)
            connection.rollback()
            assert [text for text in named if not any(text in line for line in texts(result))] == [], (damage.__name__, texts(result))
            if damage is lose_in_ledger_too:
                assert len(texts(result)) == 1  # nothing but the second proof can see it
    assert audit(reported).ok


def test_measurements_are_counted_over_everything(reported: Settings) -> None:
    query(reported, "DELETE FROM measurement WHERE value = 7")
    assert audit(reported, everything=False).ok
    assert [text.split(": ")[1] for text in texts(audit(reported))] == ["36 measurements accounted, 35 stored"]


def test_a_skipped_offset(reported: Settings) -> None:
    """next_offset was moved by hand and the drain went on behind it."""
    feed = Feed(reported)
    feed.send(b'{"n":99}', partition=1)
    feed.flush()
    query(reported, "UPDATE kafka_offset SET next_offset = 21 WHERE kafka_partition = 1")
    feed.send(b'{"n":100}', partition=1, sequence=42)
    feed.flush()
    drain(reported)
    assert texts(audit(reported)) == ["partition 1: offset 20 is in no batch of the ledger"]
    copied = "received_at, 20, 41, duplicate_of, source_id, kafka_partition, connection_id, packet_id, flags, time_source, payload"
    query(reported, f"INSERT INTO message SELECT {copied} FROM message WHERE sequence = 42")  # as a replay may restore it
    query(
        reported,
        "INSERT INTO ledger (kind, kafka_topic, topic_id, run_id, kafka_partition, from_offset, to_offset, first_received_at,"
        " last_received_at) SELECT 'replay', kafka_topic, topic_id, 'r', 1, 20, 21, first_received_at, last_received_at FROM ledger"
        " WHERE kafka_partition = 1 AND from_offset = 21",
    )
    assert [item.text for item in audit(reported).differences if item.kind == "offsets"] == []
    query(reported, "DELETE FROM message WHERE kafka_partition = 1 AND kafka_offset = 20")
    assert texts(audit(reported)) == ["partition 1: offset 20 is in no batch of the ledger"]
    query(reported, "UPDATE ledger SET to_offset = 21 WHERE kafka_partition = 1 AND to_offset = 20")  # and the gap was covered up
    assert texts(audit(reported)) == ["partition 1 offset 20 is in no table"]


def test_a_lost_spool_entry(reported: Settings, accountant: Accountant) -> None:
    """The daemon says that it wrote 43; three of them never came, and the newest connection brought nothing of its two."""
    accountant.says((1, 43, 43, 43), (2, 2, 2, 2))
    result = audit(reported)
    assert texts(result) == ["connection 1 of ingest: sequence 41-43 are nowhere", "connection 2 of ingest: sequence 1-2 are nowhere"]
    assert result.sequence_sums()["missing"] == 5
    (after_others, alone) = (hole for item in result.differences for hole in item.holes)
    ((last_received,),) = query(reported, "SELECT max(received_at) FROM message WHERE sequence = 40")
    assert (after_others.after, after_others.before, after_others.topics) == (last_received, None, (TOPIC,))
    assert (alone.after, alone.before, alone.topics) == (None, None, ())


def test_in_flight_and_unacknowledged_are_no_loss(reported: Settings, accountant: Accountant) -> None:
    accountant.says((1, 45, 43, 40), (2, 9, 8, 0))
    result = audit(reported)
    assert texts(result) == []
    sums = result.sequence_sums()
    assert (sums["received"], sums["in_flight"], sums["unacknowledged"], sums["missing"]) == (54, 3 + 9, 2, 0)


def test_reports_only_go_forward(reported: Settings, accountant: Accountant) -> None:
    assert audit(reported).ok
    accountant.says((1, 12, 12, 12))
    assert audit(reported).ok
    assert query(reported, "SELECT in_kafka, settled, received FROM mqtt_connection_report") == [(40, 40, 40)]
    accountant.document = {"no": "accounting"}
    result = audit(reported)
    assert "gives no accounting" in result.notes[0]
    assert result.sequence_sums() == CLEAN


def test_the_daemons_own_identity(reported: Settings, accountant: Accountant) -> None:
    accountant.says((1, 40, 40, 40), received=41)
    assert texts(audit(reported)) == ["ingest daemon ingest: received 41, but 40 accounted for"]
    accountant.says((1, 40, 40, 40), delivered=39, missing=1)
    assert texts(audit(reported)) == ["ingest daemon ingest: 1 spool entries vanished"]


def test_a_report_waits_for_the_drain(reported: Settings, accountant: Accountant) -> None:
    """What Kafka holds and the drain has not taken is no loss: the report is stored once it is there."""
    feed = Feed(reported)
    feed.send(b"{}", sequence=41)
    feed.flush()
    accountant.says((1, 41, 41, 41))
    result = audit(reported)
    assert (result.ok, result.lag) == (True, 1)
    assert query(reported, "SELECT count(*) FROM mqtt_connection_report") == [(0,)]
    thread = threading.Thread(target=drain, args=(reported,))
    thread.start()
    result = run_audit(reported, wait_seconds=60)
    thread.join()
    assert (result.ok, result.lag, result.sequence_sums()["received"]) == (True, 0, 41)


def test_dead_letters_are_found(reported: Settings, accountant: Accountant) -> None:
    """Whole ones and ones in parts; a message of which a part is missing is lost. Each is imported once."""
    producer = Producer({**reported.kafka_config(), "log_level": 0})

    def letter(sequence: int, *parts: bytes) -> None:
        header = pack(QOS1, 0, RECEIVED_AT, 1, sequence, b"ingest")
        for part in parts or (b"",):
            headers: list[tuple[str, bytes]] = [(HEADER, header), (ERROR_HEADER, b"too large")]
            producer.produce(
                reported.kafka_dead_letter_topic, b"x" * 100, b"a/b", headers=[*headers, (PART_HEADER, part)] if part else headers
            )

    letter(41)
    letter(42, b"1/4", b"2/4", b"1/2", b"2/2", b"2/2")  # a first attempt that did not fit, and a repeated part
    letter(43, b"1/3", b"3/3")
    producer.produce(reported.kafka_dead_letter_topic, b"somebody else's")
    assert producer.flush(30) == 0
    accountant.says((1, 43, 43, 43), delivered=40, dead_lettered=3)
    for _ in range(2):
        result = audit(reported)
        assert texts(result) == ["connection 1 of ingest: sequence 43 is nowhere"]
        assert result.sequence_sums()["dead_lettered"] == 2
    rows = query(reported, "SELECT client_id, sequence, part, parts, topic, reason, payload_bytes FROM dead_letter ORDER BY kafka_offset")
    assert rows[0] == ("ingest", 41, 1, 1, "a/b", "too large", 100)
    assert rows[-1][:2] == (None, None)
    assert len(rows) == 9


def test_an_unreported_connection(settings: Settings) -> None:
    """Without a report only what is older than the in-flight window must be there: the rest may never have been acknowledged."""
    feed = Feed(settings)
    for number in range(1, 31):
        if number not in (4, 25):
            feed.send(b"{}", sequence=number)
    feed.flush()
    drain(settings)
    small = settings.model_copy(update={"ingest_in_flight_window": 10})
    assert texts(audit(small)) == ["connection 1 of ingest: sequence 4 is nowhere"]
    assert audit(settings).ok


def test_records_without_our_header_and_marked_repeats(settings: Settings) -> None:
    feed = Feed(settings)
    sent = feed.send(b'{"n":1}')
    feed.again(sent)
    feed.send(b'{"n":2}', header=False)
    feed.send(b'{"n":3}', packet=5)
    feed.send(b'{"n":3}', packet=5, connection=2, dup=True)
    feed.flush()
    drain(settings)
    result = audit(settings)
    assert texts(result) == []
    assert (result.sequence_sums()["stored"], result.sequence_sums()["duplicates"], result.connections[0].repeated) == (2, 1, 1)
    assert result.partitions[0].found == 5


def test_a_window_that_cuts_through_a_connection(reported: Settings, accountant: Accountant) -> None:
    """Partition 1 was drained far before partition 0: the holes of the window are filled by what was stored before."""
    feed = Feed(reported)
    for number in range(41, 61):
        feed.send(b"{}", partition=number % 2, sequence=number)
    feed.flush()
    drain(reported, partitions=(1,))
    for statement in (
        "UPDATE mqtt_connection SET first_seen_at = now() - interval '3 hours'",
        "WITH old AS (DELETE FROM message RETURNING *) INSERT INTO message SELECT old.received_at - interval '3 hours', kafka_offset,"
        " sequence, duplicate_of, source_id, kafka_partition, connection_id, packet_id, flags, time_source, payload FROM old",
        "UPDATE mqtt_connection_partition SET first_received_at = first_received_at - interval '3 hours'",
    ):
        query(reported, statement)
    backdate_ledger(reported, "2 hours")
    drain(reported, partitions=(0,))
    accountant.says((1, 60, 60, 60))
    result = audit(reported, everything=False)
    assert [item.text for item in result.differences if item.kind != "accounting"] == []  # whose hours were not moved
    assert [(row.partition, row.from_offset) for row in result.partitions] == [(0, 20)]
    query(reported, "DELETE FROM message WHERE sequence IN (47, 50, 60)")
    assert "connection 1 of ingest: sequence 47, 50, 60 are nowhere" in texts(audit(reported, everything=False))


def test_transaction_markers_are_no_loss(reported: Settings) -> None:
    producer = Producer({**reported.kafka_config(), "transactional.id": "audit", "log_level": 0})
    producer.init_transactions(30)
    for _ in range(3):
        producer.begin_transaction()
        producer.produce(reported.kafka_topic, b"{}", partition=0)
        producer.commit_transaction(30)
    drain(reported)
    assert query(reported, "SELECT sum(empty_offsets) FROM ledger") == [(3,)]
    assert texts(audit(reported)) == []
    query(reported, "DELETE FROM quarantine WHERE kafka_partition = 0 AND kafka_offset = 22")
    assert any(text.startswith("partition 0 offset 2") and "no table" in text for text in texts(audit(reported)))


def test_a_topic_made_anew_and_an_accepted_loss(reported: Settings, accountant: Accountant) -> None:
    """Offsets begin again: the same partition and offset twice, one row for each topic. What was accepted is shown, and no difference."""
    assert audit(reported).ok
    with AdminClient(reported.kafka_config()) as admin:
        admin.delete_topics([reported.kafka_topic])[reported.kafka_topic].result(30)
        eventually(lambda: reported.kafka_topic not in admin.list_topics(timeout=10).topics, pause=0.1)
    ensure_topics(reported)
    result = audit(reported)
    assert result.ok
    assert "iot offsets accept" in result.doubts[0]
    accept(reported)
    feed = Feed(reported)
    for number in range(41, 61):
        feed.send(b"{}", partition=number % 2, sequence=number)
    feed.flush()
    drain(reported)
    accountant.says((1, 60, 60, 60))
    result = audit(reported)
    assert texts(result) == []
    assert [item.partition for item in result.accepted] == [0, 1]
    found = [(row.partition, row.generation, row.expected, row.found) for row in result.partitions]
    assert found == [(0, 0, 20, 20), (0, 1, 10, 10), (1, 0, 20, 20), (1, 1, 10, 10)]
    query(reported, "DELETE FROM message WHERE sequence = 42")
    assert "partition 0 generation 1 offset 0 is in no table" in texts(audit(reported))


def accept(settings: Settings) -> None:
    """As `iot offsets accept` for all partitions."""
    from iot_platform.database import connect

    connection = connect(settings)
    with TopicOffsets(settings) as topic:
        identity, watermarks = topic.look()
    for row in offsets.read(connection, identity.topic).values():
        offsets.accept(connection, identity, row, watermarks[row.partition], "test")
    connection.close()
