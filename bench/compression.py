"""Compression ratio of the simulator's fleet, on TimescaleDB's Community edition: PGlite, which Node runs, or the server that
IOT_TEST_COMMUNITY_URL names (docs/testing.md); printed as Markdown.

    python -m bench.compression                                     a day of devices that report every 12 seconds, as of `make up`
    python -m bench.compression --devices 240 --per-minute 0.5      every two minutes

Messages and measurements go through the platform's decoder, writer and `compress`; ratios are bytes of chunks with indexes and TOAST.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from iot_platform.compression.compress import Done, compress
from iot_platform.database import connect, migrate
from iot_platform.database.capabilities import read_capabilities
from iot_platform.local.postgresql_roles import create_database
from iot_platform.settings import Settings
from iot_platform.simulator.fleet import FleetOptions
from iot_platform.simulator.generator import Generator
from iot_platform_tests.support.feeds.direct import DirectFeed, microseconds
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.servers.community import copy_of, run_pglite
from iot_platform_tests.support.servers.named_server import named_server

NAME = "test_0"
BATCH = timedelta(minutes=30)


def live(settings: Settings, devices: int, per_minute: float, seed: int) -> None:
    """A day of messages of the fleet that `iot simulate` has, ten days ago."""
    begin = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=10)
    options = FleetOptions(devices=devices // 12, seed=seed)
    plan = Generator(options, settings.topic_pattern, microseconds(begin), devices * per_minute / 60).messages()
    with closing(DirectFeed(settings)) as feed:
        message, now = next(plan), begin + BATCH
        while now <= begin + timedelta(days=1):
            while (at := begin + timedelta(microseconds=message.offset_us)) < now:
                feed.send(at, message.payload, message.topic)
                message = next(plan)
            feed.flush()
            now += BATCH


def show(title: str, done: list[Done], series: int) -> None:
    """A line for each chunk of some size, and the sum of each table."""
    print(f"\n### {title}: {series:,} series\n\n| chunk | rows | before | after | ratio | B/row |\n|---|---:|---:|---:|---:|---:|")
    for table in dict.fromkeys(item.table for item in done):
        parts = [item for item in done if item.table == table]
        for item in (item for item in parts if (item.rows or 0) >= 1000):
            line(f"{table} {item.start:%Y-%m-%d}", item.rows or 0, item.bytes_before, item.bytes_after)
        line(
            f"**{table}, {len(parts)} chunks**",
            sum(item.rows or 0 for item in parts),
            sum(item.bytes_before for item in parts),
            sum(item.bytes_after for item in parts),
        )


def line(name: str, rows: int, before: int, after: int) -> None:
    """One row of the table."""
    ratio, each = before / after, after / max(1, rows)
    print(f"| {name} | {rows:,} | {before / 1e6:.2f} MB | {after / 1e6:.2f} MB | {ratio:.1f} | {each:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=24, help="of the fleet (default 24)")
    parser.add_argument("--per-minute", type=float, default=5.0, help="messages of a device (default 5)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with database() as settings:
        with closing(connect(settings)) as connection:
            print(read_capabilities(connection).headline())
        live(settings, arguments.devices, arguments.per_minute, arguments.seed)
        (count,) = query(settings, "SELECT count(*) FROM series")[0]
        show("A day of the fleet", compress(settings).done, count)


@contextmanager
def database() -> Iterator[Settings]:
    """A migrated database of the Community edition, for as long as that is open."""
    named = named_server()
    if named is None:
        with tempfile.TemporaryDirectory(prefix="bench-compression-") as folder, run_pglite(Path(folder)) as server:
            yield copy_of(server, "live")
        return
    create_database(named.url("postgres", "postgres"), NAME)
    urls = {role: named.url(f"iot_{role}", NAME) for role in ("writer", "migrator", "reader")}
    settings = Settings(database_url=urls["writer"], database_admin_url=urls["migrator"], database_reader_url=urls["reader"])  # type: ignore[arg-type]
    try:
        migrate(settings)
        yield settings
    finally:
        named.drop(NAME)


if __name__ == "__main__":
    main()
