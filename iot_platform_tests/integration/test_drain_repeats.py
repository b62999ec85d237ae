"""Records that Kafka holds twice under one connection number and sequence, as after a fatal error of the daemon's producer."""

import os
import random
import subprocess
import threading
from contextlib import suppress
from dataclasses import replace

import pytest

from iot_platform.drills.rig.wire import Point
from iot_platform.settings import Settings, exports
from iot_platform.telemetry.drain import batch_counts
from iot_platform.telemetry.drain.drain import Drain, Shift
from iot_platform.telemetry.errors import TransientError
from iot_platform_tests.support.children.drain import CLAIM, COMMAND
from iot_platform_tests.support.children.killer import Killer
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, Sent, check_books, drain, query


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


def marked(settings: Settings) -> list[tuple[int, int, int]]:
    """Kafka partition, offset and offset of the first copy of every marked record."""
    rows = query(
        settings,
        "SELECT kafka_partition, kafka_offset, duplicate_of FROM message WHERE duplicate_of IS NOT NULL UNION ALL"
        " SELECT kafka_partition, kafka_offset, duplicate_of FROM quarantine WHERE duplicate_of IS NOT NULL ORDER BY 1, 2",
    )
    return [(partition, offset, first) for partition, offset, first in rows]


def measured(settings: Settings, metric: str = "n") -> list[float]:
    return [row[0] for row in query(settings, "SELECT value FROM measurement_named WHERE metric = %s ORDER BY 1", metric)]


def test_repeats_in_one_batch(settings: Settings, feed: Feed) -> None:
    sent = [feed.send(payload, topic=topic) for payload, topic in ((b'{"n":0}', TOPIC), (b"broken", TOPIC), (None, None), (b"{}", b"\xff"))]
    for record in sent + sent[:2]:  # offsets 4..7 and, for the third time, 8 and 9
        feed.again(record)
    feed.send(b'{"n":0}')  # 10: the same bytes, another sequence
    feed.again(replace(sent[0], partition=1))  # another partition: not recognised
    feed.flush()
    progress = drain(settings)
    assert marked(settings) == [(0, 4, 0), (0, 5, 1), (0, 6, 2), (0, 7, 3), (0, 8, 0), (0, 9, 1)]
    assert progress.partitions[0].duplicates == 6
    assert sum(item.measurements + item.measurement_duplicates for item in progress.partitions.values()) == 3  # 0, 10, partition 1
    check_books(settings)


@pytest.mark.parametrize("other_process", [False, True])
def test_repeats_of_what_is_committed(settings: Settings, feed: Feed, other_process: bool) -> None:
    sent = [feed.send(payload) for payload in (b'{"n":0}', b"broken", b'{"n":2}')]
    feed.flush()
    if other_process:
        subprocess.run(COMMAND, env={**os.environ, **exports(settings)}, timeout=60, check=True)
        for record in sent:
            feed.again(record)
    else:  # the same writer, one record in a batch
        settings = settings.model_copy(update={"drain_batch_records": 1})
        for record in sent:
            feed.again(record)
    feed.again(sent[0])
    feed.send(b'{"n":7}')
    feed.flush()
    drain(settings)
    assert marked(settings) == [(0, 3, 0), (0, 4, 1), (0, 5, 2), (0, 6, 0)]
    assert measured(settings) == [0, 2, 7]
    feed.again(sent[2])
    feed.flush()
    drain(settings)
    assert marked(settings)[-1] == (0, 8, 2)
    check_books(settings)


@pytest.mark.parametrize("batch", [1, 100])
def test_repeats_and_redeliveries_point_to_the_same_first_copy(settings: Settings, feed: Feed, batch: int) -> None:
    first = feed.send(b'{"n":0}', packet=1)  # 0
    feed.again(first)  # 1 → 0
    dup = feed.send(b'{"n":0}', packet=1, connection=2, dup=True)  # 2 → 0, redelivered
    feed.again(dup)  # 3 → 0, by way of 2
    feed.send(b'{"n":0}', packet=1, connection=3, dup=True)  # 4 → 0
    alone = feed.send(b'{"n":5}', packet=9, connection=3, dup=True)  # 5: its first delivery never reached Kafka
    feed.again(alone)  # 6 → 5
    feed.flush()
    drain(settings.model_copy(update={"drain_batch_records": batch}))
    assert marked(settings) == [(0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 4, 0), (0, 6, 5)]
    assert measured(settings) == [0, 5]
    check_books(settings)


