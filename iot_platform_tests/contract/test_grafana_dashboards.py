"""The dashboards are what their source makes, complete, and valid for the vendor's schema."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from grafana_foundation_sdk.models.prometheus import Dataquery

from grafana.source import alerts
from grafana.source.__main__ import FOLDER, render
from grafana.source.queries import PROMETHEUS, SOURCE
from grafana.source.queries import load as load_queries
from ingest_daemon.home import PACKAGES
from iot_platform_tests.support.oracles.grafana_prometheus import series_names
from scripts import exporters_table, metrics_page

FILES = sorted(FOLDER.glob("*.json"))
UIDS = {
    "pipeline.json": "iot-pipeline",
    "kafka.json": "iot-kafka",
    "database.json": "iot-database",
    "dagster.json": "iot-dagster",
    "capacity.json": "iot-capacity",
    "influx.json": "iot-influx",
    "runbooks.json": "iot-runbooks",
    "fleet-overview.json": "iot-fleet",
    "tenant-project.json": "iot-project",
    "device.json": "iot-device",
    "data-quality.json": "iot-quality",
}

ENDS = ("bucket", "sum", "count")
EXPORTERS = {row.name for row in exporters_table.rows()}
"""Of Kafka, PostgreSQL and hosts: test_exporters.py finds them on real pages."""


def load(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def test_files_are_up_to_date() -> None:
    assert {path.name: path.read_text("utf-8") for path in FILES} == render(), "run `make dashboards`"


def test_they_fit_into_one_config_map() -> None:
    """Of Kubernetes, which takes 1 MiB."""
    assert sum(path.stat().st_size for path in FILES) < 1_000_000


def test_uids_never_change() -> None:
    """Links, bookmarks and alerts name dashboards by uid."""
    assert {path.name: load(path)["uid"] for path in FILES} == UIDS


def test_every_query_is_used() -> None:
    text = "".join(path.read_text("utf-8") for path in FILES)
    for path in (PACKAGES / "grafana" / "source" / "sql").glob("*.sql"):
        for name, sql in load_queries(path.stem).items():
            assert json.dumps(sql, ensure_ascii=False) in text, f"{path.name}: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_panel_tells_what_it_is(path: Path) -> None:
    for panel in load(path)["panels"]:
        if panel["type"] == "text":
            assert all((panel["title"], panel["description"], panel["options"]["content"])), panel["title"]
            continue
        defaults = panel["fieldConfig"]["defaults"]
        assert all((panel["title"], panel["description"], defaults["unit"], defaults["noValue"])), panel["title"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert panel["datasource"] in (SOURCE.to_json(), PROMETHEUS.to_json())
    for variable in load(path)["templating"].get("list", []):
        assert all((variable["label"], variable["description"], variable["query"])), variable["name"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_have_ids_and_do_not_overlap(path: Path) -> None:
    panels = load(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    titles = [panel["title"] for panel in panels if panel.get("datasource") == PROMETHEUS.to_json()]
    assert len(set(titles)) == len(titles), "pages and tests name a panel by its title"
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        taken = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert max(x for x, _ in taken) < 24
        assert not cells & taken, panel["title"]
        cells |= taken


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_vendor_s_schema_knows_everything(path: Path) -> None:
    """What the SDK does not know would get lost on the way through its classes. It knows no SQL: queries are put aside."""
    document = load(path)
    for mark in document["annotations"].get("list", []):
        assert mark.pop("target")["rawSql"]
    for panel in document["panels"]:
        for target in panel.pop("targets", []):
            known = "rawSql" in target or json.loads(json.dumps(Dataquery.from_json(target), cls=JSONEncoder)) == target
            assert known, panel["title"]
    again = json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))
    assert [json.loads(json.dumps(Panel.from_json(panel), cls=JSONEncoder)) for panel in document["panels"]] == document["panels"]
    del again["panels"], document["panels"]
    assert again == document


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_links_lead_to_dashboards_and_variables_that_exist(path: Path) -> None:
    known = {uid: {v["name"] for v in load(FOLDER / name)["templating"].get("list", [])} for name, uid in UIDS.items()}
    for url in re.findall(r'"url": "([^"]+)"', path.read_text("utf-8")):
        uid = url.split("/")[2]
        assert set(re.findall(r"[?&]var-(\w+)=", url)) <= known[uid], url


def promql() -> Iterator[tuple[str, str]]:
    """Place and expression of each query to Prometheus."""
    for path in FILES:
        for panel in load(path)["panels"]:
            for target in panel.get("targets", []):
                if "expr" in target:
                    yield f"{path.name}: {panel['title']}", target["expr"]


def test_every_metric_exists() -> None:
    parts = [row for part in metrics_page.rows() for row in part]
    known = {name for name, *_ in parts} | {f"{name}_{end}" for name, kind, *_ in parts if kind == "histogram" for end in ENDS}
    used = {name: place for place, expr in promql() for name in series_names(expr)}
    assert {name: place for name, place in used.items() if name not in known | EXPORTERS} == {}


def test_ranges_hold_four_scrapes_and_lines_are_few() -> None:
    """A rate over fewer samples is an accident; what the exporters label without bound (mount points, disks) is cut."""
    for place, expr in promql():
        for number, unit in re.findall(r"\[(\d+)([smhd])[\]:]", expr):
            assert int(number) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[unit] >= 60, place
        assert "mountpoint" not in expr or "topk" in expr or "bottomk" in expr or "days left" in place or "deriv" in expr, place


def test_links_to_runbooks_open_the_panel_of_that_alert() -> None:
    titles = {panel["id"]: panel["title"] for panel in load(FOLDER / "runbooks.json")["panels"]}
    assert sorted(titles.values()) == alerts.order()
    linked = set()
    for path in FILES:
        for panel in load(path)["panels"]:
            for link in panel.get("links") or []:
                linked.add(link["title"].removeprefix("Runbook "))
                assert titles[int(link["url"].rsplit("=", 1)[1])] == link["title"].removeprefix("Runbook ")
    text = "".join(panel["options"]["content"] for panel in load(FOLDER / "runbooks.json")["panels"])
    assert not re.search(r"\]\((?!/d/iot-runbooks/)", text), "a link that leads nowhere in Grafana"
    for words, number in re.findall(r"\[(\w+)\]\(/d/iot-runbooks/runbooks\?viewPanel=(\d+)\)", text):
        assert titles[int(number)] == words
    assert linked, "panels lead to what to do"


def test_limits_are_those_of_the_rules() -> None:
    assert alerts.limit("DrainLagGrowing") == alerts.Limit(10_000, alerts.YELLOW, below=False)
    assert alerts.limit("FreshnessBurnsFast").value == pytest.approx(14.4 * 0.01)
    assert alerts.limit("DrainStalled", 1) == alerts.Limit(120, alerts.RED, below=False)
    assert alerts.limit("BackupOverdue").value == 26 * 3600
    assert alerts.objective().value == 5
    assert 0 < alerts.limit("AuditDifference").value < 1, "one difference is one too many, none is none"
    disk = [alerts.limit("DiskFillsSoon"), alerts.limit("DiskAlmostFull")]
    assert [(step.value, step.color) for step in alerts.steps(disk)] == [(None, "red"), (3, "orange"), (21, "green")]
    with pytest.raises(KeyError):
        alerts.limit("Unknown")


def test_the_data_sources_are_those_that_panels_name_and_hold_no_secret() -> None:
    folder = PACKAGES / "grafana" / "provisioning"
    source, prometheus = yaml.safe_load((folder / "datasources" / "iot-platform.yaml").read_text("utf-8"))["datasources"]
    assert {"uid": source["uid"], "type": source["type"]} == SOURCE.to_json()
    assert {"uid": prometheus["uid"], "type": prometheus["type"]} == PROMETHEUS.to_json()
    compose = yaml.safe_load((PACKAGES / "deploy" / "compose" / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert prometheus["jsonData"]["timeInterval"] == compose["global"]["scrape_interval"]
    given = [
        source["url"],
        source["user"],
        source["jsonData"]["database"],
        source["jsonData"]["sslmode"],
        source["secureJsonData"]["password"],
        prometheus["url"],
    ]
    (provider,) = yaml.safe_load((folder / "dashboards" / "iot-platform.yaml").read_text("utf-8"))["providers"]
    given.append(provider["options"]["path"])
    page = (PACKAGES / "docs" / "dashboards.md").read_text("utf-8")
    for name in given:
        assert re.fullmatch(r"\$IOT_GRAFANA_[A-Z_]+", name), name
        assert f"`{name[1:]}`" in page, f"docs/dashboards.md does not explain {name}"


@pytest.mark.parametrize("page", ["metric-dashboards.md", "metric-dashboards.zh-CN.md"])
def test_the_page_has_every_panel_of_metrics(page: str) -> None:
    text = (PACKAGES / "docs" / page).read_text("utf-8")
    told = {
        name: re.findall(r"^\| ([^|]+?) \|", part, re.M)[1:] for name, part in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    }
    for path in FILES:
        board = load(path)
        titles = [panel["title"] for panel in board["panels"] if panel.get("datasource") == PROMETHEUS.to_json()]
        assert [title for title in told.get(board["title"], []) if title != "---"] == titles, board["title"]
