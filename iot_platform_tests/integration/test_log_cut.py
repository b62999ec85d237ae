"""A Kafka log that lost its end and grew again, or that an older copy replaced: every record becomes a row once, and it is said."""

import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from iot_platform.audit import run_audit
from iot_platform.audit.dead_letters import import_dead_letters
from iot_platform.cli.main import app
from iot_platform.database import connect
from iot_platform.quality import horizon
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.drain import Drain, Shift
from iot_platform.telemetry.drain.partition_state import Problem, look
from iot_platform.telemetry.errors import DataGoneError
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, delete_records, drain, query
from iot_platform_tests.support.servers.kafka_log_damage import KafkaDisk
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually

LEDGER = "SELECT kafka_partition, log_generation, from_offset, to_offset, leader_epoch FROM ledger WHERE kind = 'log_cut' ORDER BY 1, 2"
NUMBERS = (
    "SELECT (convert_from(payload, 'UTF8')::jsonb ->> 'n')::int, count(*) FROM message WHERE duplicate_of IS NULL GROUP BY 1 ORDER BY 1"
)


@pytest.fixture
def disk(servers: Servers, settings: Settings) -> KafkaDisk:
    return KafkaDisk(servers, settings)


def fill(settings: Settings, first: int, count: int, partition: int = 0) -> None:
    """Records {"n": first} … of the next connection, each in a batch of its own so that the log can be cut before any of them."""
    feed = Feed(settings)
    for number in range(first, first + count):
        feed.send(b'{"n": %d}' % number, partition=partition, connection=first + 1)
        feed.flush()


def numbers(settings: Settings) -> list[int]:
    """The messages that are stored, each once."""
    found = query(settings, NUMBERS)
    assert all(count == 1 for _, count in found), "stored twice without a mark"
    return [number for number, _ in found]


def iot(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr("iot_platform.settings.get_settings", lambda: settings)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "300"})
    return result.exit_code, result.output


