"""The drain alone, from a backlog in Kafka, against a bare binary COPY of the same rows into the same tables in the same run.

    python -m bench.drain --messages 300000 --rounds 3

Uses the servers of IOT_KAFKA_BOOTSTRAP_SERVERS and IOT_DATABASE_ADMIN_URL (a role that may create databases), by default those of
the local stack and there PostgreSQL's superuser; makes a topic and databases of its own and removes them. Prints messages/s,
measurements/s, the share of the bare COPY, CPU µs per message of the drain's process and of PostgreSQL (where that runs on this machine:
all that the server did meanwhile) and the process's peak resident memory.
"""

import argparse
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import psycopg2
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pydantic import SecretStr

from bench import processes
from ingest_daemon.envelope import HEADER, pack
from iot_platform.database import migrate
from iot_platform.local.passwords import Passwords
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.settings import Settings, exports, get_settings

PARTITIONS, DEVICES = 6, 600
Row = tuple[bytes, bytes]


def compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def topic(number: int) -> bytes:
    return f"mtic/msg/client/realtime/19681936313534464{number % 3:02d}/19681936910425866{number % 10:02d}/sensor-{number:05d}".encode()


def flat(rng: random.Random, number: int, millis: int) -> Row:
    """About 117 bytes, three numbers."""
    device = number % DEVICES
    document = {
        "timestamp": millis,
        "firmware_build": rng.randrange(10**12, 10**13),
        "temperature_celsius": round(rng.uniform(10, 60), 2),
        "humidity_percent": round(rng.uniform(10, 99), 2),
    }
    return topic(device), compact(document)


def mix(rng: random.Random, number: int, millis: int) -> Row:
    """Strings, booleans, a nested object, ISO times; one in ten is a list of points."""
    device = number % DEVICES
    if rng.random() < 0.1:
        points = [{"metric": f"channel{n}", "value": round(rng.uniform(0, 400), 3), "ts": millis - n} for n in range(rng.randrange(3, 9))]
        return topic(device), compact(points if rng.random() < 0.5 else {"ts": millis, "points": points, "rssi": -rng.randrange(40, 90)})
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millis // 1000)) + f".{millis % 1000:03d}Z"
    document: dict[str, Any] = {
        "timestamp": timestamp,
        "temp": round(rng.uniform(-20, 60), 2),
        "running": rng.random() < 0.9,
        "mode": rng.choice(["auto", "manual", "停机"]),
        "battery": {"level": rng.randrange(101), "volts": round(rng.uniform(3, 4.2), 3)},
    }
    return topic(device), compact(document)


