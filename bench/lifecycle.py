"""The data lifecycle at scale: filling, rollups, retention, quality, queries, sensor ticks; printed as Markdown.

    python -m bench.lifecycle                                 10,000 projects, 100,000 series, 50 M measurements: an hour, 12 GB of disk
    python -m bench.lifecycle --measurements 2000000          smaller
    python -m bench.lifecycle --database postgresql://…       one that is filled already; only the queries and what changes nothing
    python -m bench.lifecycle --live                          freshness of a drain, idle and with all maintenance at once

Starts a PostgreSQL and a Kafka of its own in a temporary folder and removes both at the end.
"""

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from pydantic import SecretStr

from bench import lifecycle_work as work
from bench.lifecycle_live import measure_live
from bench.lifecycle_queries import Timed, explain, time_late_row, time_queries
from iot_platform.database import migrate
from iot_platform.kafka.topics import ensure_topics
from iot_platform.local.kafka import KafkaServer
from iot_platform.local.mosquitto import MosquittoServer
from iot_platform.local.passwords import Passwords
from iot_platform.local.ports import free_ports
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.local.postgresql_roles import create_database
from iot_platform.local.server import Server, start
from iot_platform.local.supervisor import Supervisor
from iot_platform.settings import Settings

Row = tuple[str, str, str]
ROLLUPS = (("rollups: the first time", "rollup"), ("rollups: nothing new", "rollup"), ("iot rollup rebuild, 7 days", "rebuild", 7))
SCHEDULED = (
    ("sensor new_projects, into an empty Dagster", "projects", 1),
    ("assets project and tenant: their sums", "project_sums", 3),
    ("quality evaluation, the first", "quality", 1),
    ("quality evaluation, nothing new", "quality", 3),
    ("retention, dry run", "retention_plan", 3),
    ("compression", "compression", 1),
    ("iot audit --since all", "audit", 1),
)


@contextmanager
def own_servers(*, mqtt: bool = False) -> Iterator[Settings]:
    """Servers for the block, durable as in production, with a migrated database; with a broker too, if asked for."""
    folder = Path(tempfile.mkdtemp(prefix="bench-lifecycle-"))
    supervisor = Supervisor(folder, die_with_parent=True)
    try:
        cache, (database_port, kafka_port, mqtt_port, no_port) = Settings().cache_dir, free_ports(4)
        postgresql = PostgresqlServer(folder, cache, database_port, Passwords.load(folder / "data" / "passwords.json"))
        kafka = KafkaServer(folder, cache, kafka_port, Settings())
        servers: tuple[Server, ...] = (postgresql, kafka, *([MosquittoServer(folder, mqtt_port)] if mqtt else []))
        supervisor.ensure_running()
        for server in servers:
            start(server, supervisor, lambda text: print(f"  {text}", file=sys.stderr), abort=Event())
        create_database(postgresql.url("postgres", "postgres"), "iot")
        urls = {
            f"database_{name}url": SecretStr(postgresql.url(role))
            for name, role in (("", "iot_writer"), ("admin_", "iot_migrator"), ("reader_", "iot_reader"))
        }
        settings = Settings().model_copy(
            update={
                **urls,
                "kafka_bootstrap_servers": kafka.bootstrap_servers,
                "mqtt_url": SecretStr(f"mqtt://127.0.0.1:{mqtt_port}"),
                "local_dir": folder / "platform",
                "ingest_http_url": f"http://127.0.0.1:{no_port}",
            }
        )
        migrate(settings)
        ensure_topics(settings)  # an evaluation of quality asks Kafka whether the drain is behind
        yield settings
    finally:
        supervisor.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def show(title: str, rows: Iterable[Row]) -> None:
    """A Markdown table, each row as soon as it is known."""
    print(f"\n### {title}\n\n| what | measured | detail |\n|---|---:|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def body(settings: Settings, what: str, name: str, *arguments: object, runs: int = 1) -> Row:
    """Medians of a body's seconds; rows/s where it tells rows."""
    results = [work.run(settings, name, *arguments) for _ in range(runs)]
    seconds, last = statistics.median(result["seconds"] for result in results), results[-1]
    told = {key: value for key, value in last.items() if key not in ("seconds", "peak_mb")}
    rate = f"{last['rows'] / seconds:,.0f} rows/s, " if last.get("rows") else ""
    detail = ", ".join(
        f"{key.replace('_', ' ')} {value:,.3g}" if isinstance(value, float) else f"{key} {value:,}" for key, value in told.items()
    )
    return (what, f"{seconds:.2f} s", f"{rate}{last['peak_mb']:.0f} MB; {detail}")


def timed(item: Timed) -> Row:
    """A query's row."""
    limit = "" if item.limit_ms is None else f", {'within' if item.median_ms <= item.limit_ms else '**over**'} {item.limit_ms:g} ms"
    return (item.what, f"{item.median_ms:.1f} ms", f"worst {item.worst_ms:.1f} ms, {item.rows:g} rows{limit}")


def measure(settings: Settings, arguments: argparse.Namespace, *, filled: bool) -> None:
    """All tables."""
    if not filled:
        fleet = (arguments.tenants, arguments.projects, arguments.series, arguments.measurements, arguments.days)
        show("Filling", [body(settings, "iot simulate --history", "fill", *fleet)])
        show("Rollups", (body(settings, *item) for item in ROLLUPS))
    show("Queries", [timed(item) for item in time_queries(settings, arguments.runs)])
    show("Scheduled work and sensor ticks", (body(settings, what, name, runs=runs) for what, name, runs in SCHEDULED))
    if not filled:
        show("Retention", [body(settings, "retention of two days", "retention", arguments.days - 2)])
        show("Late data", [timed(item) for item in time_late_row(settings, arguments.runs)])  # the last: no drain accounts for these rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measurements", type=int, default=50_500_000)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--projects", type=int, default=100, help="of each tenant")
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--runs", type=int, default=11, help="of each query (default 11)")
    parser.add_argument("--database", help="URL of a filled database (owner): nothing is written but rows of rules and results")
    parser.add_argument("--explain", action="store_true", help="print the queries' plans, too")
    parser.add_argument("--live", action="store_true", help="freshness of a live drain, idle and beside all maintenance; nothing else")
    parser.add_argument("--rate", type=int, default=500, help="with --live: messages a second (default 500)")
    parser.add_argument("--seconds", type=int, default=120, help="with --live: seconds of each phase (default 120)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that servers and folder go
    if arguments.database:
        url = SecretStr(arguments.database)
        settings = Settings().model_copy(update={"database_url": url, "database_admin_url": url, "database_reader_url": url})
        measure(settings, arguments, filled=True)
        if arguments.explain:
            print(f"\n```\n{explain(settings)}\n```")
        return
    with own_servers() as settings:
        if arguments.live:
            fleet = (arguments.tenants, arguments.projects, arguments.series, arguments.measurements, arguments.days)
            work.run(settings, "fill", *fleet)
            show("Freshness", measure_live(settings, arguments.rate, arguments.seconds))
            return
        measure(settings, arguments, filled=False)
        if arguments.explain:
            print(f"\n```\n{explain(settings)}\n```")


if __name__ == "__main__":
    main()