def test_a_lost_end_that_grew_again(settings: Settings, disk: KafkaDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drained to 60, cut at 40, grown to 100: the 60 new records are rows, those that Kafka forgot stay, and all tools tell them apart."""
    fill(settings, 0, 60)
    drain(settings)
    assert disk.cut(0, at=40) == {0: 40}
    fill(settings, 1000, 60)
    code, shown = iot(settings, monkeypatch, "offsets", "show")
    assert code == 1
    assert "cut at 40" in shown
    progress = drain(settings)
    assert any("parts at offset 40" in note for note in progress.notes)
    assert numbers(settings) == [*range(60), *range(1000, 1060)]
    assert query(settings, LEDGER) == [(0, 1, 40, 60, 0)]
    result = run_audit(settings, wait_seconds=10, proofs=("offsets", "accounting"))
    assert [item.text for item in result.differences] == []
    assert [(row.generation, row.from_offset, row.to_offset, row.found) for row in result.partitions] == [(0, 0, 60, 60), (1, 40, 100, 60)]
    assert [(cut.cut_at, cut.drained_to) for cut in result.cuts] == [(40, 60)]
    code, shown = iot(settings, monkeypatch, "offsets", "show")
    assert code == 0
    assert "parts at offset 40" in shown

    _, shown = iot(settings, monkeypatch, "trace", "--partition", "0", "--offset", "50", "--json")
    assert '"n": 1010' in shown.replace('\\"', '"')
    assert "--generation 0" in shown
    _, shown = iot(settings, monkeypatch, "trace", "--partition", "0", "--offset", "50", "--generation", "0", "--json")
    assert '"n": 50' in shown.replace('\\"', '"')
    assert "another record" in shown

    query(settings, "DELETE FROM message WHERE log_generation = 1 AND kafka_offset = 50")
    query(settings, "DELETE FROM message WHERE log_generation = 0 AND kafka_offset IN (10, 45)")
    result = run_audit(settings, wait_seconds=10, proofs=("offsets",))
    assert {item.place for item in result.differences} == {
        "partition 0 offset 10",
        "partition 0 offset 45",
        "partition 0 generation 1 offset 50",
    }
    code, shown = iot(settings, monkeypatch, "replay", "--partition", "0", "--offsets", "0:100")
    assert code == 1
    assert "Kafka's log was cut at 40" in shown
    assert numbers(settings) == [*(n for n in range(60) if n != 45), *range(1000, 1060)]
    assert query(settings, "SELECT log_generation FROM message WHERE kafka_offset = 10") == [(0,)]


def test_a_running_drain_goes_on_by_itself(settings: Settings, disk: KafkaDisk) -> None:
    fill(settings, 0, 30)
    own = settings.model_copy(update={"drain_idle_seconds": 300.0, "drain_shift_seconds": 300.0})
    stop = threading.Event()
    thread = threading.Thread(target=Drain(own, Shift((0, 1), "alive"), stop=stop).run)
    thread.start()
    try:
        eventually(lambda: query(settings, "SELECT count(*) FROM message") == [(30,)])
        disk.cut(0, at=20)
        fill(settings, 1000, 40)
        eventually(lambda: query(settings, "SELECT count(*) FROM message") == [(70,)], 60)
    finally:
        stop.set()
        thread.join()
    assert numbers(settings) == [*range(30), *range(1000, 1040)]
    assert [row[1:4] for row in query(settings, LEDGER)] == [(1, 20, 30)]


def test_a_log_that_grew_to_just_the_old_end_and_a_second_cut_below_the_first(settings: Settings, disk: KafkaDisk) -> None:
    fill(settings, 0, 30)
    drain(settings)
    disk.cut(0, at=20)
    fill(settings, 1000, 10)
    with closing(connect(settings)) as connection:
        states = look(settings, connection).partitions
    assert (states[0].lag, states[0].wants_run) == (0, 1), "nothing would look"
    drain(settings)
    with closing(connect(settings)) as connection:
        states = look(settings, connection).partitions
    assert states[0].wants_run == 0
    assert numbers(settings) == [*range(30), *range(1000, 1010)]
    disk.cut(0, at=10)
    with closing(connect(settings)) as connection:
        states = look(settings, connection).partitions
    assert (states[0].lag, states[0].problem) == (-20, Problem.LOG_CUT)
    fill(settings, 2000, 50)
    drain(settings)
    assert numbers(settings) == [*range(30), *range(1000, 1010), *range(2000, 2050)]
    assert [row[1:4] for row in query(settings, LEDGER)] == [(1, 20, 30), (2, 10, 30)]
    assert run_audit(settings, wait_seconds=10, proofs=("offsets", "accounting")).ok


def test_an_older_copy_of_the_disk(settings: Settings, disk: KafkaDisk, tmp_path: Path) -> None:
    """Its leader epochs are reused: only the record itself tells. Both partitions, one of which did not change since the copy."""
    fill(settings, 0, 20)
    fill(settings, 500, 10, partition=1)
    disk.copy(tmp_path / "copy", 0, 1)
    fill(settings, 100, 30)
    drain(settings)
    disk.restore(tmp_path / "copy", 0, 1)
    fill(settings, 1000, 40)
    drain(settings)
    assert numbers(settings) == [*range(20), *range(100, 130), *range(500, 510), *range(1000, 1040)]
    assert [row[:4] for row in query(settings, LEDGER)] == [(0, 1, 20, 50)]
    assert run_audit(settings, wait_seconds=10, proofs=("offsets", "accounting")).ok


def test_a_database_of_an_earlier_release(settings: Settings, disk: KafkaDisk) -> None:
    """No epoch, no digest: the record at next_offset - 1 is compared with its row, once."""
    forget = "UPDATE kafka_offset SET leader_epoch = NULL, verified_epoch = NULL, record_offset = NULL, record_sha256 = NULL"
    fill(settings, 0, 30)
    drain(settings)
    query(settings, forget)
    drain(settings)
    assert query(settings, "SELECT record_offset, leader_epoch FROM kafka_offset WHERE kafka_partition = 0") == [(29, 0)]
    query(settings, forget)
    disk.cut(0, at=12)
    fill(settings, 1000, 40)
    drain(settings)
    assert numbers(settings) == [*range(30), *range(1000, 1040)]
    assert [row[1:4] for row in query(settings, LEDGER)] == [(1, 12, 30)]


def test_what_is_sent_again_after_a_cut_is_marked(settings: Settings, disk: KafkaDisk) -> None:
    """The daemon writes what Kafka lost once more, header and all: the first copy is in the log that is gone."""
    feed = Feed(settings)
    sent = []
    for number in range(20):
        sent.append(feed.send(b'{"n": %d}' % number))
        feed.flush()
    drain(settings)
    disk.cut(0, at=5)
    again = Feed(settings)
    for item in sent[12:]:
        again.again(item)
    again.flush()
    drain(settings)
    assert numbers(settings) == list(range(20))
    marked = "SELECT log_generation, kafka_offset, duplicate_of, duplicate_of_generation FROM message WHERE duplicate_of IS NOT NULL"
    assert sorted(query(settings, marked)) == [(1, 5 + number, 12 + number, 0) for number in range(8)]


def test_nothing_is_known_any_more(settings: Settings, disk: KafkaDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and ledger are gone, the log is another one: a person decides, and what is stored already is recognised where it still is."""
    fill(settings, 0, 10)
    drain(settings)
    for table in ("message", "ledger", "accounting_1h"):
        query(settings, f"DELETE FROM {table}")
    query(settings, "UPDATE kafka_offset SET record_sha256 = sha256('x')")
    with pytest.raises(DataGoneError, match=r"iot offsets accept --partition 0 --from-beginning$"):
        drain(settings)
    code, shown = iot(settings, monkeypatch, "offsets", "accept", "--partition", "0", "--from-beginning", "--yes")
    assert code == 0
    assert "continues at offset 0" in shown
    drain(settings)
    assert numbers(settings) == list(range(10))


def test_records_deleted_below_the_last_drained_one(settings: Settings, disk: KafkaDisk) -> None:
    """Retention took the record that would be compared: the drain goes on all the same."""
    fill(settings, 0, 10)
    drain(settings)
    delete_records(settings, 0, 10)
    fill(settings, 100, 5)
    drain(settings)
    assert numbers(settings) == [*range(10), *range(100, 105)]
    assert query(settings, LEDGER) == []


def test_a_drain_until_caught_up_ends_after_a_cut(settings: Settings, disk: KafkaDisk) -> None:
    """What it was to reach in the old log is not there any more."""
    fill(settings, 0, 20)
    drain(settings)
    feed = Feed(settings)
    for _ in range(70):
        feed.send(bytes(900_000))  # all together more than a consumer fetches ahead
    feed.flush()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'iot-drain by hand%%' AND wait_event_type = 'Lock'"
    slow = settings.model_copy(update={"drain_batch_records": 5})
    thread = threading.Thread(target=Drain(slow, Shift((0, 1), "by hand", until_caught_up=True)).run)
    with closing(connect(settings)) as lock:
        with lock.cursor() as cursor:
            cursor.execute("SELECT 1 FROM kafka_offset FOR UPDATE")
        thread.start()
        eventually(lambda: query(settings, waits) == [(1,)])
        disk.cut(0, at=10)
        lock.rollback()
    thread.join(90)
    assert not thread.is_alive()
    ((next_offset, generation),) = query(settings, "SELECT next_offset, log_generation FROM kafka_offset WHERE kafka_partition = 0")
    assert (next_offset, generation) == (10, 1)
    assert numbers(settings) == list(range(20))


def test_a_cut_log_is_no_proof_that_devices_are_silent(settings: Settings, disk: KafkaDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka holds less than was drained: no lag, and yet nobody knows what has come since."""
    fill(settings, 0, 20)
    drain(settings)
    with closing(connect(settings)) as connection:
        assert horizon.find_horizon(settings, connection).live
        disk.cut(0, at=5)
        monkeypatch.setattr(horizon, "BEHIND", timedelta(0))
        found = horizon.find_horizon(settings, connection)
    assert not found.live
    assert "partition 0" in found.reason


def test_a_marker_at_the_end_is_no_cut(settings: Settings) -> None:
    """The offset before next_offset has no record: nothing was lost, however often a drain looks, and whatever it knows of the last one."""
    producer = Producer({**settings.kafka_config(), "transactional.id": f"marker-{settings.kafka_topic}", "log_level": 0})
    producer.init_transactions(30)
    for number in range(3):
        producer.begin_transaction()
        producer.produce(settings.kafka_topic, b'{"n": %d}' % number, TOPIC.encode(), 0)
        producer.commit_transaction(30)
    for forget in (False, True):
        for _ in range(2):
            drain(settings)
            if forget:
                query(settings, "UPDATE kafka_offset SET record_offset = NULL, record_sha256 = NULL, leader_epoch = NULL")
    assert query(settings, LEDGER) == []
    assert numbers(settings) == [0, 1, 2]


def test_a_dead_letter_topic_that_was_cut(settings: Settings, disk: KafkaDisk) -> None:
    dead = settings.model_copy(update={"kafka_topic": settings.kafka_dead_letter_topic})
    its_disk = KafkaDisk(disk.servers, dead)

    def letters(first: int, count: int) -> None:
        feed = Feed(dead)
        for number in range(first, first + count):
            feed.send(b"%d" % number, sequence=number)
            feed.flush()

    letters(1, 10)
    with closing(connect(settings)) as connection:
        assert import_dead_letters(settings, connection) == []
        its_disk.cut(0, at=6)
        letters(101, 3)
        (note,) = import_dead_letters(settings, connection)
        assert "parts at offset 6" in note
        assert import_dead_letters(settings, connection) == []
    assert query(settings, "SELECT sequence FROM dead_letter ORDER BY 1") == [(n,) for n in (*range(1, 11), 101, 102, 103)]