def produce(settings: Settings, make: Callable[[random.Random, int, int], Row], count: int) -> float:
    """Fill the topic; returns the mean payload size."""
    producer = Producer({**settings.kafka_config(), "linger.ms": 50, "queue.buffering.max.messages": 200_000, "log_level": 3})
    rng, size = random.Random(1), 0
    now_ms = time.time_ns() // 1_000_000
    for number in range(count):
        key, payload = make(rng, number, now_ms - 1_800_000 + number * 1_500_000 // count)
        size += len(payload)
        header = pack(0x32, number % 65535, time.time_ns() // 1000, 1, number + 1, b"bench")
        while True:
            try:
                producer.produce(settings.kafka_topic, payload, key, headers=[(HEADER, header)])
                break
            except BufferError:
                producer.poll(0.05)
        if number % 1000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0
    return size / count


def superuser_url(settings: Settings) -> str:
    """The admin's URL if that role may create databases, else that of the local stack's superuser. Exits if there is neither."""
    admin = psycopg2.connect(settings.admin_url)
    try:
        with admin.cursor() as cursor:
            cursor.execute("SELECT rolsuper OR rolcreatedb, current_user FROM pg_roles WHERE rolname = current_user")
            may, role = cast("tuple[bool, str]", cursor.fetchone())
    finally:
        admin.close()
    if may:
        return settings.admin_url
    passwords = settings.local_dir / "data" / "passwords.json"
    local = PostgresqlServer(settings.local_dir, settings.cache_dir, settings.postgres_port, Passwords.load(passwords))
    if not passwords.exists() or urlsplit(settings.admin_url).port != local.port:
        raise SystemExit(f"IOT_DATABASE_ADMIN_URL: role {role} may not create databases; name one that may")
    return local.url("postgres")


@contextmanager
def database(settings: Settings, name: str) -> Iterator[Settings]:
    """A fresh, migrated database for the block."""
    superuser = superuser_url(settings)
    admin = psycopg2.connect(superuser)
    admin.autocommit = True
    admin.cursor().execute(f"CREATE DATABASE {name}")
    try:
        url = SecretStr(urlsplit(superuser)._replace(path=f"/{name}").geturl())
        own = settings.model_copy(update={"database_url": url, "database_admin_url": url, "database_reader_url": url})
        migrate(own)
        admin.cursor().execute("CHECKPOINT")
        yield own
    finally:
        admin.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")
        admin.close()


def keep_copies(capture: Path) -> None:
    """From now on every COPY stream that this process writes into the platform's tables is appended to a file, for `read_capture`."""
    from iot_platform.database.copy_binary import HEADER as COPY_HEADER
    from iot_platform.database.copy_binary import TRAILER
    from iot_platform.telemetry.drain import stage, writer

    lock, original = threading.Lock(), stage.copy

    def keep(cursor: Any, query: str, pieces: list[bytes]) -> None:
        if "pg_temp" not in query:
            data = b"".join((COPY_HEADER, *pieces, TRAILER))
            with lock, capture.open("ab") as out:
                out.write(json.dumps([threading.current_thread().name, query, len(data)]).encode() + b"\n" + data)
        original(cursor, query, pieces)

    stage.copy = writer.copy = keep  # type: ignore[attr-defined]


def peak_resident_mb() -> float:
    """Of this process, MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmHWM"].split()[0]) / 1024


def worker(capture: str | None) -> None:
    """The process under test: drain all partitions once; with a file to capture into, keep every COPY stream in it."""
    from iot_platform.telemetry.drain.drain import Drain, Shift

    if capture:
        keep_copies(Path(capture))
    settings = get_settings()
    started, cpu = time.perf_counter(), time.process_time()
    progress = Drain(settings, Shift(tuple(range(PARTITIONS)), "bench", until_caught_up=True)).run()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    result = {
        "messages": progress.messages,
        "measurements": sum(item.measurements for item in progress.partitions.values()),
        "duplicates": sum(item.measurement_duplicates for item in progress.partitions.values()),
        "seconds": seconds,
        "cpu": cpu,
        "resident_mb": peak_resident_mb(),
        "faults": resource.getrusage(resource.RUSAGE_SELF).ru_majflt,
    }
    print(json.dumps(result))


def drain(settings: Settings, capture: Path | None = None) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.drain", "--worker", *([str(capture)] if capture else [])]
    before = postgresql_cpu(settings)
    done = subprocess.run(command, env={**os.environ, **exports(settings)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"postgresql_cpu": postgresql_cpu(settings) - before}


def postgresql_cpu(settings: Settings) -> float:
    """CPU seconds that the whole server has used; 0 for one that does not run on this machine."""
    connection = psycopg2.connect(settings.admin_url)
    try:
        return processes.server_cpu(connection.info.backend_pid, "postgres")
    finally:
        connection.close()


Batches = dict[str, list[list[tuple[str, bytes]]]]


def read_capture(path: Path) -> Batches:
    """Lane → batches → (query, stream)."""
    lanes: Batches = {}
    with path.open("rb") as file:
        while line := file.readline():
            lane, query, size = json.loads(line)
            batches = lanes.setdefault(lane, [])
            if query.lstrip().startswith("COPY message") or not batches:
                batches.append([])
            batches[-1].append((query, file.read(size)))
    return lanes


def bare_copy(settings: Settings, lanes: Batches, together: bool) -> float:
    """Seconds to COPY the captured streams, a transaction per batch: over one connection, or one per lane at once."""

    def run(batches: list[list[tuple[str, bytes]]]) -> None:
        connection = psycopg2.connect(settings.admin_url)
        for batch in batches:
            with connection.cursor() as cursor:
                for query, data in batch:
                    cursor.copy_expert(query, io.BytesIO(data), size=8 * 1024 * 1024)
            connection.commit()
        connection.close()

    work = list(lanes.values()) if together else [[batch for batches in lanes.values() for batch in batches]]
    threads = [threading.Thread(target=run, args=(batches,)) for batches in work]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def measure(settings: Settings, name: str, make: Callable[[random.Random, int, int], Row], count: int, rounds: int) -> None:
    own = settings.model_copy(update={"kafka_topic": f"bench-drain-{name}-{os.getpid()}"})
    with AdminClient({**settings.kafka_config(), "log_level": 3}) as admin:
        new = NewTopic(own.kafka_topic, PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})
        admin.create_topics([new])[own.kafka_topic].result(30)
        capture = Path(f"/tmp/bench-drain-{os.getpid()}.capture")  # noqa: S108 - removed below
        try:
            size = produce(own, make, count)
            with database(own, f"bench_{os.getpid()}") as target:
                drain(target, capture)
            lanes = read_capture(capture)
            results, ratios, bare = [], [], []
            for number in range(rounds):
                with database(own, f"bench_{os.getpid()}_{number}") as target:
                    results.append(drain(target))
                with database(own, f"bench_{os.getpid()}_{number}b") as target:
                    one = bare_copy(target, lanes, together=False)
                with database(own, f"bench_{os.getpid()}_{number}c") as target:
                    several = bare_copy(target, lanes, together=True)
                bare.append((count / one, count / several))
                ratios.append(one / results[-1]["seconds"])
                took = {"drain": results[-1]["seconds"], "bare": one, "bare in lanes": several}
                print(f"  round {number + 1}: " + ", ".join(f"{what} {count / seconds:,.0f}/s" for what, seconds in took.items()))
        finally:
            capture.unlink(missing_ok=True)
            admin.delete_topics([own.kafka_topic])[own.kafka_topic].result(30)
    assert all(result["messages"] == count for result in results)
    seconds = statistics.median(result["seconds"] for result in results)
    print(
        f"{name}: {count:,} messages of {size:.0f} B, {results[0]['measurements'] / count:.2f} measurements each,"
        f" {results[0]['duplicates']} repeated:"
        f" {count / seconds:,.0f} messages/s, {results[0]['measurements'] / seconds:,.0f} measurements/s,"
        f" {statistics.median(ratios):.2f} of a bare COPY ({statistics.median(item[0] for item in bare):,.0f}/s;"
        f" {statistics.median(item[1] for item in bare):,.0f}/s over a connection per lane),"
        f" {statistics.median(result['cpu'] for result in results) / count * 1e6:.1f} µs CPU per message"
        f" and {statistics.median(result['postgresql_cpu'] for result in results) / count * 1e6:.1f} in PostgreSQL,"
        f" {max(result['resident_mb'] for result in results):.0f} MB resident"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=["flat", "mix", "both"], default="both")
    parser.add_argument("--worker", nargs="?", const="", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        return worker(arguments.worker or None)
    settings = get_settings()
    for name, make in (("flat", flat), ("mix", mix)):
        if arguments.kind in (name, "both"):
            measure(settings, name, make, arguments.messages, arguments.rounds)
    return None


if __name__ == "__main__":
    main()
