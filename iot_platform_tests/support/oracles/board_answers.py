"""The panels of grafana/dashboards that ask Prometheus, and which of their queries a Prometheus answers with numbers."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ingest_daemon.home import PACKAGES
from iot_platform_tests.support.oracles.grafana_macros import Range
from iot_platform_tests.support.oracles.grafana_prometheus import Found, Prometheus

CHOICES: Final = {"daemon": ".*", "job": ".*"}
"""All of each variable, as Grafana inserts it."""


def metric_panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """`board: title`, and panel."""
    for path in sorted((PACKAGES / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            if panel.get("datasource", {}).get("type") == "prometheus":
                yield f"{path.stem}: {panel['title']}", panel


def last(minutes: int) -> Range:
    """A time range that ends now."""
    until = datetime.now(UTC)
    return Range(until - timedelta(minutes=minutes), until)


def answers(prometheus: Prometheus, minutes: int = 5) -> dict[str, tuple[dict[str, Any], Found]]:
    """Each panel and what it is answered, by its place."""
    return {place: (panel, prometheus.answer(panel, last(minutes), CHOICES)) for place, panel in metric_panels()}


def unanswered(found: dict[str, tuple[dict[str, Any], Found]]) -> dict[str, str]:
    """`board: title: legend` and expression of each query without a number."""
    return {
        f"{place}: {target['legendFormat']}": target["expr"]
        for place, (panel, answer) in found.items()
        for target in panel["targets"]
        if not any(series.says_something for series in answer.series[target["refId"]])
    }
