"""What a series of drills showed: one line each, a table, and the same as Markdown and JSON for keeping."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ingest_daemon.home import checkout
from iot_platform.drills.alert_plan import PROMTOOL_ONLY
from iot_platform.drills.rig.drill_run import Options
from iot_platform.drills.rig.drill_stack import DrillStack
from iot_platform.visible import visible, visible_json

_PACKAGES: Final = ("iot-platform", "paho-mqtt", "confluent-kafka", "dagster", "dagster-postgres", "polars", "psycopg2-binary")
COLUMNS: Final = ("drill", "verdict", "messages", "lost", "doubled", "redelivered", "recovery", "audit", "seconds", "memory peak")
ALERT_COLUMNS: Final = ("fault", "alert", "durations divided by", "told after", "ended after")


@dataclass
class Outcome:
    """One drill's result; sizes in bytes. `lost` includes `expected_losses`."""

    drill: str
    title: str
    group: str
    proves: str
    passed: bool
    seed: int
    seconds: float
    messages: int = 0
    lost: int = 0
    expected_losses: int = 0
    doubled: int = 0
    redelivered: int = 0
    recovery_seconds: float | None = None
    audit: str = "not run"
    memory_peak_bytes: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    kept: str | None = None
    skipped: str = ""  # why it could not run here: neither passed nor failed

    @property
    def verdict(self) -> str:
        """In one word."""
        return "skipped" if self.skipped else "passed" if self.passed else "FAILED"

    def cells(self) -> list[str]:
        """The row of the table, in the order of COLUMNS."""
        lost = f"{self.lost:,}" + (f" ({self.expected_losses:,} expected)" if self.expected_losses else "")
        recovery = "–" if self.recovery_seconds is None else f"{self.recovery_seconds:.1f} s"
        peak = f"{sum(self.memory_peak_bytes.values()) / 2**20:,.0f} MiB" if self.memory_peak_bytes else "–"
        counts = (f"{self.messages:,}", lost, f"{self.doubled:,}", f"{self.redelivered:,}")
        return [self.drill, self.verdict, *counts, recovery, self.audit, f"{self.seconds:.0f} s", peak]


@dataclass
class Report:
    """A whole run of drills."""

    started_at: datetime
    options: Options
    outcomes: list[Outcome] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every drill passed that could run here, and there was one."""
        ran = [outcome for outcome in self.outcomes if not outcome.skipped]
        return bool(ran) and all(outcome.passed for outcome in ran)

    def describe(self, stack: DrillStack) -> None:
        """Note versions and machine, once."""
        if not self.versions:
            self.versions, self.machine = versions(stack), machine()

    def write(self, folder: Path) -> Path:
        """Write report.md and report.json; returns the former."""
        folder.mkdir(parents=True, exist_ok=True)
        document = asdict(self) | {"started_at": self.started_at.isoformat(), "passed": self.passed}
        (folder / "report.json").write_text(visible_json(json.dumps(document, indent=2, ensure_ascii=False)) + "\n", "utf-8")
        path = folder / "report.md"
        path.write_text(visible(self.markdown()), "utf-8")
        return path

    def markdown(self) -> str:
        """For people."""
        total = sum(outcome.messages for outcome in self.outcomes)
        counts = Counter(outcome.verdict for outcome in self.outcomes)
        verdict = ", ".join(f"{counts[name]} {name}" for name in ("passed", "skipped", "FAILED") if counts[name])
        lines = [f"# Failure drills of {self.started_at:%Y-%m-%d %H:%M} UTC", ""]
        lines += [f"{len(self.outcomes)} drills, {total:,} messages, {verdict}; seed {self.options.seed}.", ""]
        lines += [_row(COLUMNS), _row(["---"] * len(COLUMNS))]
        lines += [_row(outcome.cells()) for outcome in self.outcomes]
        lines += _alerts(self.outcomes)
        lines += ["", "Recovery: from the end of the fault until the last message that it held up was committed.", ""]
        for outcome in self.outcomes:
            lines += _chapter(outcome)
        lines += ["## Where", "", *(f"- {name}: {value}" for name, value in {**self.machine, **self.versions}.items()), ""]
        return "\n".join(lines)


def _alerts(outcomes: Sequence[Outcome]) -> list[str]:
    """When each alert was told, and its end; nothing where no drill watched alerts."""
    seen = [item for outcome in outcomes for item in outcome.alerts]
    if not any(outcome.group == "alerts" for outcome in outcomes):
        return []
    lines = ["", "## Alerts", "", _row(ALERT_COLUMNS), _row(["---"] * len(ALERT_COLUMNS))]
    for item in sorted(seen, key=lambda item: (item["fault"], item["alert"])):
        ended = "–" if item["ended_seconds"] is None else f"{item['ended_seconds']:.0f} s"
        lines.append(_row([item["fault"], item["alert"], f"{item['divided_by']:g}", f"{item['told_seconds']:.0f} s", ended]))
    lines += ["", "By promtool's cases only:", "", *(f"- {alert}: {why}" for alert, why in PROMTOOL_ONLY.items())]
    return lines


def _chapter(outcome: Outcome) -> list[str]:
    lines = [f"## {outcome.drill}: {outcome.title}", "", outcome.proves, ""]
    if outcome.skipped:
        return [*lines, f"Skipped: {outcome.skipped}", ""]
    lines += [f"- **{text}**" for text in outcome.problems]
    lines += [f"- fault: {text}" for text in outcome.faults]
    lines += [f"- {text}" for text in outcome.notes]
    peaks = ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in sorted(outcome.memory_peak_bytes.items()))
    return [*lines, f"- memory peaks: {peaks}" if peaks else "- memory: not sampled", f"- seed {outcome.seed}", ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "system": platform.platform(),
        "cores": os.cpu_count() or 0,
        "memory": f"{pages / 2**30:.0f} GiB",
        "python": platform.python_version(),
    }


def versions(stack: DrillStack) -> dict[str, str]:
    """Versions of everything involved, as far as they can be found out."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    if root := checkout():
        with suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
            found["commit"] = answer.stdout.strip()
    return found | stack.versions()
