"""Hours of load on a running `make up`: does anything grow that should not, is anybody told of something that is not so, is anything lost?

SIMULATOR=0 MONITORING=1 make up
.venv/bin/python -m bench.soak --rate 1000 --hours 2
.venv/bin/python -m bench.soak --report build/soak        the report of samples that are there

Writes samples.jsonl as it goes, then report.md and a plot of each figure. A slope is the least-squares line through the samples after the
first quarter, an hour. Dagster's code server and its runs are apart: how many runs there are at once changes by the minute, so of them the
growth within a run counts. Exit code 1: the audit differs, or an alert fired.
"""

import argparse
import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import Progress

from bench.processes import read_trees, split_runs
from iot_platform.database import connect
from iot_platform.local.supervisor import Supervisor
from iot_platform.settings import get_settings

IOT = Path(sys.executable).with_name("iot")
EVERY_SECONDS = 30.0
CODE_SERVER, RUNS = "dagster-code", "dagster-runs"
WARM_UP = 0.25
"""This share of the samples is left out of slopes: caches fill, the first chunks are made."""
DATABASE = """
SELECT (SELECT sum(numbackends) FROM pg_stat_database), pg_database_size(current_database()),
       (SELECT count(*) FROM pg_locks), (SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables)
"""
PAGES = {
    "ingest": ("iot_ingest_spool_messages", "iot_ingest_messages_received_total"),
    "metrics": ("iot_drain_lag_messages", "iot_freshness_seconds_count", "iot_freshness_seconds_bucket"),
}


@dataclass
class Sample:
    """One look at everything; seconds since the first one, bytes, CPU seconds since the program's start."""

    seconds: float
    pss_bytes: dict[str, int] = field(default_factory=dict)
    handles: dict[str, int] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    """PSS of each run process, by pid."""


def folder_bytes(folder: Path) -> int:
    """What its files take on the disk; files that go meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512 if path.is_file() else 0
        except OSError:
            continue
    return total


def page_figures(url: str, names: tuple[str, ...]) -> dict[str, float]:
    """These metrics of a page, summed over their labels; a histogram's buckets by their limit."""
    sums: dict[str, float] = defaultdict(float)
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  our own address
        for family in text_string_to_metric_families(answer.read().decode()):
            for metric in family.samples:
                if metric.name in names:
                    limit = f"_{metric.labels['le']}" if "le" in metric.labels else ""
                    sums[metric.name + limit] += metric.value
    return dict(sums)


class Look:
    """The running stack, asked again and again."""

    def __init__(self) -> None:
        self._settings = get_settings()
        self._supervisor = Supervisor(self._settings.local_dir)
        self._began = time.monotonic()

    def take(self) -> Sample:
        """What cannot be asked just now is left out."""
        sample = Sample(round(time.monotonic() - self._began, 1))
        programs = {name: state.pid for name, state in self._supervisor.states().items() if state.pid}
        trees = read_trees(programs)
        if CODE_SERVER in trees:
            trees[CODE_SERVER], trees[RUNS] = split_runs(trees[CODE_SERVER], programs[CODE_SERVER])
            sample.runs = {str(pid): process.pss_bytes for pid, process in trees[RUNS].items()}
        for name, processes in trees.items():
            sample.pss_bytes[name] = sum(process.pss_bytes for process in processes.values())
            sample.handles[name] = sum(process.handles for process in processes.values())
            sample.threads[name] = sum(process.threads for process in processes.values())
            sample.cpu_seconds[name] = sum(process.cpu_seconds for process in processes.values())
        with connect(self._settings, "reader") as connection, connection.cursor() as cursor:
            cursor.execute(DATABASE)
            row = cursor.fetchone()
            sample.figures.update(zip(("database_sessions", "database_bytes", "database_locks", "dead_rows"), map(float, row), strict=True))
        data = self._settings.local_dir / "data"
        for name, folder in (
            ("kafka_bytes", data / "kafka"),
            ("postgresql_bytes", data / "postgresql"),
            ("logs_bytes", data.parent / "logs"),
        ):
            sample.figures[name] = folder_bytes(folder)
        for port, names in ((self._settings.ingest_http_port, PAGES["ingest"]), (self._settings.metrics_port, PAGES["metrics"])):
            try:
                sample.figures.update(page_figures(f"http://127.0.0.1:{port}/metrics", names))
            except OSError:
                continue
        return sample


