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
Maker = Callable[[random.Random, int, int], Row]
Result = dict[str, float]


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


def hostile() -> Maker:
    """The mix with 1 % that is cut off in its middle and 10 % that are the message before once more."""
    last: list[Row] = []

    def make(rng: random.Random, number: int, millis: int) -> Row:
        if last and rng.random() < 0.1:
            return last[0]
        key, payload = mix(rng, number, millis)
        if rng.random() < 0.01:
            return key, payload[: len(payload) // 2]
        last[:] = [(key, payload)]
        return key, payload

    return make


MIXES: dict[str, Callable[[], Maker]] = {"flat": lambda: flat, "mix": lambda: mix, "hostile": hostile}


def produce(settings: Settings, make: Maker, count: int) -> float:
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
        "pss_mb": found.pss_bytes / 1e6 if (found := processes.read(os.getpid())) else 0,
        "faults": resource.getrusage(resource.RUSAGE_SELF).ru_majflt,
    }
    print(json.dumps(result))


def drain(settings: Settings, capture: Path | None = None) -> Result:
    command = [sys.executable, "-m", "bench.drain", "--worker", *([str(capture)] if capture else [])]
    cpu, wal = postgresql_cost(settings)
    done = subprocess.run(command, env={**os.environ, **exports(settings)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result: Result = json.loads(done.stdout.splitlines()[-1])
    cpu_after, wal_after = postgresql_cost(settings)
    return result | {"postgresql_cpu": cpu_after - cpu, "wal_bytes": wal_after - wal}


def postgresql_cost(settings: Settings) -> tuple[float, float]:
    """CPU seconds that the whole server has used (0 for one that does not run on this machine), bytes of WAL that it has written."""
    connection = psycopg2.connect(settings.admin_url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            (wal,) = cast("tuple[Any]", cursor.fetchone())
        return processes.server_cpu(connection.info.backend_pid, "postgres"), float(wal)
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


def bare_copy(settings: Settings, lanes: Batches, together: bool) -> Result:
    """COPY the captured streams, a transaction per batch: over one connection, or one per lane at once."""

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
    cpu, wal = postgresql_cost(settings)
    started, own = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, own = time.perf_counter() - started, time.process_time() - own
    cpu_after, wal_after = postgresql_cost(settings)
    return {"seconds": seconds, "cpu": own, "postgresql_cpu": cpu_after - cpu, "wal_bytes": wal_after - wal}


Contender = Callable[[Settings, str], Result]
DRAIN, ONE, LANES = "drain", "bare COPY", "bare COPY, a connection per lane"


def alternate(
    settings: Settings, name: str, make: Maker, *, count: int, rounds: int, others: dict[str, Contender] | None = None
) -> tuple[float, dict[str, list[Result]]]:
    """Mean payload size, and by contender what each round gave: the drain, both bare COPYs of what it wrote, and others, who get the
    settings with the topic and the name of a database that is not there yet. Who begins changes with each round."""
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

            def ours(contend: Callable[[Settings], Result]) -> Contender:
                def run(_: Settings, database_name: str) -> Result:
                    with database(own, database_name) as target:
                        return contend(target)

                return run

            contenders: dict[str, Contender] = {
                DRAIN: ours(drain),
                ONE: ours(lambda target: bare_copy(target, lanes, together=False)),
                LANES: ours(lambda target: bare_copy(target, lanes, together=True)),
                **(others or {}),
            }
            results: dict[str, list[Result]] = {contender: [] for contender in contenders}
            for number in range(rounds):
                order = list(contenders)
                for contender in order if number % 2 else order[::-1]:
                    results[contender].append(contenders[contender](own, f"bench_{os.getpid()}_{number}_{order.index(contender)}"))
                took = {contender: found[-1]["seconds"] for contender, found in results.items()}
                print(f"  {name}, round {number + 1}: " + ", ".join(f"{who} {count / took[who]:,.0f}/s" for who in took), flush=True)
        finally:
            capture.unlink(missing_ok=True)
            admin.delete_topics([own.kafka_topic])[own.kafka_topic].result(30)
    assert all(result["messages"] == count for result in results[DRAIN])
    return size, results


def measure(settings: Settings, name: str, make: Maker, count: int, rounds: int) -> None:
    size, found = alternate(settings, name, make, count=count, rounds=rounds)
    results = found[DRAIN]

    def median(who: str, what: str) -> float:
        return statistics.median(result[what] for result in found[who])

    seconds = median(DRAIN, "seconds")
    ratio = statistics.median(bare["seconds"] / result["seconds"] for bare, result in zip(found[ONE], results, strict=True))
    print(
        f"{name}: {count:,} messages of {size:.0f} B, {results[0]['measurements'] / count:.2f} measurements each,"
        f" {results[0]['duplicates']} repeated:"
        f" {count / seconds:,.0f} messages/s, {results[0]['measurements'] / seconds:,.0f} measurements/s,"
        f" {ratio:.2f} of a bare COPY ({count / median(ONE, 'seconds'):,.0f}/s;"
        f" {count / median(LANES, 'seconds'):,.0f}/s over a connection per lane),"
        f" {median(DRAIN, 'cpu') / count * 1e6:.1f} µs CPU per message"
        f" and {median(DRAIN, 'postgresql_cpu') / count * 1e6:.1f} in PostgreSQL,"
        f" {max(result['resident_mb'] for result in results):.0f} MB resident"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=[*MIXES, "all"], default="all")
    parser.add_argument("--worker", nargs="?", const="", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        return worker(arguments.worker or None)
    settings = get_settings()
    for name, make in MIXES.items():
        if arguments.kind in (name, "all"):
            measure(settings, name, make(), arguments.messages, arguments.rounds)
    return None


if __name__ == "__main__":
    main()
