"""Every message without a time of its own keeps its readings: whatever times were given, whoever dies, however often it is decoded."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from iot_platform.drills.rig.wire import Point
from iot_platform.settings import Settings
from iot_platform.telemetry.replay.replay import Replay, Selection, Tally
from iot_platform_tests.support.children.drain import CLAIM, COMMAND
from iot_platform_tests.support.children.killer import Killer
from iot_platform_tests.support.feeds.drain import Feed, check_books, drain, query
from iot_platform_tests.support.servers.ingest import publish, read_all, records_held
from iot_platform_tests.support.servers.stack import Ingest
from iot_platform_tests.support.waiting import eventually

READINGS = """
SELECT metric, device_id, (extract(epoch FROM time) * 1000000)::bigint, value, value_text, flags FROM measurement_named ORDER BY 1, 2, 3"""
SHIFTS = "SELECT kafka_partition, kafka_offset, time_shift_us FROM message ORDER BY 1, 2"


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


def now_us() -> int:
    return time.time_ns() // 1000


def small(settings: Settings, records: int = 40) -> Settings:
    return settings.model_copy(update={"drain_batch_records": records})


def replay(settings: Settings, **selection: Any) -> Tally:
    return Replay(settings, Selection(**selection)).run()


def check_each_has_one(settings: Settings, count: int) -> None:
    """So many messages, as many measurements; each where its message says; decoding them again changes nothing."""
    assert query(settings, "SELECT count(*) FROM measurement") == [(count,)]
    stands = """
        SELECT count(*) FROM message m JOIN source s USING (source_id) JOIN series r USING (tenant_id, project_id)
        JOIN measurement v ON v.series_id = r.series_id
            AND v.time = m.received_at + coalesce(m.time_shift_us, 0) * interval '1 microsecond'
        WHERE m.duplicate_of IS NULL AND convert_from(m.payload, 'UTF8')::jsonb ->> r.metric = v.value::text"""
    assert query(settings, stands) == [(count,)]
    assert query(settings, "SELECT count(*) FROM measurement WHERE flags = 1") == query(
        settings, "SELECT count(*) FROM message WHERE time_shift_us > 0"
    )
    before = query(settings, READINGS)
    again = replay(settings)
    assert (again.measurements, again.measurement_conflicts) == (0, 0)
    assert query(settings, READINGS) == before
    check_books(settings)


@pytest.mark.parametrize("batch", [1, 40, 20_000])
def test_equal_times_of_two_daemons(settings: Settings, feed: Feed, batch: int) -> None:
    """A shared subscription: both gave the same microsecond, to equal values too; now and then a time lies before others."""
    begin, count = now_us() - 60_000_000, 60 if batch == 1 else 600
    for number in range(count):
        for client in ("a", "b"):
            feed.send(b'{"n":%d}' % (number // 3), client=client, at=begin + number // 10 - (number % 50 == 0) * 5)
    feed.flush()
    drain(small(settings, batch))
    check_each_has_one(settings, 2 * count)
    times = [row[2] for row in query(settings, READINGS)]
    assert times[-1] - times[0] < 2 * count + 10  # they stand side by side


def test_a_clock_set_back_over_what_is_stored(settings: Settings, feed: Feed) -> None:
    begin = now_us() - 60_000_000
    for _ in range(4):
        for number in range(100):
            feed.send(b'{"n":%d}' % number, at=begin + number)
        feed.flush()
        drain(small(settings, 30))
    check_each_has_one(settings, 400)


def test_a_message_moves_as_a_whole(settings: Settings, feed: Feed) -> None:
    """Its values stay together, also where only one of them is in the way; one with a time of its own never moves."""
    at = now_us() - 60_000_000
    feed.send(b'{"a":1}', at=at)
    feed.send(b'{"a":2,"b":2,"c":2}', at=at)
    feed.send(b'{"c":3}', at=at)
    feed.send(b'{"a":4,"c":4}', at=at)
    feed.send(json.dumps({"ts": at, "b": 5}).encode(), at=at)
    feed.send(b'{"b":6}', at=at)
    feed.flush()
    drain(settings)
    stands = {(metric, time - at): (value, flags) for metric, _, time, value, _, flags in query(settings, READINGS)}
    assert stands == {
        ("a", 0): (1, None),
        ("a", 1): (2, 1),
        ("b", 1): (2, 1),
        ("c", 1): (2, 1),
        ("c", 0): (3, None),
        ("a", 2): (4, 1),
        ("c", 2): (4, 1),
        ("b", 0): (5, None),
        ("b", 2): (6, 1),
    }
    assert query(settings, SHIFTS) == [(0, 0, None), (0, 1, 1), (0, 2, None), (0, 3, 2), (0, 4, None), (0, 5, 2)]
    before = query(settings, READINGS)
    for victim in ("a", "b", "c"):  # what is missing comes back to where it stood
        query(settings, "DELETE FROM measurement WHERE series_id IN (SELECT series_id FROM series WHERE metric = %s)", victim)
        assert replay(settings).measurements == sum(row[0] == victim for row in before)
        assert query(settings, READINGS) == before


def test_two_lanes_on_one_series_at_the_same_times(settings: Settings, feed: Feed) -> None:
    begin = now_us() - 60_000_000
    for number in range(6_000):
        feed.send(b'{"n":%d}' % (number % 7), partition=number % 2, client="ab"[number % 2], at=begin + number // 20)
    feed.flush()
    progress = drain(small(settings, 100))
    assert sum(item.measurements for item in progress.partitions.values()) == 6_000
    check_each_has_one(settings, 6_000)


@pytest.mark.parametrize("point", ["in_copy", "before_commit", "answer_lost"])
def test_a_killed_drain_leaves_no_second_reading(settings: Settings, feed: Feed, killer: Killer, point: Point) -> None:
    begin = now_us() - 60_000_000
    for number in range(300):
        feed.send(b'{"n":%d}' % (number % 5), partition=number % 2, client="ab"[number % 2], at=begin + number // 50)
    feed.flush()
    killer.kill(COMMAND, small(settings), point, "COPY measurement" if point == "in_copy" else CLAIM, 3)
    drain(small(settings))
    check_each_has_one(settings, 300)


def test_restored_messages_find_their_readings(settings: Settings, feed: Feed) -> None:
    """Their rows are gone, and with them what they were shifted by; the readings are there, or are not."""
    begin = now_us() - 60_000_000
    for number in range(40):
        feed.send(b'{"n":%d}' % (number % 4), client="ab"[number % 2], at=begin + number // 8)
    feed.flush()
    drain(settings)
    before, shifts = query(settings, READINGS), query(settings, SHIFTS)
    assert len(before) == 40
    query(settings, "DELETE FROM message")
    tally = replay(settings, partition=0, first=0, last=40)
    assert (tally.restored, tally.measurements) == (40, 0)
    assert query(settings, READINGS) == before
    check_books(settings)
    query(settings, "DELETE FROM message WHERE kafka_offset IN (3, 17, 18)")
    query(settings, "DELETE FROM measurement WHERE time = (SELECT max(time) FROM measurement)")
    assert replay(settings, partition=0, first=0, last=40).restored == 3
    replay(settings)
    assert [row[2:4] for row in query(settings, READINGS)] == [row[2:4] for row in before]
    assert len(query(settings, SHIFTS)) == len(shifts)


def test_quarantined_messages_get_a_place_when_they_leave(settings: Settings, feed: Feed) -> None:
    at = now_us() - 60_000_000
    other = "plant/t/line/p"
    for number in range(5):
        feed.send(b'{"n":%d}' % number, at=at, topic=other)
    feed.flush()
    drain(settings)
    fixed = settings.model_copy(update={"topic_pattern": "plant/{tenant}/line/{project}"})
    dry = Replay(fixed, Selection(quarantined=True), dry_run=True).run()
    assert (dry.moved, dry.measurements) == (5, 5)
    assert replay(fixed, quarantined=True).measurements == 5
    check_each_has_one(fixed, 5)


def test_without_our_header_and_redelivered(settings: Settings, feed: Feed) -> None:
    """Kafka's milliseconds are the receive times then. A marked copy has no reading, an unmarked one is a message."""
    for number in range(200):
        feed.send(b'{"n":%d}' % number, header=False)
    feed.send(b'{"n":-1}', packet=5)
    feed.send(b'{"n":-1}', packet=5, connection=2, dup=True)
    feed.send(b'{"n":-1}', packet=6, connection=2)
    feed.flush()
    drain(small(settings))
    assert query(settings, "SELECT count(duplicate_of) FROM message") == [(1,)]
    check_each_has_one(settings, 202)


