"""`python -m iot_platform_tests.support.brokers.report FILE`: the rows of docs/brokers.md from a report of `make test-brokers`."""

import json
import sys
from pathlib import Path
from typing import Any

from iot_platform_tests.support.brokers.catalogue import BROKERS
from iot_platform_tests.support.brokers.scenarios import SCENARIOS


def rows(lines: list[dict[str, Any]]) -> list[str]:
    """One row per broker and protocol, in the catalogue's order; of several runs the last. A cell: lost / second copies (marked)."""
    found = {(line["broker"], line["protocol"], line["scenario"]): line for line in lines}
    made = []
    for name, broker in BROKERS.items():
        for protocol in broker.PROTOCOLS:
            runs = [found.get((name, protocol, scenario)) for scenario in SCENARIOS]
            if any(runs):
                made.append(f"| `{name}` | {protocol} | " + " | ".join(cell(run) for run in runs) + " |")
    return made


def cell(run: dict[str, Any] | None) -> str:
    """What became of a scenario; a dash where it was not run."""
    if run is None:
        return "–"
    lost = f"**{run['lost_by_broker']}**" if run["lost_by_broker"] else "0"
    late = f", {run['out_of_order']} late" if run["out_of_order"] else ""
    return f"{lost} / {run['second_copies']} ({run['marked']}){late}"


if __name__ == "__main__":
    sys.stdout.write("\n".join(rows([json.loads(line) for line in Path(sys.argv[1]).read_text("utf-8").splitlines()])) + "\n")
