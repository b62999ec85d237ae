"""Every panel that asks Prometheus, on a real one that scrapes real pages: each query has numbers, and Grafana shows them; where an
exporter is not installed, its panels say so."""

import itertools
import math
import re
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from grafana.source.panels import AS_IS, EXACT
from iot_platform.influx.follow import Follower
from iot_platform.rollups.advance import roll_up
from iot_platform_tests.support.feeds.drain import TOPIC, drain
from iot_platform_tests.support.oracles.board_answers import answers, metric_panels, unanswered
from iot_platform_tests.support.oracles.grafana_display import Display, Grafana
from iot_platform_tests.support.oracles.grafana_prometheus import Found, Prometheus, series_names
from iot_platform_tests.support.servers.exporter import exporter
from iot_platform_tests.support.servers.influxd import InfluxDatabase
from iot_platform_tests.support.servers.ingest import publish
from iot_platform_tests.support.servers.prometheus import scraping
from iot_platform_tests.support.servers.stack import Ingest, Servers
from iot_platform_tests.support.waiting import eventually

NOT_HERE = {
    "kafka_": "JMX exporter",
    "jvm_": "JMX exporter",
    "pg_": "prometheus-postgres-exporter",
    "node_": "prometheus-node-exporter",
    "iot_broker_": "$SYS",
    "iot_dagster_": "iot metrics",
    "iot_backup_": "docs/backup.md",
}
"""Metrics that nothing here has (Dagster is not started, backups are not set up), and what the panels then say."""
NOTHING = {
    "pipeline: Partitions that cannot go on: stopped",
    "pipeline: Certificates end in: {{server}}",
    "database: Last WAL segment archived: archived",
}
"""Nothing of the kind is here, which is as it should be."""


def host(url: str) -> str:
    """Of a URL, what Prometheus scrapes."""
    return urlsplit(url).netloc


def is_absent(expr: str) -> bool:
    """Whether it asks for what nothing here has."""
    return any(name.startswith(tuple(NOT_HERE)) for name in series_names(expr))


@pytest.fixture
def answered(
    servers: Servers, ingest: Ingest, influx: InfluxDatabase, tmp_path: Path
) -> Iterator[tuple[Prometheus, dict[str, tuple[dict[str, Any], Found]]]]:
    """Messages flow, and an InfluxDB follows, until every query that can be answered is; some are refused."""
    settings = ingest.start().settings.model_copy(update={"disk_limit_bytes": 10**12, "influx_url": SecretStr(influx.url)})
    first = int(time.time() * 1000) - 3_600_000
    times = itertools.count(first)
    roll_up(settings)
    with exporter(settings) as page:
        targets = {host(ingest.url): {"part": "ingest"}, host(page): {"part": "platform"}}
        with scraping(tmp_path, {"iot": targets}) as prometheus:

            def missing() -> set[str]:
                payloads = [b"broken", b'{"ts":%d,"a":-1}' % first, *(b'{"ts":%d,"a":1}' % next(times) for _ in range(20))]
                publish(servers.mqtt_url, [(f"{TOPIC}/press-1", payload) for payload in payloads])
                drain(settings)
                Follower(settings, influx.target).run()
                found = unanswered(answers(prometheus))
                return {place for place, expr in found.items() if not is_absent(expr)} - NOTHING

            eventually(lambda: not missing(), 90, lambda: f"no numbers: {sorted(missing())}", pause=0.5)
            yield prometheus, answers(prometheus)


def test_every_query_has_numbers_and_grafana_shows_them(
    answered: tuple[Prometheus, dict[str, tuple[dict[str, Any], Found]]], grafana_display: Grafana
) -> None:
    prometheus, found = answered
    for place, expr in unanswered(found).items():
        assert is_absent(expr) or place in NOTHING, place
    absent = {place for place, (panel, _) in found.items() if all(is_absent(target["expr"]) for target in panel["targets"])}
    for place in absent:
        panel, _ = found[place]
        names = {name for target in panel["targets"] for name in series_names(target["expr"])}
        wanted = {text for start, text in NOT_HERE.items() if any(name.startswith(start) for name in names)}
        assert all(text in panel["fieldConfig"]["defaults"]["noValue"] for text in wanted), place
    displays = grafana_display.show(list(found.values()))
    wrong = []
    for (place, (panel, answer)), display in zip(found.items(), displays, strict=True):
        if place not in absent:
            check = {"table": table_faults, "stat": stat_faults}.get(panel["type"], line_faults)
            wrong += [f"{place}: {fault}" for fault in check(panel, answer, display)]
    assert wrong == []
    for name, label in (("iot_ingest_mqtt_connected", "instance"), ("iot_server_up", "server")):
        assert prometheus.get(f"label/{label}/values", {"match[]": name}), "what a variable asks"