def test_a_killed_daemon_goes_on_behind_its_last_stamp(tmp_path: Path) -> None:
    """SIGKILL right behind the store, while the clock stands still."""
    code = (
        "import os, signal, sys; from pathlib import Path; from ingest_daemon.receive_clock import ReceiveClock\n"
        "print(ReceiveClock(Path(sys.argv[1]), 'c', lambda: 1_700_000_000_000_000_000).take(1_000), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    first, second = (subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, check=False) for _ in range(2))
    assert first.returncode == second.returncode == -signal.SIGKILL
    assert int(second.stdout) == int(first.stdout) + 1_000 == 1_700_000_000_001_000


@pytest.mark.timeout(280)
@pytest.mark.parametrize("count", [100, 5_000, 100_000])
def test_a_burst_of_one_series_with_kills(settings: Settings, ingest: Ingest, killer: Killer, count: int) -> None:
    """Daemon and drain die in between; each message has its own time and its own reading."""
    root = f"mtic/{settings.kafka_topic}/client/realtime"
    own = {"mqtt_topic_filter": f"{root}/#", "topic_pattern": root + "/{tenant}/{project}"}
    settings = settings.model_copy(update=own)
    ingest.settings = settings
    ingest.start()
    kills = {count // 3, 2 * count // 3}
    broker, source = settings.mqtt_url.get_secret_value(), f"{root}/t/p"

    def burst(numbers: range) -> Iterator[tuple[str, bytes]]:
        for number in numbers:
            if number in kills:
                ingest.kill()
            yield source, b'{"count":%d}' % number

    for begin in range(0, count, 20_000):  # a publisher holds so many that are not acknowledged
        publish(broker, burst(range(begin, min(begin + 20_000, count))))
    ingest.await_ready()
    servers, topic = settings.kafka_bootstrap_servers, settings.kafka_topic
    eventually(lambda: records_held(servers, topic) >= count, 60)
    eventually(lambda: {json.loads(record.value)["count"] for record in read_all(servers, topic)} >= set(range(count)), 90)
    ingest.stop()  # no further copy comes
    records = read_all(servers, topic)
    stamps = [record.received_at_us for record in sorted(records, key=lambda record: (record.connection, record.sequence))]
    assert all(later > earlier for earlier, later in pairwise(stamps))
    killer.kill(COMMAND, small(settings, max(30, count // 20)), "before_commit", CLAIM, 2)
    drain(settings)
    messages, copies = query(settings, "SELECT count(*), count(duplicate_of) FROM message")[0]
    assert messages == len(records)
    assert query(settings, "SELECT count(*), count(DISTINCT value) FROM measurement") == [(messages - copies, count)]
    assert query(settings, "SELECT count(*) FROM message WHERE time_shift_us > 0") == [(0,)]
    check_books(settings)
