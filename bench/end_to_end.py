"""Sustained load through the whole path of a running `make up`: lost, doubled, freshness, and what each process costs.

SIMULATOR=0 make up
.venv/bin/python -m bench.end_to_end --rate 500 --rate 2000 --duration 60
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.processes import read_trees
from iot_platform.database import connect
from iot_platform.local.supervisor import Supervisor
from iot_platform.settings import Settings, get_settings
from iot_platform.simulator.record import read_record

IOT = Path(sys.executable).with_name("iot")
FRESHNESS = """
SELECT percentile_cont(ARRAY[0.5, 0.95, 0.99, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM l.committed_at - m.received_at)::float8)
FROM message m
JOIN ledger l ON l.kafka_partition = m.kafka_partition AND l.log_generation = m.log_generation AND l.kind = 'drain'
    AND m.kafka_offset >= l.from_offset AND m.kafka_offset < l.to_offset
WHERE m.received_at >= %(since)s AND l.committed_at >= %(since)s
"""
STORED = """
SELECT topic, payload FROM message_named WHERE received_at >= %(since)s AND duplicate_of IS NULL
UNION ALL
SELECT topic, payload FROM quarantine_named WHERE received_at >= %(since)s AND duplicate_of IS NULL
"""


@dataclass
class Cost:
    """CPU seconds and greatest proportional set size (bytes) of one supervised program with all its descendants."""

    pids: dict[int, float] = field(default_factory=dict)
    first: dict[int, float] = field(default_factory=dict)
    peak_bytes: int = 0

    def cpu_seconds(self) -> float:
        return sum(last - self.first[pid] for pid, last in self.pids.items())


def sample(programs: dict[str, int], costs: dict[str, Cost], *, first: bool) -> None:
    """Add one reading of /proc; processes that appear later count from zero."""
    for name, processes in read_trees(programs).items():
        cost = costs.setdefault(name, Cost())
        for pid, process in processes.items():
            cost.first.setdefault(pid, process.cpu_seconds if first else 0.0)
            cost.pids[pid] = process.cpu_seconds
        cost.peak_bytes = max(cost.peak_bytes, sum(process.pss_bytes for process in processes.values()))


def one_value(settings: Settings, query: str, **parameters: Any) -> Any:
    with connect(settings, "reader") as connection, connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchone()[0]


def stored_since(settings: Settings, since: datetime) -> Counter[tuple[str, bytes]]:
    with connect(settings, "reader") as connection, connection.cursor() as cursor:
        cursor.execute(STORED, {"since": since})
        return Counter((topic, bytes(payload)) for topic, payload in cursor)


def measure(settings: Settings, rate: int, duration: int, mix: str, console: Console) -> bool:
    """Publish, wait until everything published is stored, and print one report; true when nothing was lost or doubled."""
    supervisor = Supervisor(settings.local_dir)
    programs = {name: state.pid for name, state in supervisor.states().items() if state.pid}
    since, costs = datetime.now(UTC), {}
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "published.jsonl"
        command = [IOT, "simulate", "--rate", str(rate), "--duration", str(duration), "--mix", mix, "--seed", str(time.time_ns() % 10**9)]
        simulator = subprocess.Popen([*command, "--record", record, "--quiet"])
        sample(programs, costs, first=True)
        started = time.monotonic()
        while simulator.poll() is None:
            time.sleep(1)
            sample(programs, costs, first=False)
        seconds = time.monotonic() - started
        published: Counter[tuple[str, bytes]] = Counter()
        for line in read_record(record):
            published[line.message.topic, line.message.payload] += int(line.acked)
    deadline = time.monotonic() + 60
    stored = stored_since(settings, since)
    while stored.total() < published.total() and time.monotonic() < deadline:
        time.sleep(0.5)
        stored = stored_since(settings, since)
    lost, doubled = (published - stored).total(), (stored - published).total()
    freshness = one_value(settings, FRESHNESS, since=since)
    console.print(
        f"[bold]{rate} msg/s, {mix}, {seconds:.0f} s[/bold]: published {published.total()}, lost {lost}, doubled {doubled}; "
        "freshness p50 {:.2f} p95 {:.2f} p99 {:.2f} max {:.2f} s".format(*freshness)
    )
    table = Table("process", "CPU, % of a core", "memory (PSS) peak, MB")
    for name, cost in sorted(costs.items()):
        table.add_row(name, f"{100 * cost.cpu_seconds() / seconds:.1f}", f"{cost.peak_bytes / 1e6:.0f}")
    console.print(table)
    return simulator.returncode == 0 and not lost and not doubled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, action="append", help="messages per second; may be given several times (default 500 and 2000)")
    parser.add_argument("--duration", type=int, default=60, help="seconds per rate (default 60)")
    parser.add_argument("--mix", choices=("realistic", "flat"), default="realistic", help="payloads (default realistic)")
    arguments = parser.parse_args()
    console = Console(width=120)
    good = [measure(get_settings(), rate, arguments.duration, arguments.mix, console) for rate in arguments.rate or (500, 2000)]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
