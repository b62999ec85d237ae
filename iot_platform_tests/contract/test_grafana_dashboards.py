"""The dashboards are what their source makes, complete, and valid for the vendor's schema."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana.source.__main__ import FOLDER, render
from grafana.source.queries import SOURCE
from grafana.source.queries import load as load_queries
from ingest_daemon.home import PACKAGES

FILES = sorted(FOLDER.glob("*.json"))
UIDS = {
    "fleet-overview.json": "iot-fleet",
    "tenant-project.json": "iot-project",
    "device.json": "iot-device",
    "data-quality.json": "iot-quality",
}


def load(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def test_files_are_up_to_date() -> None:
    assert {path.name: path.read_text("utf-8") for path in FILES} == render(), "run `make dashboards`"


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
        defaults = panel["fieldConfig"]["defaults"]
        assert all((panel["title"], panel["description"], defaults["unit"], defaults["noValue"])), panel["title"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == SOURCE.to_json()
    for variable in load(path)["templating"].get("list", []):
        assert all((variable["label"], variable["description"], variable["query"])), variable["name"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_have_ids_and_do_not_overlap(path: Path) -> None:
    panels = load(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
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
        assert all(isinstance(target["rawSql"], str) for target in panel.pop("targets"))
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


def test_the_data_source_is_the_one_that_panels_name_and_holds_no_secret() -> None:
    folder = PACKAGES / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "iot-platform.yaml").read_text("utf-8"))["datasources"]
    assert {"uid": source["uid"], "type": source["type"]} == SOURCE.to_json()
    given = [
        source["url"],
        source["user"],
        source["jsonData"]["database"],
        source["jsonData"]["sslmode"],
        source["secureJsonData"]["password"],
    ]
    (provider,) = yaml.safe_load((folder / "dashboards" / "iot-platform.yaml").read_text("utf-8"))["providers"]
    given.append(provider["options"]["path"])
    page = (PACKAGES / "docs" / "dashboards.md").read_text("utf-8")
    for name in given:
        assert re.fullmatch(r"\$IOT_GRAFANA_[A-Z_]+", name), name
        assert f"`{name[1:]}`" in page, f"docs/dashboards.md does not explain {name}"
