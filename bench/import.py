"""`iot import` of a file against a bare binary COPY of the same rows into the same tables in the same run.

    python -m bench.import --measurements 3000000 --rounds 3

Kinds: line (what influx_inspect writes: one field a line, series by series), csv (rows of five readings, in order of time), parquet (the
same). Uses the server of IOT_DATABASE_ADMIN_URL (a role that may create databases), by default the local stack's PostgreSQL and its
superuser; makes databases of its own and removes them. Prints measurements/s and records/s from the start of reading (the digest too) to
the last commit, the share of the bare COPY, CPU µs per measurement of the importing process and of PostgreSQL, and peak resident memory.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from bench.drain import bare_copy, database, keep_copies, peak_resident_mb, postgresql_cost, read_capture
from iot_platform.settings import Settings, exports, get_settings

DEVICES, DAYS = 100, 60
METRICS = ("temperature", "humidity", "pressure", "battery", "rssi")
LINES = """
tenant = { value = "1968193631353446400" }
project = { tag = "site" }
device = { tag = "host" }
"""
TABLE = """
tenant = { value = "1968193631353446400" }
project = { column = "site" }
device = { column = "host" }
time = { column = "time", unit = "UNIT" }
"""


def value(rng: random.Random, metric: str) -> str:
    """As InfluxDB writes it."""
    return f"{rng.randrange(-110, -30)}i" if metric == "rssi" else str(round(rng.uniform(10, 99), 2))


def grid(measurements: int) -> tuple[int, int, int]:
    """Readings of each series, the first one's time and their distance in ns."""
    count = measurements // (DEVICES * len(METRICS))
    step = DAYS * 86_400 * 10**9 // count
    return count, time.time_ns() - DAYS * 86_400 * 10**9, step


def line(path: Path, measurements: int) -> int:
    """Writes an export; returns how many records it has."""
    rng, (count, begin, step) = random.Random(1), grid(measurements)
    with path.open("w", encoding="utf-8") as file:
        file.write("# DDL\nCREATE DATABASE plant WITH NAME autogen\n# DML\n# CONTEXT-DATABASE:plant\n# CONTEXT-RETENTION-POLICY:autogen\n")
        for device in range(DEVICES):
            for metric in METRICS:
                series = f"climate,host=sensor-{device:05d},site=hall-{device % 10} {metric}="
                file.writelines(f"{series}{value(rng, metric)} {begin + number * step}\n" for number in range(count))
    return count * DEVICES * len(METRICS)


def rows(measurements: int) -> pl.DataFrame:
    """The same readings as a wide table."""
    rng, (count, begin, step) = random.Random(1), grid(measurements)
    places = [(number, device) for number in range(count) for device in range(DEVICES)]
    columns: dict[str, Any] = {
        "time": [(begin + number * step) // 1000 for number, _ in places],
        "site": [f"hall-{device % 10}" for _, device in places],
        "host": [f"sensor-{device:05d}" for _, device in places],
    }
    for metric in METRICS:
        columns[metric] = [rng.randrange(-110, -30) if metric == "rssi" else round(rng.uniform(10, 99), 2) for _ in places]
    return pl.DataFrame(columns)


def csv(path: Path, measurements: int) -> int:
    """Writes CSV with ISO times."""
    table = rows(measurements)
    stamps = [datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="milliseconds") for micros in table["time"].to_list()]
    table.with_columns(pl.Series("time", stamps)).write_csv(path)
    return len(table)


def parquet(path: Path, measurements: int) -> int:
    """Writes Parquet with timestamps."""
    table = rows(measurements)
    table.with_columns(pl.col("time").cast(pl.Datetime("us", "UTC"))).write_parquet(path)
    return len(table)


KINDS: dict[str, tuple[str, str, Callable[[Path, int], int]]] = {
    "line": (".lp", LINES, line),
    "csv": (".csv", TABLE.replace("UNIT", "iso"), csv),
    "parquet": (".parquet", TABLE.replace("UNIT", "us"), parquet),
}


def worker(file: str, mapping: str, capture: str) -> None:
    """The process under test: import one file; with a file to capture into, keep every COPY stream in it."""
    from iot_platform.imports.run import Import

    if capture:
        keep_copies(Path(capture))
    started, cpu = time.perf_counter(), time.process_time()
    summary = Import(get_settings(), Path(file), Path(mapping)).run()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    counts = summary.books.counts
    assert (summary.ended, counts["quarantined"]) == ("done", 0), summary
    print(json.dumps({"measurements": counts["measurements"], "seconds": seconds, "cpu": cpu, "resident_mb": peak_resident_mb()}))


def run(settings: Settings, file: Path, mapping: Path, capture: str = "") -> dict[str, Any]:
    """One import in a process of its own."""
    command = [sys.executable, "-m", "bench.import", "--worker", str(file), str(mapping), capture]
    before = postgresql_cost(settings)[0]
    done = subprocess.run(command, env={**os.environ, **exports(settings)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"postgresql_cpu": postgresql_cost(settings)[0] - before}


def measure(settings: Settings, kind: str, measurements: int, rounds: int, folder: Path) -> None:
    ending, text, make = KINDS[kind]
    file, mapping, capture = folder / f"bench{ending}", folder / "mapping.toml", folder / "capture"
    mapping.write_text(text, "utf-8")
    records, name = make(file, measurements), f"bench_{os.getpid()}"
    with database(settings, name) as target:
        run(target, file, mapping, str(capture))
    lanes = read_capture(capture)
    capture.unlink()
    results, bare = [], []
    for number in range(rounds):
        with database(settings, f"{name}_{number}") as target:
            results.append(run(target, file, mapping))
        with database(settings, f"{name}_{number}b") as target:
            bare.append(bare_copy(target, lanes, together=False)["seconds"])
        print(f"  round {number + 1}: import {results[-1]['seconds']:.1f} s, bare COPY {bare[-1]:.1f} s", flush=True)
    count = results[0]["measurements"]
    seconds = statistics.median(result["seconds"] for result in results)
    print(
        f"{kind}: {records:,} records, {count:,} measurements, {file.stat().st_size / 1e6:,.0f} MB:"
        f" {count / seconds:,.0f} measurements/s, {records / seconds:,.0f} records/s,"
        f" {statistics.median(one / result['seconds'] for one, result in zip(bare, results, strict=True)):.2f} of a bare COPY"
        f" ({count / statistics.median(bare):,.0f} measurements/s),"
        f" {statistics.median(result['cpu'] for result in results) / count * 1e6:.1f} µs CPU per measurement"
        f" and {statistics.median(result['postgresql_cpu'] for result in results) / count * 1e6:.1f} in PostgreSQL,"
        f" {max(result['resident_mb'] for result in results):.0f} MB resident",
        flush=True,
    )
    file.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measurements", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--worker", nargs=3, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        return worker(*arguments.worker)
    settings = get_settings()
    with tempfile.TemporaryDirectory(prefix="bench-import-") as folder:
        for kind in KINDS if arguments.kind == "all" else (arguments.kind,):
            measure(settings, kind, arguments.measurements, arguments.rounds, Path(folder))
    return None


if __name__ == "__main__":
    main()