@pytest.mark.parametrize("batch", [1, 100])
def test_records_point_to_the_earlier_receipts_that_their_headers_name(settings: Settings, feed: Feed, batch: int) -> None:
    first = feed.send(b'{"n":0}', packet=1)  # 0
    bad = feed.send(b"broken", packet=2)  # 1
    lost = feed.send(b'{"n":0}', packet=3, lost=True)
    feed.send(b'{"n":0}', packet=7, connection=2, earlier=[first])  # 2 → 0: neither DUP nor the packet id
    feed.send(b"broken", packet=8, connection=2, earlier=[bad])  # 3 → 1
    feed.send(b'{"n":5}', packet=9, connection=2, earlier=[first])  # 4: other bytes
    feed.send(b'{"n":0}', topic=f"{TOPIC}/other", connection=2, earlier=[first])  # 5: another topic
    twice = feed.send(b'{"n":0}', packet=1, connection=3, dup=True, earlier=[lost, first])  # 6 → 0
    feed.send(b'{"n":0}', packet=1, connection=4, dup=True, earlier=[twice])  # 7 → 0, by way of 6
    feed.send(b'{"n":0}', packet=1, connection=4, dup=True, earlier=[], known=3)  # 8: the daemon knows better than its flag
    alone = feed.send(b'{"n":8}', packet=5, connection=4, earlier=[lost])  # 9: what came before never reached Kafka
    feed.again(alone)  # 10 → 9
    feed.send(b'{"n":0}', packet=1, connection=6, dup=True, earlier=[], known=3)  # 11 → 0: connection 4 is another daemon's
    feed.send(b'{"n":0}', packet=1, connection=6, client="other", earlier=[first])  # 12: another client
    feed.flush()
    drain(settings.model_copy(update={"drain_batch_records": batch}))
    expected = [(0, 2, 0), (0, 3, 1), (0, 6, 0), (0, 7, 0), (0, 10, 9), (0, 11, 0)]
    assert marked(settings) == expected
    assert measured(settings) == [0, 0, 0, 0, 5, 8]
    check_books(settings)


@pytest.mark.parametrize("batch", [1, 100])
def test_what_only_looks_like_a_repeat_is_not_marked(settings: Settings, feed: Feed, batch: int) -> None:
    sent = {number: feed.send(b'{"n":%d}' % number, sequence=number) for number in (1, 2, 5, 6)}
    feed.send(b'{"n":3}', sequence=3)  # overtaken
    late = feed.send(b"broken", sequence=4)  # overtaken, in quarantine
    feed.again(replace(sent[6], payload=b'{"m":6}'))  # other bytes
    feed.again(replace(sent[5], key=f"{TOPIC}/other".encode()))  # another topic
    feed.send(b'{"n":2}', sequence=2, connection=2)  # another connection
    feed.send(b'{"n":2}', sequence=2, client="other")  # another client
    feed.send(b'{"n":2}', header=False)
    feed.again(late)  # 11 → 5: an overtaken one can be written twice too
    feed.flush()
    drain(settings.model_copy(update={"drain_batch_records": batch}))
    assert marked(settings) == [(0, 11, 5)]
    assert measured(settings) == [1, 2, 2, 2, 2, 3, 5, 5, 6]
    assert measured(settings, "m") == [6]
    check_books(settings)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_a_redelivery_that_overtook_its_first_copy(settings: Settings, feed: Feed, batch: int) -> None:
    """Two daemons under one client id: the one that was thrown out writes what it had received after the other one was quicker."""
    feed.send(b'{"n":0}', packet=1, connection=1)  # 0
    feed.send(b'{"n":1}', packet=2, connection=2, dup=True)  # 1: sent again to the other daemon
    feed.send(b"broken", packet=3, connection=2, dup=True)  # 2
    feed.send(b'{"n":3}', packet=4, connection=2, dup=True)  # 3
    feed.send(b'{"n":9}', packet=9, connection=2)  # 4: not a redelivery
    late = feed.send(b'{"n":1}', packet=2, connection=1)  # 5 → 1
    feed.send(b"broken", packet=3, connection=1)  # 6 → 2
    feed.send(b'{"n":3}', packet=5, connection=1)  # 7: another packet
    feed.send(b'{"n":3}', packet=4, connection=1, client="other")  # 8: another client
    feed.send(b'{"n":9}', packet=9, connection=1)  # 9: the same bytes, published twice
    feed.again(late)  # 10 → 1, by way of 5
    feed.send(b'{"n":1}', packet=2, connection=3, dup=True)  # 11 → 1
    feed.send(b'{"n":3}', packet=4, connection=1, partition=1)  # another partition: not recognised
    feed.flush()
    drain(settings.model_copy(update={"drain_batch_records": batch}))
    assert marked(settings) == [(0, 5, 1), (0, 6, 2), (0, 10, 1), (0, 11, 1)]
    assert measured(settings) == [0, 1, 3, 3, 3, 3, 9, 9]
    check_books(settings)


