"""The speed of drain and ingest as ratios of one run: this build against bare loops that promise nothing, and against another build.

    python -m bench.report --output bench-report                        # 12 minutes on two idle cores
    python -m bench.report --output try --messages 5000 --rounds 1      # whether it works
    IOT_BENCH_BASELINE=../before python -m bench.report --output now    # beside a git worktree with a .venv of its own
    python -m bench.report --output now --compare earlier/report.json   # and against an earlier report of this machine

PostgreSQL, Kafka and Mosquitto of its own, on free ports, durable as in production. Contenders take turns, and who begins changes with each
round. FOLDER gets report.md, report.json and the plots. Reports of different machines are not compared.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2

from bench import drain, ingest, processes
from bench.before_after import DRAIN, INGEST, run
from bench.lifecycle import own_servers
from iot_platform.local.kafka import pinned_version
from iot_platform.settings import Settings

HERE = Path(__file__).parents[1]
BASELINE = "IOT_BENCH_BASELINE"
PACKAGES = ("confluent-kafka", "paho-mqtt", "psycopg2-binary", "msgspec", "numpy")
OURS, OTHER = "this build", "baseline"
COLUMNS = {
    "per_second": ",.0f", "ratio": ".2f", "cpu_us": ".1f", "postgresql_us": ".1f", "wal_bytes": ".0f", "resident_mb": ".0f", "pss_mb": ".0f"
}  # fmt: skip
Result = dict[str, float]


def machine() -> dict[str, Any]:
    """What must be equal for figures to be compared: the machine, not its name."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    memory = next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    identity = Path("/etc/machine-id")
    return {
        "id": hashlib.sha256(identity.read_bytes() if identity.exists() else platform.node().encode()).hexdigest()[:16],
        "processor": next((value.strip() for key, _, value in lines if key.strip() == "model name"), platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory) / 2**20, 1),
        "kernel": platform.release(),
    }


