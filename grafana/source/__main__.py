"""`python -m grafana.source` writes grafana/dashboards/*.json; run by `make dashboards`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.source.capacity import capacity
from grafana.source.dagster import dagster
from grafana.source.database import database
from grafana.source.device import device
from grafana.source.fleet import fleet
from grafana.source.influx import influx
from grafana.source.kafka import kafka
from grafana.source.pipeline import pipeline
from grafana.source.project import project
from grafana.source.quality import quality
from grafana.source.runbooks import runbooks

FOLDER: Final = Path(__file__).parents[1] / "dashboards"
BOARDS: Final[dict[str, Callable[[], builders.Dashboard]]] = {
    "fleet-overview": fleet,
    "tenant-project": project,
    "device": device,
    "data-quality": quality,
    "pipeline": pipeline,
    "kafka": kafka,
    "database": database,
    "dagster": dagster,
    "capacity": capacity,
    "influx": influx,
    "runbooks": runbooks,
}


def render() -> dict[str, str]:
    """File name and content of each dashboard; the same source gives the same bytes."""
    texts = {}
    for name, make in BOARDS.items():
        made = make().build()
        for number, panel in enumerate(made.panels or [], start=1):
            panel.id_val = number
        texts[f"{name}.json"] = json.dumps(made, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return texts


def main() -> None:
    """Write what changed; a file that no dashboard claims is removed."""
    texts = render()
    for path in FOLDER.glob("*.json"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
