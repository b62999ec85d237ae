"""Freshness of a drain that keeps up with live messages: alone, and while rollups, retention, quality, compression and an audit all run."""

import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

from confluent_kafka import Producer

from bench.drain import flat
from bench.end_to_end import FRESHNESS
from ingest_daemon.envelope import HEADER, pack
from iot_platform.database import connect
from iot_platform.settings import Settings, exports

POOLS = ((("rollup",), ("retention", "88")), (("quality",),), (("compression",),), (("audit_hour",),))
"""What Dagster runs at the same time: of each pool one run at a time."""
START_SECONDS, PAUSE_SECONDS = 10, 3
RATIO = 2.0
Row = tuple[str, str, str]


def measure_live(settings: Settings, rate: int, seconds: int) -> list[Row]:
    """Rows of a table: percentiles of (commit - receipt) of both phases, and their ratio."""
    own = settings.model_copy(update={"drain_shift_seconds": 3600.0, "drain_idle_seconds": 3600.0})
    with _process([sys.executable, "-c", _DRAIN], own) as drain:
        time.sleep(START_SECONDS)
        idle = _phase(own, rate, seconds)
        with _maintenance(own) as told:
            busy = _phase(own, rate, seconds)
        assert drain.poll() is None, "the drain ended early"
    ratio = busy[1] / idle[1]
    verdict = "within" if ratio <= RATIO else "**over**"
    names = ", ".join(f"{name} {count}×" for name, count in told.items())
    return [
        _row(f"{rate} messages/s, nothing else", idle),
        _row(f"{rate} messages/s, all maintenance at once", busy, f"; ended meanwhile: {names or 'none'}"),
        ("ratio of p95", f"{ratio:.2f}", f"{verdict} {RATIO:g}"),
    ]


_DRAIN = """
from iot_platform.settings import get_settings
from iot_platform.telemetry.drain.drain import Drain, Shift
settings = get_settings()
Drain(settings, Shift(tuple(range(settings.kafka_partitions)), "bench")).run()
"""


def _row(what: str, freshness: list[float], more: str = "") -> Row:
    p50, p95, p99, worst = freshness
    return (what, f"p95 {p95:.2f} s", f"p50 {p50:.2f}, p99 {p99:.2f}, max {worst:.2f} s{more}")


def _phase(settings: Settings, rate: int, seconds: int) -> list[float]:
    """Produce for so long, wait until everything is committed; p50, p95, p99, max."""
    since = datetime.now(UTC)
    produced = _produce(settings, rate, seconds)
    deadline = time.monotonic() + 120
    with closing(connect(settings, "reader")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            while True:
                cursor.execute("SELECT count(*) FROM message WHERE received_at >= %s", (since,))
                if (cursor.fetchone() or (0,))[0] >= produced:
                    break
                assert time.monotonic() < deadline, "the drain does not keep up"
                time.sleep(1)
            cursor.execute(FRESHNESS, {"since": since})
            found: list[float] = (cursor.fetchone() or ([],))[0]
    return found


def _produce(settings: Settings, rate: int, seconds: int) -> int:
    producer = Producer({**settings.kafka_config(), "linger.ms": 5, "log_level": 3})
    rng, begun, count = random.Random(time.time_ns()), time.monotonic(), 0
    connection = time.time_ns() // 1_000_000
    while (elapsed := time.monotonic() - begun) < seconds:
        while count < elapsed * rate:
            key, payload = flat(rng, count, time.time_ns() // 1_000_000)
            header = pack(0x32, count % 65_535, time.time_ns() // 1000, connection, count + 1, b"bench")
            producer.produce(settings.kafka_topic, payload, key, headers=[(HEADER, header)])
            count += 1
        producer.poll(0.005)
    assert producer.flush(60) == 0
    return count


@contextmanager
def _process(command: list[str], settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env={**os.environ, **exports(settings)}, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def _maintenance(settings: Settings) -> Iterator[dict[str, int]]:
    """Everything over and over, a loop for each pool; whatever is at work at the end is killed, which it must stand."""
    over, told, running = threading.Event(), dict[str, int](), set[subprocess.Popen[bytes]]()

    def loop(*bodies: tuple[str, ...]) -> None:
        for name, *arguments in itertools.cycle(bodies):
            if over.wait(PAUSE_SECONDS):
                return
            command = [sys.executable, "-m", "bench.lifecycle_work", name, *arguments]
            process = subprocess.Popen(command, env={**os.environ, **exports(settings)}, stdout=subprocess.DEVNULL)
            running.add(process)
            process.wait()
            running.discard(process)
            if not over.is_set():
                assert process.returncode == 0, f"{name} failed beside the drain"
                told[name] = told.get(name, 0) + 1

    threads = [threading.Thread(target=loop, args=bodies) for bodies in POOLS]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        over.set()
        for process in list(running):
            process.kill()
        for thread in threads:
            thread.join(30)