def git(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def settings_of_servers(settings: Settings) -> dict[str, str]:
    names = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "wal_compression", "full_page_writes")
    connection = psycopg2.connect(settings.admin_url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", [list(names)])
            found = dict(cursor.fetchall())
            cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
            found["timescaledb"] = ", ".join(release for (release,) in cursor.fetchall())
    finally:
        connection.close()
    return found | {"kafka": pinned_version(), "kafka flush.messages (ingest)": "1"}


def servers_cpu(name: str) -> float:
    """CPU seconds of our own server of that name."""
    children = processes.descendants()
    names = {pid: name_of(pid) for pid in processes.tree(os.getpid(), children)}
    return sum(processes.server_cpu(pid, name) for pid, found in names.items() if found == name)


def name_of(pid: int) -> str:
    try:
        return processes.stat(pid)[0]
    except OSError:
        return ""


def measure(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Every figure of every round."""
    report: dict[str, Any] = {
        "machine": machine(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": os.getloadavg()[0],
        "builds": {OURS: git(HERE)} | ({OTHER: git(options.baseline)} if options.baseline else {}),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "settings": settings_of_servers(settings),
        "messages": options.messages,
        "rounds": options.rounds,
        "drain": {},
    }
    for mix, make in drain.MIXES.items():
        others = {OTHER: partial(other_drain, options.baseline)} if options.baseline else {}
        size, rounds = drain.alternate(settings, mix, make(), count=options.messages, rounds=options.rounds, others=others)
        report["drain"][mix] = {"payload_bytes": size, "rounds": rounds}
    mqtt, kafka = settings.mqtt_url.get_secret_value(), settings.kafka_bootstrap_servers
    count = max(20, options.messages // 2 // 20 * 20)
    turns = {OTHER: partial(other_ingest, options.baseline, mqtt, kafka, count)} if options.baseline else {}
    before = servers_cpu("java")
    found = ingest.alternate(mqtt, kafka, messages=count, rounds=options.rounds, bare_mqtt="3.1.1", others=turns)
    taken = (servers_cpu("java") - before) / (count * options.rounds * len(found)) * 1e6
    return report | {"ingest": {"messages": count, "rounds": found, "kafka_cpu_us": taken}}


def other_drain(checkout: Path, settings: Settings, database: str) -> Result:
    return run(checkout, DRAIN, settings.kafka_topic, database, settings=settings)


def other_ingest(checkout: Path, mqtt: str, kafka: str, count: int, topic: str) -> Result:
    return run(checkout, INGEST, mqtt, kafka, topic, str(count), str(ingest.WINDOW))


def drain_rows(report: dict[str, Any]) -> dict[str, dict[str, Result]]:
    """Medians by mix and contender: messages a second, CPU µs a message, bytes of WAL a measurement, MB; our speed ÷ theirs."""
    rows: dict[str, dict[str, Result]] = {}
    for mix, found in report["drain"].items():
        ours, count = found["rounds"][drain.DRAIN], report["messages"]
        for who, results in found["rounds"].items():
            medians = {name: statistics.median(result[name] for result in results if name in result) for name in results[0]}
            rows.setdefault(mix, {})[who] = {
                "per_second": count / medians["seconds"],
                "ratio": statistics.median(his["seconds"] / mine["seconds"] for mine, his in zip(ours, results, strict=True)),
                "cpu_us": medians["cpu"] / count * 1e6,
                "postgresql_us": medians.get("postgresql_cpu", 0) / count * 1e6,
                "wal_bytes": medians.get("wal_bytes", 0) / ours[0]["measurements"],
                "resident_mb": medians.get("resident_mb", 0),
                "pss_mb": medians.get("pss_mb", 0),
            }
    return rows


def markdown(report: dict[str, Any]) -> str:
    lines = [
        f"# Speed, {report['at']}",
        "",
        f"{report['rounds']} rounds of {report['messages']:,} messages, medians. `this ÷ it`: this build's speed as a multiple of it. "
        f"Load before: {report['load_before']:.1f}.",
        "",
        *(f"- {name}: {what}" for name, what in report["builds"].items()),
        "- " + ", ".join(f"{name} {value}" for name, value in report["machine"].items()),
        "- " + ", ".join(f"{name} {value}" for name, value in report["versions"].items()),
        "- " + ", ".join(f"{name} {value}" for name, value in report["settings"].items()),
    ]
    for mix, rows in drain_rows(report).items():
        found = report["drain"][mix]
        first = found["rounds"][drain.DRAIN][0]
        each = first["measurements"] / report["messages"]
        lines += ["", f"## Drain, {mix}: {found['payload_bytes']:.0f} bytes, {each:.2f} measurements, {first['duplicates']:,} repeated", ""]
        lines += ["| | messages/s | this ÷ it | CPU µs/message | PostgreSQL µs/message | WAL bytes/measurement | MB at most | MB PSS |"]
        lines += ["|---|---:|---:|---:|---:|---:|---:|---:|"]
        for who, row in rows.items():
            figures = (f"{row[name]:{form}}" if row[name] else "" for name, form in COLUMNS.items())
            lines.append(f"| {who} | {' | '.join(figures)} |")
    found = report["ingest"]
    lines += ["", f"## Ingest, {found['messages']:,} messages; Kafka {found['kafka_cpu_us']:.1f} µs CPU a message", ""]
    lines += ["| | messages/s | this ÷ it | CPU µs/message | MB at most |", "|---|---:|---:|---:|---:|"]
    for who, results in found["rounds"].items():
        ratio = statistics.median(
            mine["per_second"] / his["per_second"] for his, mine in zip(results, found["rounds"]["daemon"], strict=True)
        )
        figures = {name: statistics.median(result[name] for result in results) for name in ("per_second", "cpu_us", "resident_mb")}
        lines.append(f"| {who} | {figures['per_second']:,.0f} | {ratio:.2f} | {figures['cpu_us']:.1f} | {figures['resident_mb']:.0f} |")
    return "\n".join(lines) + "\n"


def plots(report: dict[str, Any], folder: Path) -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    groups = {f"drain-{mix}": (report["messages"], found["rounds"]) for mix, found in report["drain"].items()}
    groups |= {"ingest": (report["ingest"]["messages"], report["ingest"]["rounds"])}
    for name, (count, rounds) in groups.items():
        speeds = {who: [run.get("per_second") or count / run["seconds"] for run in runs] for who, runs in rounds.items()}
        figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
        middle = [statistics.median(each) for each in speeds.values()]
        error = [[value - min(each) for value, each in zip(middle, speeds.values(), strict=True)],
                 [max(each) - value for value, each in zip(middle, speeds.values(), strict=True)]]  # fmt: skip
        axes.barh(list(speeds), middle, xerr=error, color="tab:blue", ecolor="black", capsize=3)
        axes.set(title=name, xlabel="messages/s: median, slowest and fastest round")
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


def compared(now: dict[str, Any], before: dict[str, Any]) -> str:
    """A table of ratios; above 1: now is faster. Raises ValueError: the reports are of different machines."""
    if differing := [name for name, value in now["machine"].items() if before["machine"].get(name) != value]:
        raise ValueError(f"not compared: the reports are of different machines ({', '.join(differing)} differ)")
    lines = ["", f"## Against {before['at']}", "", "| | messages/s, ratio | ratio to the bare COPY, before → now |", "|---|---:|---:|"]
    was, is_now = drain_rows(before), drain_rows(now)
    for mix in (mix for mix in was if mix in is_now):
        old, new = was[mix], is_now[mix]
        ratio = new[drain.DRAIN]["per_second"] / old[drain.DRAIN]["per_second"]
        lines.append(f"| drain, {mix} | {ratio:.2f} | {old[drain.ONE]['ratio']:.2f} → {new[drain.ONE]['ratio']:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="FOLDER", default=Path("bench-report"))
    parser.add_argument("--messages", type=int, default=200_000, help="of a drain; half of them for the ingest daemon")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compare", type=Path, metavar="REPORT.JSON", help="an earlier report of this machine")
    parser.add_argument(
        "--baseline", type=lambda text: Path(text).resolve(), default=os.environ.pop(BASELINE, None) or None,
        help=f"another checkout with a .venv of its own; {BASELINE} unless given",
    )  # fmt: skip
    options = parser.parse_args()
    if find_spec("matplotlib") is None:  # said now, not after a quarter of an hour
        parser.error("the plots need matplotlib: .venv/bin/python -m pip install -e '.[bench]'")
    if options.baseline and not (options.baseline / ".venv/bin/python").exists():
        parser.error(f"{BASELINE}={options.baseline} has no .venv: `make bootstrap` in it")
    before = json.loads(options.compare.read_text("utf-8")) if options.compare else None
    try:
        if before:
            compared({"machine": machine(), "at": "", "drain": {}}, before)  # said now, too
        with own_servers(mqtt=True) as servers:
            # As on the local stack: bench.drain finds the superuser's password in the servers' folder.
            port = urlsplit(servers.admin_url).port
            report = measure(servers.model_copy(update={"local_dir": servers.local_dir.parent, "postgres_port": port}), options)
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        text = markdown(report) + (compared(report, before) if before else "")
    except ValueError as error:
        sys.exit(f"error: {error}")
    (options.output / "report.md").write_text(text, "utf-8")
    plots(report, options.output)
    print(text)


if __name__ == "__main__":
    main()