def history(feed: Feed, seed: int, count: int = 1500) -> list[tuple[int, int, int]]:
    """Random records in both partitions with repeats near and far, overtaken and broken ones; returns what must be marked."""
    rng = random.Random(seed)
    sent: list[tuple[Sent, int]] = []  # and the first copy's offset
    waiting: list[int] = []
    ends = [0, 0]
    expected = []
    for number in range(1, count):
        if rng.random() < 0.02:
            waiting.append(number)
            continue
        if waiting and rng.random() < 0.02:
            number = waiting.pop()  # noqa: PLW2901
        partition = rng.randrange(2)
        payload = b'{"n":%d}' % number if rng.random() > 0.02 else b"broken"
        connection = 1 + number // 400
        sent.append((feed.send(payload, partition=partition, sequence=number, connection=connection), ends[partition]))
        ends[partition] += 1
        if rng.random() < 0.02:
            for record, first in sent[-rng.choice((1, 5, 50, 300)) :][:20]:
                feed.again(record)
                expected.append((record.partition, ends[record.partition], first))
                ends[record.partition] += 1
    feed.flush()
    return sorted(expected)


@pytest.mark.parametrize(
    ("point", "seed"), [pytest.param("before_commit", 10, id="after_rows"), pytest.param("answer_lost", 12, id="after_commit")]
)
def test_any_history_with_kills(settings: Settings, feed: Feed, killer: Killer, point: Point, seed: int) -> None:
    expected = history(feed, seed)
    small = settings.model_copy(update={"drain_batch_records": 50})
    for number in (2, 7):
        killer.kill(COMMAND, small, point, CLAIM, number)
    drain(small)
    assert marked(settings) == expected
    check_books(settings)


def test_any_history_with_two_drains_and_rollbacks(settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = history(feed, seed=1)
    small = settings.model_copy(update={"drain_batch_records": 50})
    write, lock, calls = batch_counts.write, threading.Lock(), [0]

    def write_and_cut(cursor: object, *arguments: object) -> None:
        write(cursor, *arguments)  # type: ignore[arg-type]
        with lock:
            calls[0] += 1
            cut = calls[0] % 9 == 0
        if cut:
            query(settings, "SELECT pg_terminate_backend(%s, 5000)", cursor.connection.info.backend_pid)  # type: ignore[attr-defined]

    monkeypatch.setattr(batch_counts, "write", write_and_cut)
    twins = [Drain(small, Shift((0, 1), f"twin {number}", until_caught_up=True)) for number in range(2)]

    def run(twin: Drain) -> None:
        with suppress(TransientError):  # cut just before the other one took the rest
            twin.run()

    threads = [threading.Thread(target=run, args=(twin,)) for twin in twins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    monkeypatch.setattr(batch_counts, "write", write)
    drain(small)
    assert calls[0] >= 9
    assert marked(settings) == expected
    check_books(settings)
