"""A replay that is killed, cut off, stopped, doubled, or runs beside a live drain: each message is still there exactly once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from iot_platform.drills.rig.wire import Point
from iot_platform.settings import Settings, exports
from iot_platform.telemetry.drain.drain import Drain, Progress, Shift
from iot_platform.telemetry.replay import batch_counts
from iot_platform.telemetry.replay.replay import Replay, Selection, Tally
from iot_platform_tests.support.children.killer import Killer
from iot_platform_tests.support.children.replay import LOOK, TAKE
from iot_platform_tests.support.feeds.drain import Feed, check_books, drain, query
from iot_platform_tests.support.waiting import eventually

COUNT = 1200
REPLAY = [sys.executable, "-m", "iot_platform_tests.support.children.replay"]
PLANT = "plant/{tenant}/line/{project}/{device...}"


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


@pytest.fixture
def plant(settings: Settings, feed: Feed) -> Settings:
    """COUNT quarantined messages of two values each, every tenth of them older than its neighbour; and the settings that mend them."""
    send_plant(feed, 0, COUNT)
    drain(settings)
    assert query(settings, "SELECT count(*) FROM quarantine") == [(COUNT,)]
    return settings.model_copy(update={"topic_pattern": PLANT, "drain_batch_records": 100})


def send_plant(feed: Feed, first: int, last: int) -> None:
    base = time.time_ns() // 1_000_000 - 600_000
    for number in range(first, last):
        payload = json.dumps({"ts": base + number - (50 if number % 10 == 0 else 0), "n": number, "t": f"text {number}"}).encode()
        feed.send(payload, partition=number % 2, topic=f"plant/t{number % 3}/line/p/d{number % 4}/{number}")
    feed.flush()


def check_complete(settings: Settings, count: int = COUNT) -> None:
    check_books(settings)
    assert query(settings, "SELECT count(*) FROM message_named WHERE topic LIKE 'plant/%%'") == [(count,)]
    assert query(settings, "SELECT count(*) FROM quarantine") == [(0,)]
    assert query(settings, "SELECT count(*) FROM measurement_named WHERE tenant_id LIKE 't_'") == [(2 * count,)]
    moved = query(settings, "SELECT sum(messages), sum(quarantined), sum(measurements) FROM ledger WHERE kind = 'replay'")
    assert moved == [(count, -count, 2 * count)]


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
def test_kill_at_any_point(plant: Settings, killer: Killer, point: Point) -> None:
    for number in (1, 4):
        killer.kill(REPLAY, plant, point, TAKE, number)
    assert Replay(plant, Selection(quarantined=True)).run().ended == "done"
    check_complete(plant)


def test_kill_while_lost_offsets_are_restored(plant: Settings, killer: Killer) -> None:
    Replay(plant, Selection(quarantined=True)).run()
    before = query(plant, "SELECT m::text FROM message m ORDER BY 1")
    query(plant, "DELETE FROM message WHERE kafka_partition = 0 AND kafka_offset %% 2 = 0")
    smaller = plant.model_copy(update={"drain_batch_records": 50})
    points: tuple[Point, ...] = ("statement_answered", "in_commit", "answer_lost")
    for point in points:
        killer.kill([*REPLAY, "0", "600"], smaller, point, LOOK, 2)
    restored = query(plant, "SELECT count(*) FROM message WHERE kafka_partition = 0 AND kafka_offset %% 2 = 0")[0][0]
    assert 0 < restored < 300, "not killed while it restored"
    Replay(plant, Selection(partition=0, first=0, last=600)).run()
    assert query(plant, "SELECT m::text FROM message m ORDER BY 1") == before
    check_complete(plant)


def test_two_replays_at_once(plant: Settings) -> None:
    results: list[Tally | BaseException] = []

    def run(**selection: object) -> None:
        try:
            results.append(Replay(plant, Selection(**selection)).run())  # type: ignore[arg-type]
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run, kwargs=kwargs) for kwargs in ({"quarantined": True}, {}, {"quarantined": True})]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    tallies = [result for result in results if isinstance(result, Tally)]
    assert len(tallies) == 3, results
    assert sum(tally.moved for tally in tallies) == COUNT
    assert sum(tally.measurements for tally in tallies) == 2 * COUNT
    check_complete(plant)


def test_beside_a_live_drain(plant: Settings, feed: Feed) -> None:
    """The drain takes new messages of the same series and projects meanwhile, under rules that both share; neither gives up anything."""
    stop, seen, results = threading.Event(), threading.Event(), list[Progress]()
    live = plant.model_copy(update={"drain_batch_records": 50, "drain_idle_seconds": 60.0, "drain_shift_seconds": 120.0})

    def on_progress(progress: Progress) -> None:
        if progress.messages:
            seen.set()
        if progress.messages >= 2 * COUNT:
            stop.set()

    drainer = threading.Thread(target=lambda: results.append(Drain(live, Shift((0, 1), "live"), on_progress, stop).run()))
    feeder = threading.Thread(target=lambda: [send_plant(feed, COUNT + at, COUNT + at + 100) for at in range(0, 2 * COUNT, 100)])
    feeder.start()
    drainer.start()
    assert seen.wait(60)
    small = plant.model_copy(update={"drain_batch_records": 20})
    tally = Replay(small, Selection(quarantined=True)).run()
    feeder.join(60)
    drainer.join(120)
    assert tally.moved == COUNT
    assert [(progress.messages, progress.retries) for progress in results] == [(2 * COUNT, 0)]
    check_books(plant)
    assert query(plant, "SELECT count(*) FROM message") == [(3 * COUNT,)]
    stored = query(plant, "SELECT count(*) FROM measurement")[0][0]
    counted = query(plant, "SELECT sum(measurements + measurement_duplicates + measurement_conflicts), sum(measurements) FROM ledger")
    assert counted == [(6 * COUNT, stored)]


@pytest.mark.parametrize("answer_lost", [False, True])
def test_a_cut_connection_is_counted_once(plant: Settings, monkeypatch: pytest.MonkeyPatch, answer_lost: bool) -> None:
    """Cut before COMMIT: repeated. COMMIT succeeds and its answer is lost: the ledger tells."""
    write, calls = batch_counts.write, [0]

    def write_and_cut(cursor: object, *arguments: object) -> object:
        keys = write(cursor, *arguments)  # type: ignore[arg-type]
        calls[0] += 1
        if calls[0] in (1, 4):
            if answer_lost:
                cursor.execute("COMMIT")  # type: ignore[attr-defined]
            query(plant, "SELECT pg_terminate_backend(%s, 5000)", cursor.connection.info.backend_pid)  # type: ignore[attr-defined]
        return keys

    monkeypatch.setattr(batch_counts, "write", write_and_cut)
    told: list[str] = []
    tally = Replay(plant, Selection(quarantined=True), on_retry=told.append).run()
    assert (tally.moved, tally.read, tally.elsewhere) == (COUNT, COUNT, 0)
    assert len(told) == 1  # the other cut came after a commit: it just goes on
    check_complete(plant)


def test_an_unknown_error_stops_loudly(plant: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    before = query(plant, "SELECT q::text FROM quarantine q ORDER BY 1")
    with monkeypatch.context() as patched:
        patched.setattr(batch_counts, "write", fail)
        with pytest.raises(ZeroDivisionError):
            Replay(plant, Selection(quarantined=True)).run()
    assert query(plant, "SELECT q::text FROM quarantine q ORDER BY 1") == before
    Replay(plant, Selection(quarantined=True)).run()
    check_complete(plant)


def test_ctrl_c_ends_it_cleanly(plant: Settings) -> None:
    environment = {**os.environ, **exports(plant), "IOT_DRAIN_BATCH_RECORDS": "1"}
    command = [sys.executable, "-m", "iot_platform.cli.main", "replay", "--reason", "topic_mismatch", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: bool(query(plant, "SELECT FROM ledger WHERE kind = 'replay' LIMIT 1")), 60, "a first batch", pause=0.1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in errors) == (130, False), errors
    told = json.loads(output)
    assert told["ended"] == "stopped"
    assert query(plant, "SELECT sum(messages) FROM ledger WHERE kind = 'replay'") == [(told["moved"],)]
    assert 0 < told["moved"] < COUNT
    check_books(plant)
    Replay(plant, Selection(quarantined=True)).run()
    check_complete(plant)


def test_values_that_came_first_win(settings: Settings, feed: Feed) -> None:
    """A quarantined message comes home after later ones of its series were stored: what is there stays, the newest stays the latest."""
    wide = settings.model_copy(update={"time_window_past_seconds": 10**10, "time_window_future_seconds": 10**10})
    fixed = wide.model_copy(update={"topic_pattern": PLANT})
    for rules, milliseconds, value in ((wide, 5, 1), (fixed, 7, 2), (wide, 9, 3), (wide, 7, 4)):
        feed.send(b'{"ts": %d, "v": %d}' % (1_790_000_000_000 + milliseconds, value), topic="plant/t/line/p/d")
        feed.flush()
        drain(rules)
    tally = Replay(fixed, Selection(quarantined=True)).run()
    assert (tally.moved, tally.measurements, tally.measurement_conflicts) == (3, 2, 1)
    assert query(settings, "SELECT value FROM measurement_named ORDER BY time") == [(1.0,), (2.0,), (3.0,)]
    example = "SELECT conflict_example FROM accounting_1h WHERE conflict_example IS NOT NULL"
    ((found,),) = query(settings, example)
    assert (found["stored"], found["said"], found["kafka_offset"]) == ("2", "4", 3)
    check_books(settings)
