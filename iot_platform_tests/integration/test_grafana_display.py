"""What people see on the dashboards is what the database says: Grafana's own code shows the results of every query, and follows links."""

import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from grafana.source.panels import AS_IS, DIGITS, EXACT
from grafana.source.queries import SOURCE
from ingest_daemon.home import PACKAGES
from iot_platform.database import connect
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.accountant import Accountant
from iot_platform_tests.support.feeds.dashboards import Subject, fill
from iot_platform_tests.support.feeds.drain import Feed, drain
from iot_platform_tests.support.oracles.grafana_display import Display, Grafana, Result, Shown
from iot_platform_tests.support.oracles.grafana_macros import Range, Value, duration_ms, expand

ODD = Subject(tenant="0012", project="1e5 \"q\" & 'x'=%41", device="Pump #1 & A+B", topic_names_it=False)
LONG = Subject(tenant="1968193691042586624", project="0x10", device="1013.25", topic_names_it=False)
SUBJECTS = (ODD, LONG)
DEVICES = ("", "0012", "1e5", "007 ", 'the "best"', "back\\slash", "o'neil", "${__url_time_range}", "水泵 1", "a=b&c=d", "50%", "?x#y")
TEXTS = ("0012", "1013.25", "1e5", "1968193691042586624", "0x10", " 7 ", "true", "", '"', "$1", "水")
NUMBERS = (1013.25, 0.1, 12345678.9, 9007199254740993, -0.0001234, 1.5e-7)
NAMES = ("tenant_id", "project_id", "device_id")
ODD_METRIC = 'a "b" & c'


def window(points: int = 1000, least_ms: int = 1) -> Range:
    """The time range of the dashboards."""
    until = datetime.now(UTC) + timedelta(seconds=1)
    return Range(until - timedelta(hours=6), until, points, least_ms)