def alerts(prometheus: str, began: datetime, ended: datetime) -> dict[str, float]:
    """By alert with its labels: minutes that it fired between both times."""
    query = {"query": 'ALERTS{alertstate="firing"}', "start": began.timestamp(), "end": ended.timestamp(), "step": 15}
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{urllib.parse.urlencode(query)}", timeout=60) as answer:  # noqa: S310
        series = json.load(answer)["data"]["result"]
    return {
        json.dumps({name: value for name, value in one["metric"].items() if not name.startswith("__")}): len(one["values"]) / 4
        for one in series
    }


def record(arguments: argparse.Namespace, console: Console) -> None:
    """Publish, and sample until the publisher has ended and everything is drained."""
    look, folder = Look(), arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    seconds = int(arguments.hours * 3600)
    began = datetime.now(UTC)
    publisher = subprocess.Popen(
        [IOT, "simulate", "--rate", str(arguments.rate), "--duration", str(seconds), "--mix", arguments.mix, "--quiet"]
    )
    try:
        with (folder / "samples.jsonl").open("w", encoding="utf-8") as file, Progress(console=console) as progress:
            task = progress.add_task(f"{arguments.rate} msg/s", total=seconds)
            while True:
                sample = look.take()
                file.write(json.dumps(asdict(sample)) + "\n")
                file.flush()
                progress.update(task, completed=min(sample.seconds, seconds))
                try:
                    publisher.wait(EVERY_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
                break
    finally:
        publisher.terminate()
    published = publisher.wait()
    ended = datetime.now(UTC)
    audit = subprocess.run([IOT, "audit", "--since", began.isoformat()], capture_output=True, text=True, check=False)
    facts: dict[str, Any] = {
        "began": began.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "rate": arguments.rate,
        "mix": arguments.mix,
        "publisher_exit": published,
        "audit_exit": audit.returncode,
        "audit": audit.stdout[-4000:],
        "alerts": alerts(arguments.prometheus, began, ended) if arguments.prometheus else None,
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False), "utf-8")


def slope(hours: np.ndarray, values: np.ndarray) -> float:
    """An hour's growth by the least-squares line after the warm-up."""
    after = hours >= hours[-1] * WARM_UP
    return float(np.polyfit(hours[after], values[after], 1)[0]) if after.sum() > 2 else float("nan")


def run_growth(samples: list[Sample]) -> np.ndarray:
    """Bytes a minute by which each run process grew, of those that were seen at least three times: the median of its steps after the
    first one, in which it still loads."""
    seen: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for sample in samples:
        for pid, pss in sample.runs.items():
            seen[pid].append((sample.seconds, pss))
    steps = [np.diff(np.array(points[1:], dtype=float), axis=0) for points in seen.values() if len(points) > 2]
    return np.array([60 * np.median(step[:, 1] / step[:, 0]) for step in steps])


def human(value: float, unit: str) -> str:
    """MB for bytes, whole numbers for the rest."""
    return f"{value / 1e6:,.1f} MB" if unit == "bytes" else f"{value:,.1f}"


