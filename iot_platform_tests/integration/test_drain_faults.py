"""Exactly once whatever breaks: kill -9 at every point, two drains at once, cut connections, Kafka topics that change under us."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic
from typer.testing import CliRunner

from iot_platform.cli.main import app
from iot_platform.drills.rig.wire import Point
from iot_platform.kafka.errors import TopicMissingError
from iot_platform.settings import Settings
from iot_platform.telemetry.drain import batch_counts, stage
from iot_platform.telemetry.drain.drain import Drain, Progress, Shift
from iot_platform.telemetry.errors import DataGoneError, TopicRecreatedError
from iot_platform_tests.support.children.drain import CLAIM, COMMAND
from iot_platform_tests.support.children.killer import Killer
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, check_books, delete_records, drain, kafka_admin, query
from iot_platform_tests.support.servers.stack import Servers

COUNT = 6000


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


def fill(feed: Feed, count: int = COUNT, first: int = 0) -> None:
    """Messages with three values each, a few broken or repeated, over both partitions."""
    rng = random.Random(first)
    base = time.time_ns() // 1_000_000 - 600_000
    for number in range(first, first + count):
        payload = json.dumps({"ts": base + number // 20, "n": number, "t": f"text {number}", "ok": number % 2 == 0}).encode()
        feed.send(payload if rng.random() > 0.02 else b"broken", partition=number % 2, topic=f"{TOPIC}/device-{number % 20}")
    feed.flush()


def check_complete(settings: Settings, count: int = COUNT) -> None:
    """Everything that `fill` sent is there, once."""
    check_books(settings)
    records = query(settings, "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM quarantine)")
    assert records == [(count,)]
    good = query(settings, "SELECT count(*) FROM message")[0][0]
    assert query(settings, "SELECT count(*) FROM measurement") == [(3 * good,)]


def small_batches(settings: Settings) -> Settings:
    return settings.model_copy(update={"drain_batch_records": 200})


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("at_statement", id="before_claim"),
        pytest.param("statement_answered", id="after_claim"),
        pytest.param("before_commit", id="after_rows"),
        pytest.param("in_commit", id="during_commit"),
        pytest.param("answer_lost", id="after_commit"),
    ],
)
def test_kill_at_any_point(settings: Settings, feed: Feed, killer: Killer, point: Point) -> None:
    fill(feed)
    for number in (1, 4, 9):
        killer.kill(COMMAND, small_batches(settings), point, CLAIM, number)
    drain(settings)
    check_complete(settings)


def test_two_drains_of_the_same_partitions(settings: Settings, feed: Feed) -> None:
    fill(feed)
    results: list[Progress | BaseException] = []

    def run(name: str) -> None:
        try:
            results.append(Drain(small_batches(settings), Shift((0, 1), name, until_caught_up=True)).run())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(f"twin {number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert all(isinstance(result, Progress) for result in results), results
    drain(settings)  # one may have given way and the other ended at the marks it saw
    check_complete(settings)
    counted = sum(result.messages for result in results if isinstance(result, Progress))
    assert counted == query(settings, "SELECT sum(messages + quarantined) FROM ledger WHERE run_id LIKE 'twin%%'")[0][0]


@pytest.fixture
def cut(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], None]]:
    """Arms pg_terminate_backend against the writing session when it reaches a point for the n-th time."""
    copy, write = stage.copy, batch_counts.write
    left: dict[str, int] = {}

    def reached(point: str, cursor: object) -> None:
        left[point] = left.get(point, 0) - 1
        if left[point] == 0:
            pid = cursor.connection.info.backend_pid  # type: ignore[attr-defined]
            query(settings, "SELECT pg_terminate_backend(%s, 5000)", pid)

    def copy_point(cursor: object, text: str, pieces: list[bytes]) -> None:
        if text.startswith("COPY measurement"):
            reached("copy", cursor)
        copy(cursor, text, pieces)  # type: ignore[arg-type]

    def write_point(cursor: object, *arguments: object) -> None:
        write(cursor, *arguments)  # type: ignore[arg-type]
        reached("commit", cursor)

    monkeypatch.setattr(stage, "copy", copy_point)
    monkeypatch.setattr(batch_counts, "write", write_point)
    yield left.__setitem__
    assert left
    assert all(value <= 0 for value in left.values()), "the cut was never reached"


@pytest.mark.parametrize("point", ["copy", "commit"])
def test_cut_connection(settings: Settings, feed: Feed, cut: Callable[[str, int], None], point: str) -> None:
    fill(feed)
    cut(point, 5)
    progress = drain(small_batches(settings), run_id="cut")
    assert progress.retries == 1
    assert progress.messages == COUNT
    check_complete(settings)


def test_connections_that_keep_breaking(settings: Settings, feed: Feed) -> None:
    """Every drain session is terminated again and again, wherever it is: connecting, looking up names, copying, committing."""
    fill(feed)
    done = threading.Event()

    def terminate() -> None:
        rng = random.Random(3)
        while not done.wait(rng.uniform(0.01, 0.4)):
            query(settings, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'iot-drain%%'")

    thread = threading.Thread(target=terminate)
    thread.start()
    threading.Timer(8, done.set).start()
    try:
        progress = drain(small_batches(settings), run_id="chaos")
    finally:
        done.set()
        thread.join()
    assert progress.retries >= 1
    assert progress.messages == COUNT
    check_complete(settings)


@pytest.mark.parametrize("name", ["kafka", pytest.param("postgresql", marks=pytest.mark.apache_only("kills the server"))])
def test_a_server_that_dies_and_comes_back(settings: Settings, servers: Servers, feed: Feed, name: str) -> None:
    fill(feed)
    begun, stop, results = threading.Event(), threading.Event(), list[Progress]()

    def on_progress(progress: Progress) -> None:
        if progress.messages:
            begun.set()
        if progress.messages >= 2 * COUNT:
            stop.set()

    def run() -> None:
        slow = settings.model_copy(update={"drain_batch_records": 20, "drain_idle_seconds": 60.0, "drain_shift_seconds": 100.0})
        results.append(Drain(slow, Shift((0, 1), "survivor"), on_progress, stop).run())

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(60)
    pid = servers.supervisor.state(name).pid
    os.killpg(os.getpgid(pid), signal.SIGKILL)
    fill(feed, COUNT, first=COUNT)  # waits for Kafka
    thread.join(100)
    assert servers.supervisor.state(name).pid != pid
    assert [progress.messages for progress in results] == [2 * COUNT]
    check_complete(settings, 2 * COUNT)


def test_gaps_that_kafka_keeps_for_itself(settings: Settings) -> None:
    """Markers of Kafka transactions take offsets and are no messages: the drain passes them, at the end of the log too."""
    producer = Producer({**settings.kafka_config(), "transactional.id": "gaps", "log_level": 0})
    producer.init_transactions(30)
    for number in range(3):
        producer.begin_transaction()
        producer.produce(settings.kafka_topic, b'{"a":%d}' % number, TOPIC.encode(), 0)
        producer.commit_transaction(30)
    progress = drain(settings)
    assert (progress.ended, progress.partitions[0].to_offset, progress.messages) == ("caught_up", 6, 3)
    assert drain(settings).messages == 0
    assert query(settings, "SELECT kafka_offset FROM message ORDER BY 1") == [(0,), (2,), (4,)]


def test_an_answer_lost_after_the_commit_is_counted_once(settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """COMMIT succeeds, its answer does not arrive: the ledger tells, and the drain goes on behind it."""
    fill(feed)
    write, calls = batch_counts.write, [0]

    def commit_and_cut(cursor: object, *arguments: object) -> None:
        write(cursor, *arguments)  # type: ignore[arg-type]
        calls[0] += 1
        if calls[0] == 3:
            cursor.execute("COMMIT")  # type: ignore[attr-defined]
            query(settings, "SELECT pg_terminate_backend(%s, 5000)", cursor.connection.info.backend_pid)  # type: ignore[attr-defined]

    monkeypatch.setattr(batch_counts, "write", commit_and_cut)
    progress = drain(small_batches(settings), run_id="doubtful")
    assert progress.retries >= 1
    assert progress.messages == COUNT
    check_complete(settings)


def test_an_unknown_error_stops_loudly_and_loses_nothing(settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(feed)
    write, calls = batch_counts.write, [0]

    def fail_once(*arguments: object) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise ZeroDivisionError
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(batch_counts, "write", fail_once)
    with pytest.raises(ZeroDivisionError):
        drain(small_batches(settings))
    drain(settings)
    check_complete(settings)


def test_stop_ends_a_shift_soon_and_cleanly(settings: Settings, feed: Feed) -> None:
    fill(feed)
    stop = threading.Event()
    seen: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if progress.messages:  # on a busy machine not within the first second
            seen.append(progress)
            stop.set()

    slow = settings.model_copy(update={"drain_batch_records": 1})
    progress = Drain(slow, Shift((0, 1), "stopped"), on_progress, stop).run()
    assert progress.ended == "stopped"
    assert 0 < progress.messages < COUNT
    assert seen[0].changed_partitions
    drain(settings)
    check_complete(settings)


def test_an_idle_shift_ends_and_says_so(settings: Settings, feed: Feed) -> None:
    feed.send(b'{"a":1}')
    feed.flush()
    progress = Drain(settings.model_copy(update={"drain_idle_seconds": 1.0}), Shift((0, 1), "idle")).run()
    assert (progress.ended, progress.messages) == ("idle", 1)
    assert (progress.partitions[0].freshness_p50_seconds or 99) < 60


def iot(settings: Settings, *arguments: str, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> str:
    """Run an `iot` command on the test's settings."""
    monkeypatch.setattr("iot_platform.settings.get_settings", lambda: settings)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_data_that_kafka_deleted_is_an_error_until_accepted(settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(feed, 100)
    drain(settings)
    fill(feed, 100, first=100)
    delete_records(settings, 0, 80)
    with pytest.raises(DataGoneError, match=r"partition 0: offsets 50\.\.79.*iot offsets accept --partition 0$"):
        drain(settings)
    assert "30 messages gone" in iot(settings, "offsets", "show", monkeypatch=monkeypatch, code=1)
    assert "continues at offset 80" in iot(settings, "offsets", "accept", "--partition", "0", "--yes", monkeypatch=monkeypatch)
    assert "nothing to accept" in iot(settings, "offsets", "accept", "--partition", "0", "--yes", monkeypatch=monkeypatch)
    drain(settings)
    lost = query(settings, "SELECT kafka_partition, from_offset, to_offset FROM ledger WHERE kind = 'accepted_loss'")
    assert lost == [(0, 50, 80)]
    assert query(settings, "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM quarantine)") == [(170,)]


def test_a_recreated_topic_is_an_error_until_accepted(settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(feed, 100)
    drain(settings)
    with kafka_admin(settings) as client:
        client.delete_topics([settings.kafka_topic])[settings.kafka_topic].result(30)
        with pytest.raises(TopicMissingError, match="IOT_KAFKA_TOPIC"):
            drain_until_missing(settings)
        client.create_topics([NewTopic(settings.kafka_topic, 2)])[settings.kafka_topic].result(30)
    other = Feed(settings)
    fill(other, 300)
    with pytest.raises(TopicRecreatedError, match=r"iot offsets accept --partition 0 --partition 1$"):
        drain(settings)
    output = iot(settings, "offsets", "accept", "--partition", "0", "--partition", "1", "--yes", monkeypatch=monkeypatch)
    assert output.count("continues at offset 0") == 2
    drain(settings)
    assert query(settings, "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM quarantine)") == [(400,)]


def drain_until_missing(settings: Settings) -> None:
    """Deletion takes Kafka a moment."""
    for _ in range(50):
        drain(settings)
        time.sleep(0.1)


def test_a_partition_that_does_not_exist(settings: Settings) -> None:
    with pytest.raises(TopicMissingError, match="no partition 7"):
        drain(settings, (0, 7))