def asks(choices: dict[str, Any], wanted: str = "") -> Iterator[tuple[str, dict[str, Any], str]]:
    """Place, panel and SQL of each panel that asks the database, or of the wanted one."""
    for path in sorted((PACKAGES / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            place = f"{path.name}: {panel['title']}"
            if wanted in ("", place) and panel.get("datasource") == SOURCE.to_json():
                least = duration_ms(panel["interval"]) if "interval" in panel else 1
                shown = window(int(panel.get("maxDataPoints", 1000)), least)
                yield place, panel, expand(panel["targets"][0]["rawSql"], shown, choices)


def results(settings: Settings, sqls: list[str]) -> list[Result]:
    """What the database answers Grafana's role."""
    found = []
    with closing(connect(settings, "reader")) as connection, connection.cursor() as cursor:
        for sql in sqls:
            cursor.execute(sql)
            assert cursor.description is not None
            columns = [(column.name, column.type_code) for column in cursor.description]
            found.append(Result([name for name, _ in columns], [code for _, code in columns], list(cursor.fetchall())))
    return found


@pytest.fixture
def filled(settings: Settings, accountant: Accountant) -> Settings:
    """Every panel has something to show, and what it shows has names and texts that look like something else."""
    fill(settings, accountant, ODD)
    feed, now = Feed(settings), datetime.now(UTC)
    for subject in SUBJECTS:
        partition = zlib.crc32(subject.topic.encode()) % 2
        for number, device in enumerate((subject.device, *DEVICES)):
            stamp = int((now - timedelta(seconds=number)).timestamp() * 1000)
            payload: dict[str, Any] = {"ts": stamp, "deviceId": device}
            payload |= {f"text {index}": text for index, text in enumerate(TEXTS)}
            payload |= {f"number {index}": value for index, value in enumerate(NUMBERS)}
            payload |= {"humidity": 1013.25, "Value": 1013.25, "Time": 1, "0012": 1.5, ODD_METRIC: 2.5}
            feed.send(json.dumps(payload).encode(), topic=subject.topic, partition=partition)
            feed.send(b'{"ts": "0012"}', topic=subject.topic, partition=partition)
    feed.flush()
    drain(settings)
    return settings


def test_every_panel_shows_what_the_database_says(filled: Settings, grafana_display: Grafana) -> None:
    wrong = []
    for subject in SUBJECTS:
        choices: dict[str, Value] = {"tenant": subject.tenant, "project": subject.project, "device": subject.device, "metric": "humidity"}
        asked = list(asks(choices | {"rule": "range"}))
        found = results(filled, [sql for _, _, sql in asked])
        displays = grafana_display.show([(panel, result) for (_, panel, _), result in zip(asked, found, strict=True)])
        for (place, panel, _), result, display in zip(asked, found, displays, strict=True):
            if subject is ODD and not result.rows:
                wrong.append(f"{place}: no rows")
            check = {"table": table_faults, "stat": stat_faults}.get(panel["type"], line_faults)
            wrong += [f"{place}: {fault}" for fault in check(result, display)]
    assert wrong == []


def test_every_name_is_found_by_variables_and_links(filled: Settings, grafana_display: Grafana) -> None:
    """A variable's query returns each name as text, and the link of a table leads to the dashboard whose queries find just this device."""
    project: dict[str, Value] = {"tenant": ODD.tenant, "project": ODD.project}
    for path in sorted((PACKAGES / "grafana" / "dashboards").glob("*.json")):
        for variable in json.loads(path.read_text("utf-8"))["templating"].get("list", []):
            if variable["datasource"] != SOURCE.to_json():
                continue
            choices = {**project, "metric": ODD_METRIC, "device": ODD.device}
            (result,) = results(filled, [expand(variable["query"], window(), choices)])
            assert {result.kind(column) for column in range(len(result.names))} == {"string"}, variable["name"]
            assert variable["name"] == "rule" or choices[variable["name"]] in [row[0] for row in result.rows], variable["name"]
    panel, result = latest_values(filled, project)
    (display,) = grafana_display.show([(panel, result)])
    column = result.names.index("device_id")
    for device in DEVICES:
        row = next(row for row, values in enumerate(result.rows) if values[column] == device)
        (link,) = display.fields[column].links[row]
        opened = {name.removeprefix("var-"): value for name, value in parse_qsl(urlsplit(link).query, keep_blank_values=True)}
        assert (opened["tenant"], opened["project"], opened["device"]) == (ODD.tenant, ODD.project, device)
        metrics = {values[column + 1] for values in result.rows if values[column] == device}
        assert {metric for metric, *_ in ask(filled, "device.json: Latest values", opened | {"metric": "humidity"}).rows} == metrics
        several: dict[str, Value] = {**project, "metric": ODD_METRIC, "device": [device, "nobody"]}
        history = ask(filled, "tenant-project.json: History of the metric", several)
        assert {line for _, line, _ in history.rows} == {device or "(no device)"}


def latest_values(settings: Settings, choices: dict[str, Value]) -> tuple[dict[str, Any], Result]:
    """The table of a project's latest values: panel and result."""
    board = json.loads((PACKAGES / "grafana" / "dashboards" / "tenant-project.json").read_text("utf-8"))
    (panel,) = [panel for panel in board["panels"] if panel["title"] == "Latest values"]
    return panel, results(settings, [expand(panel["targets"][0]["rawSql"], window(), choices)])[0]


def ask(settings: Settings, wanted: str, choices: dict[str, Any]) -> Result:
    """The result of one panel's query."""
    sql = next(sql for place, _, sql in asks(choices | {"rule": "range"}, wanted) if place == wanted)
    return results(settings, [sql])[0]


def test_values_of_variables_are_written_as_the_oracle_says(grafana_display: Grafana) -> None:
    """The other tests expand variables without Node: as Grafana does."""
    values: list[Value] = [*DEVICES, ODD.project, [ODD.device, 'the "best"', "o'neil"]]
    assert grafana_display.formats([("sqlstring", value) for value in values]) == [
        expand("${x:sqlstring}", window(), {"x": value}) if "$" not in str(value) else "'${__url_time_range}'" for value in values
    ]


def table_faults(result: Result, display: Display) -> Iterator[str]:
    """Cells and links that say something else than the row."""
    for column, field in enumerate(display.fields):
        values = [row[column] for row in result.rows]
        for row, (value, text) in enumerate(zip(values, field.shown, strict=True)):
            if not faithful(result.kind(column), field, value, text):
                yield f"{field.name}: {value!r} is shown as {text!r}"
            if field.name in NAMES:
                yield from link_faults(field, dict(zip(result.names, result.rows[row], strict=True)), field.links[row])


def faithful(kind: str, field: Shown, value: Any, text: str) -> bool:
    """Whether a text is this value: the same letters, the same number, the same second."""
    if value is None:
        return text == ""
    if kind == "string":
        return field.unit == AS_IS and text == value
    if kind == "time":
        return text == f"{value:%Y-%m-%d %H:%M:%S}" or text == f"{value:%Y-%m-%d %H:%M:%S.}{value.microsecond // 1000:03}"
    if kind == "boolean":
        return text == str(value).lower()
    if field.unit == AS_IS:
        return Decimal(text) == Decimal(repr(float(value)))
    return text != "" and field.unit in ("s", "percentunit")  # rounded, with its unit


def link_faults(field: Shown, row: dict[str, Any], links: list[str]) -> Iterator[str]:
    """A link must open what the row names."""
    if len(links) != 1:
        yield f"{field.name} has {len(links)} links"
        return
    parts = urlsplit(links[0])
    opened = dict(parse_qsl(parts.query, keep_blank_values=True))
    names = NAMES[: NAMES.index(field.name) + 1]
    wanted = {f"var-{name.removesuffix('_id')}": row[name] or "" for name in names} | {"from": "now-6h", "to": "now"}
    if opened != wanted or parts.fragment:
        yield f"{field.name} of {row} opens {links[0]}"


def stat_faults(result: Result, display: Display) -> Iterator[str]:
    """Figures that are not the row's; those with a unit of their own are rounded."""
    if len(result.rows) != 1:
        return
    for column, name in enumerate(result.names):
        value, unit = result.rows[0][column], display.fields[column].unit
        if value is None or unit not in ("none", EXACT):
            continue
        title = name if len(result.names) > 1 else ""
        text = display.figures.get(name, display.figures.get(title, ""))
        if value == int(value) and Decimal(text.replace(",", "") or "NaN") != Decimal(str(value)):
            yield f"{name}: {value!r} is shown as {text!r}"


def line_faults(result: Result, display: Display) -> Iterator[str]:
    """Lines whose name is not the metric's or device's, and values that say another number."""
    if "metric" in result.names:
        lines = sorted({row[result.names.index("metric")] for row in result.rows})
        if [field.name for field in display.fields[1:]] != lines:
            yield f"lines {lines} are named {[field.name for field in display.fields[1:]]}"
    for field in display.fields[1:]:
        if field.unit == EXACT:
            values = {Decimal(text.replace(",", "")) for text in field.shown if text[0] in "-0123456789"}  # others: the text for no data
            known = {
                round(Decimal(repr(float(value))), DIGITS)
                for row in result.rows
                for value in row[1:]
                if isinstance(value, int | float | Decimal)
            }
            if not values <= known:
                yield f"{field.name}: shows {sorted(values - known)[:3]}"
        elif field.unit not in ("none", "cpm", "s"):
            yield f"{field.name} has the unit {field.unit}"


def test_the_check_sees_what_was_wrong(grafana_display: Grafana) -> None:
    """The faults that users saw, with the settings that made them."""
    text = Result(["tenant_id", "project_id"], [25, 25], [("1968193691042586624", "Pump #1 & A+B"), ("0012", "1013.25"), ("", "")])
    url = "/d/iot-project/tenant-project?var-tenant=${__data.fields.tenant_id}&var-project=${__data.fields.project_id}&${__url_time_range}"
    links = [{"matcher": {"id": "byName", "options": "project_id"}, "properties": [{"id": "links", "value": [{"title": "x", "url": url}]}]}]
    panel = {
        "type": "table",
        "fieldConfig": {"defaults": {"unit": "none", "noValue": "no data"}, "overrides": links},
        "targets": [{"format": "table"}],
    }
    (display,) = grafana_display.show([(panel, text)])
    assert [field.shown for field in display.fields] == [
        ["1968193691042586600", "12", "no data"],
        ["Pump #1 & A+B", "1013", "no data"],
    ]
    assert len(list(table_faults(text, display))) == 6 + 6
    assert "var-project=Pump%20#1%20&%20A+B" in display.fields[1].links[0][0]