def report(folder: Path) -> bool:
    """Write report.md and the plots; true when nothing differs and no alert fired."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    samples = [Sample(**json.loads(line)) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]
    facts = json.loads((folder / "facts.json").read_text("utf-8"))
    hours = np.array([sample.seconds for sample in samples]) / 3600
    lines = [f"{facts['rate']} msg/s, {facts['mix']}, {hours[-1]:.2f} h from {facts['began']}; audit exit code {facts['audit_exit']}.", ""]
    groups = {
        "memory": ("bytes", lambda sample: sample.pss_bytes),
        "handles": ("", lambda sample: sample.handles),
        "threads": ("", lambda sample: sample.threads),
        "disk": ("bytes", lambda sample: {name: value for name, value in sample.figures.items() if name.endswith("_bytes")}),
        "database": (
            "",
            lambda sample: {name: value for name, value in sample.figures.items() if name.startswith(("database_s", "database_l", "dead"))},
        ),
        "waiting": ("", lambda sample: {name: value for name, value in sample.figures.items() if "lag" in name or "spool" in name}),
    }
    lines += ["| what | first | at the end | greatest | growth an hour |", "| --- | --- | --- | --- | --- |"]
    for group, (unit, of) in groups.items():
        figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
        axes.set_prop_cycle(color=plt.get_cmap("tab20").colors)
        for name in sorted({name for sample in samples for name in of(sample)}):
            values = np.array([of(sample).get(name, np.nan) for sample in samples], dtype=float)
            there = ~np.isnan(values)
            at, seen = hours[there], values[there]
            axes.plot(at, seen / (1e6 if unit == "bytes" else 1), label=name, linewidth=1)
            row = (seen[0], seen[-1], seen.max(), slope(at, seen))
            lines.append(f"| {group}: {name} | " + " | ".join(human(value, unit) for value in row) + " |")
        axes.set(title=group, xlabel="hours", ylabel="MB" if unit == "bytes" else "")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(folder / f"{group}.svg")
        plt.close(figure)
    first, last = samples[0], samples[-1]
    took = last.seconds - first.seconds
    lines += ["", "| program | CPU, % of a core |", "| --- | --- |"]
    for name in sorted(first.cpu_seconds):
        if name == RUNS:
            continue  # its processes come and go, and their seconds with them
        lines.append(f"| {name} | {100 * (last.cpu_seconds.get(name, 0) - first.cpu_seconds[name]) / took:.1f} |")
    if len(growth := run_growth(samples)):
        median, greatest = human(float(np.median(growth)), "bytes"), human(float(growth.max()), "bytes")
        lines += [
            "",
            f"{len(growth)} run processes were seen three times or more; each grew by {median} a minute (median; greatest {greatest}).",
        ]
    buckets = {name.rsplit("_", 1)[1]: last.figures[name] - first.figures.get(name, 0) for name in last.figures if "_bucket_" in name}
    if whole := buckets.get("+Inf"):
        shares = ", ".join(
            f"≤ {float(limit):g} s: {100 * count / whole:.3f} %" for limit, count in buckets.items() if count <= whole and limit != "+Inf"
        )
        lines += ["", f"Freshness of {whole:,.0f} messages: {shares}."]
    fired = facts["alerts"] or {}
    lines += ["", f"Alerts that fired: {len(fired) if facts['alerts'] is not None else 'not watched'}."]
    lines += [f"- {labels}: {minutes:.1f} min" for labels, minutes in fired.items()]
    (folder / "report.md").write_text("\n".join(lines) + "\n", "utf-8")
    return not fired and facts["audit_exit"] == 0 and facts["publisher_exit"] == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=1000, help="messages per second (default 1000)")
    parser.add_argument("--hours", type=float, default=2.0, help="how long (default 2)")
    parser.add_argument("--mix", choices=("realistic", "flat"), default="realistic", help="payloads (default realistic)")
    parser.add_argument("--folder", type=Path, default=Path("build/soak"), help="where samples and report go (default build/soak)")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help='whose alerts are counted; "" for none')
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write the report of samples that are there, and nothing else")
    arguments = parser.parse_args()
    if find_spec("matplotlib") is None:  # said now, not after the hours
        parser.error("the report's plots need matplotlib: .venv/bin/python -m pip install -e '.[bench]'")
    if not arguments.report:
        record(arguments, Console())
    sys.exit(0 if report(arguments.report or arguments.folder) else 1)


if __name__ == "__main__":
    main()