def test_every_table_is_of_its_labels_only() -> None:
    """A label that a query leaves in would part the rows of one thing."""
    for place, panel in metric_panels():
        if panel["type"] == "table":
            (organize,) = [one["options"] for one in panel["transformations"] if one["id"] == "organize"]
            labels = {name for name in organize["renameByName"] if not name.startswith("Value")}
            for target in panel["targets"]:
                kept = {frozenset(names.replace(" ", "").split(",")) - {"le"} for names in re.findall(r"by \(([^)]*)\)", target["expr"])}
                kept |= {frozenset({name}) for name in re.findall(r'label_replace\(.*?, "(\w+)", "[^"]+", "", ""\)', target["expr"])}
                assert kept == {frozenset(labels)}, place


def table_faults(panel: dict[str, Any], answer: Found, display: Display) -> Iterator[str]:
    """Columns that are missing or named otherwise, rows that are parted, cells that say another number."""
    (organize,) = [one["options"] for one in panel["transformations"] if one["id"] == "organize"]
    names = {name: organize["renameByName"][name] for name in sorted(organize["indexByName"], key=organize["indexByName"].__getitem__)}
    if not any(answer.series.values()):
        return
    if [field.name for field in display.fields] != list(names.values()):
        yield f"columns {[field.name for field in display.fields]}, not {list(names.values())}"
        return
    labels = [name for name in names if not name.startswith("Value")]
    rows = {tuple(series.labels.get(label, "") for label in labels) for found in answer.series.values() for series in found}
    shown = list(zip(*(field.shown for field in display.fields[: len(labels)]), strict=True))
    if sorted(shown) != sorted(rows):
        yield f"rows {shown}, not {sorted(rows)}"
    for target, field in zip(panel["targets"], display.fields[len(labels) :], strict=True):
        by_row = {tuple(one.labels.get(label, "") for label in labels): one.samples[-1][1] for one in answer.series[target["refId"]]}
        for row, text in zip(shown, field.shown, strict=True):
            value = by_row.get(row)
            if not says(text, value, field.unit):
                yield f"{field.name} of {row}: {value} is shown as {text!r}"


def stat_faults(panel: dict[str, Any], answer: Found, display: Display) -> Iterator[str]:
    """Figures that are missing, or whose title is not the legend."""
    wanted = sum(len(found) for found in answer.series.values())
    if not wanted:
        if list(display.figures.values()) != [panel["fieldConfig"]["defaults"]["noValue"]]:
            yield f"nothing is shown as {display.figures}"
        return
    if len(display.figures) != wanted:
        yield f"{len(display.figures)} figures for {wanted} series: {list(display.figures)}"
    for title, text in display.figures.items():
        if not text or text == panel["fieldConfig"]["defaults"]["noValue"] or "{{" in title:
            yield f"{title}: {text!r}"


def line_faults(_: dict[str, Any], answer: Found, display: Display) -> Iterator[str]:
    """Lines that are missing, have no name of their own, or a legend that was not filled in."""
    names = [field.name for field in display.fields if field.type == "number"]
    if len(names) != sum(len(found) for found in answer.series.values()) or len(set(names)) != len(names):
        yield f"lines {names}"
    if any(not name.strip() or "{{" in name or name == "Value" for name in names):
        yield f"names {names}"


def says(text: str, value: float | None, unit: str | None) -> bool:
    """Whether a cell's text is this value: the same number, or rounded with its unit; nothing is shown as nothing."""
    if value is None or math.isnan(value):
        return text in ("", "NaN")
    if unit in (AS_IS, EXACT):
        return abs(Decimal(text.replace(",", "")) - Decimal(repr(value))) <= Decimal(repr(abs(value) / 1e6))
    return bool(re.match(r"-?[\d.]+", text))
