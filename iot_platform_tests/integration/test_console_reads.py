"""What the console answers is what the database holds of the tenant: counts, rows and files compared as sets."""

import csv
import io
from base64 import b64decode
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from iot_platform.audit.record import keep
from iot_platform.audit.result import AuditResult, Difference
from iot_platform_tests.support.feeds.direct import DirectFeed
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.tenants import OWN
from iot_platform_tests.support.servers.console import Browser, Console, path_of


def span() -> dict[str, str]:
    """All that the fixture sent."""
    now = datetime.now(UTC)
    return {"from_": f"{now - timedelta(hours=6):%Y-%m-%dT%H:%M:%SZ}", "to": f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"}


def pages(browser: Browser, rest: str, name: str, **parameters: str) -> list[Any]:
    """All pages of a list, small ones."""
    found, after = [], None
    while True:
        more = {} if after is None else {"after": after}
        answer = browser.ask(path_of(OWN, rest), limit="7", **parameters, **more)
        assert answer.status == 200, answer.body
        document = answer.document
        found += list(zip(*document["columns"].values(), strict=True)) if name == "columns" else document[name]
        after = document["next"]
        if after is None:
            return found


def test_series_and_projects(console: Console) -> None:
    reader = console.reader
    listed = pages(reader, "/series", "columns")
    expected = query(console.settings, "SELECT project_id, device_id, metric FROM series WHERE tenant_id = %s ORDER BY 1, 2, 3", OWN)
    assert [row[:3] for row in listed] == expected != []
    values = query(
        console.settings,
        "SELECT project_id, device_id, metric, (extract(epoch FROM time) * 1000)::bigint, value, value_text FROM latest_named"
        " WHERE tenant_id = %s",
        OWN,
    )
    assert {(*row[:3], *row[8:11]) for row in listed} == set(values)
    assert {row[1] for row in pages(reader, "/series", "columns", search="PUMP-1")} == {"pump-1"}
    assert pages(reader, "/series", "columns", search="%") == pages(reader, "/series", "columns", search="pump_1") == []
    assert {row[:3] for row in pages(reader, "/series", "columns", project="plant-0", device="pump-2")} == {
        row for row in expected if row[:2] == ("plant-0", "pump-2")
    }
    projects = reader.ask(path_of(OWN, "/projects")).document["projects"]
    counted = query(console.settings, "SELECT project_id, series_count FROM project WHERE tenant_id = %s ORDER BY 1", OWN)
    assert [(item["project"], item["series"]) for item in projects] == counted
    assert all(item["last_received_at"] and item["last_time"] and item["lag_seconds"] < 3600 for item in projects)


def test_history_of_a_series(console: Console) -> None:
    reader = console.reader
    one = {"project": "plant-0", "device": "pump-0", "metric": "flow", **span()}
    raw = reader.ask(path_of(OWN, "/history"), **one).document
    stored = query(
        console.settings,
        "SELECT (extract(epoch FROM time) * 1000)::bigint, value FROM measurement_named WHERE tenant_id = %s AND project_id = 'plant-0'"
        " AND device_id = 'pump-0' AND metric = 'flow' ORDER BY time",
        OWN,
    )
    assert (raw["resolution"], raw["truncated"]) == ("raw", False)
    assert list(zip(raw["columns"]["time"], raw["columns"]["value"], strict=True)) == stored != []
    hours = reader.ask(path_of(OWN, "/history"), **one, resolution="1h").document
    assert sum(hours["columns"]["count"]) == len(stored)
    assert (min(hours["columns"]["min"]), max(hours["columns"]["max"])) == (min(v for _, v in stored), max(v for _, v in stored))
    texts = reader.ask(path_of(OWN, "/history"), **{**one, "metric": "state"}).document["columns"]
    assert set(texts["value_text"]) == {"open"}
    assert set(texts["value"]) == {None}
    missing = reader.ask(path_of(OWN, "/history"), **{**one, "metric": "no such"})
    assert missing.problem == "not-found"


def test_messages_quarantine_and_balance_add_up(console: Console) -> None:
    reader = console.reader
    messages = pages(reader, "/messages", "messages", **span())
    stored = query(console.settings, "SELECT kafka_partition, kafka_offset::text, payload FROM message_named WHERE tenant_id = %s", OWN)
    assert {(item["partition"], item["offset"], b64decode(item["payload_base64"])) for item in messages} == set(stored)
    assert [item["received_at"] for item in messages] == sorted((item["received_at"] for item in messages), reverse=True)
    assert all(item["payload_text"].encode() == b64decode(item["payload_base64"]) for item in messages)
    narrow = pages(reader, "/messages", "messages", **span(), project="plant-1", device="pump-1")
    assert {(item["project"], item["device"]) for item in narrow} == {("plant-1", "pump-1")}
    refused = pages(reader, "/quarantine", "messages", **span())
    assert [b64decode(item["payload_base64"]) for item in refused] == [b"own bad bytes"]
    reasons = reader.ask(path_of(OWN, "/quarantine"), **span()).document["reasons"]
    assert reasons == [{"reason": refused[0]["reason"], "count": 1}]
    assert pages(reader, "/quarantine", "messages", **span(), reason="no such reason") == []
    balance = reader.ask(path_of(OWN, "/balance"), **span()).document
    hours = balance["hours"]
    parts = sum(sum(hours[name]) for name in ("stored", "duplicate", "quarantined"))
    assert sum(hours["received"]) == len(messages) + len(refused) == parts
    assert sum(hours["quarantined"]) == 1
    assert (balance["incidents_open"], balance["balanced"], balance["gaps"]) == (1, False, [])
    assert "no audit was made yet" in balance["words"]
    marks = reader.ask(path_of(OWN, "/marks"), project="plant-0", **span()).document["marks"]
    assert [(mark["kind"], mark["count"]) for mark in marks] == [("quarantined", 1)]


def test_late_values_are_marked_at_their_time(console: Console) -> None:
    times = (
        "SELECT min(time), count(*) FROM measurement_named WHERE tenant_id = %s AND project_id = 'plant-0' AND device_id = 'pump-0'"
        " AND metric = 'late_flow'"
    )
    feed, now = DirectFeed(console.settings), datetime.now(UTC)
    with closing(feed.connection):
        for behind in (0, 100, 3000, 3001):
            sent = {"deviceId": "pump-0", "ts": (now - timedelta(seconds=behind)).timestamp(), "late_flow": behind}
            feed.send(now, sent, f"mtic/msg/client/realtime/{OWN}/plant-0")
        feed.flush()
    one = {"project": "plant-0", "device": "pump-0", "metric": "late_flow", **span()}
    found = [mark for mark in console.reader.ask(path_of(OWN, "/marks"), **one).document["marks"] if mark["kind"] == "late"]
    ((first, _),) = query(console.settings, times, OWN)
    assert sum(mark["count"] for mark in found) == 2
    assert datetime.fromisoformat(found[0]["time"]) == first
    assert found[0]["detail"] == "received more than 120 s after its time"
    flags = console.reader.ask(path_of(OWN, "/history"), **one).document["columns"]["flags"]
    assert flags == [4, 4, 0, 0]


def test_the_balance_says_what_the_audit_found(console: Console) -> None:
    now = datetime.now(UTC)
    passed, failed = AuditResult(None, now), AuditResult(None, now + timedelta(seconds=1))
    failed.add(Difference("offsets", "partition 1 generation 2 offset 17-20", 4, 0, "partition 1 generation 2: offset 17-20 is nowhere"))
    failed.add(Difference("accounting", "secret-tenant", 1, 0, "secret-tenant: one message less"))
    keep(console.settings, "every_offset_is_accounted_for", passed)
    assert console.reader.ask(path_of(OWN, "/balance"), **span()).document["balanced"]
    keep(console.settings, "every_offset_is_accounted_for", failed)
    keep(console.settings, "every_offset_is_accounted_for", passed)  # the older one, late
    balance = console.reader.ask(path_of(OWN, "/balance"), **span()).document
    assert (balance["balanced"], balance["checked_at"]) == (False, f"{failed.at:%Y-%m-%dT%H:%M:%S.%f}Z")
    (gap,) = balance["gaps"]
    assert (gap["partition"], gap["from_offset"], gap["to_offset"], gap["count"]) == (1, "17", "20", 4)
    assert gap["words"] in balance["words"]
    assert any("found 1 more" in words for words in balance["words"])
    assert "secret" not in str(balance)
    query(console.settings, "DELETE FROM audit_result")


def test_the_way_of_a_message(console: Console) -> None:
    reader = console.reader
    for partition, offset, device in query(
        console.settings, "SELECT kafka_partition, kafka_offset, device_id FROM message_named WHERE tenant_id = %s LIMIT 3", OWN
    ):
        steps = reader.ask(path_of(OWN, "/trace"), partition=str(partition), offset=str(offset)).document["steps"]
        assert [step["step"] for step in steps] == ["received", "kafka", "drain", "measurements"]
        assert all(step["ok"] for step in steps), (device, steps)
    ((partition, offset),) = query(console.settings, "SELECT kafka_partition, kafka_offset FROM quarantine WHERE tenant_id = %s", OWN)
    steps = reader.ask(path_of(OWN, "/trace"), partition=str(partition), offset=str(offset)).document["steps"]
    assert (steps[-1]["step"], steps[-1]["ok"]) == ("quarantined", False)
    assert reader.ask(path_of(OWN, "/trace"), partition="0", offset="999999999999").problem == "not-found"


def test_incidents_rules_and_series_info(console: Console) -> None:
    reader = console.reader
    (incident,) = pages(reader, "/incidents", "incidents")
    assert (incident["rule"], incident["message"], incident["closed_at"]) == ("freshness_device", "pump-0 is silent", None)
    query(console.settings, "INSERT INTO quality_rule (rule, tenant_id, threshold) VALUES ('freshness_device', %s, 20)", OWN)
    query(console.settings, "INSERT INTO quality_rule (rule, tenant_id, threshold) VALUES ('freshness_device', 'secret-tenant', 7731773)")
    rules = reader.ask(path_of(OWN, "/rules")).document["rules"]
    assert [(row["rule"], row["threshold"]) for row in rules if row["own"]] == [("freshness_device", 20)]
    assert {row["rule"] for row in rules} == {row for (row,) in query(console.settings, "SELECT rule FROM quality_rule")}
    query(
        console.settings,
        "INSERT INTO series_info (series_id, display_name, unit, valid_max, changed_by) SELECT series_id, '流量', 'm³/h', 99, 'lin'"
        " FROM series WHERE tenant_id = %s AND project_id = 'plant-0' AND device_id = 'pump-0' AND metric = 'flow'",
        OWN,
    )
    query(
        console.settings,
        "INSERT INTO series_info_change (series_id, display_name, unit, description, changed_by)"
        " SELECT series_id, display_name, unit, '', 'lin' FROM series_info",
    )
    one = {"project": "plant-0", "device": "pump-0", "metric": "flow"}
    info = reader.ask(path_of(OWN, "/series-info"), **one).document
    assert (info["display_name"], info["unit"], info["valid_max"], info["valid_min"]) == ("流量", "m³/h", 99, None)
    changes = reader.ask(path_of(OWN, "/series-info/changes"), **one).document["changes"]
    assert [(item["display_name"], item["changed_by"]) for item in changes] == [("流量", "lin")]
    assert [row[1:3] for row in pages(reader, "/series", "columns", search="流")] == [("pump-0", "flow")]


def test_exports_hold_every_row(console: Console) -> None:
    reader = console.reader
    stored = query(
        console.settings,
        "SELECT time, project_id, device_id, metric, value, value_text FROM measurement_named"
        " WHERE tenant_id = %s AND project_id = 'plant-1'",
        OWN,
    )
    answer = reader.ask(path_of(OWN, "/export"), project="plant-1", **span())
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    said = {
        (
            datetime.fromisoformat(row["time"]),
            *(row[name] for name in ("project", "device", "metric")),
            float(row["value"]) if row["value"] else None,
            row["value_text"] or None,
        )
        for row in rows
    }
    assert (said, len(rows)) == (set(stored), len(stored))
    assert answer.headers["content-disposition"].endswith('.csv"')
    parquet = reader.ask(path_of(OWN, "/export"), project="plant-1", format="parquet", **span())
    frame = pl.read_parquet(io.BytesIO(parquet.body))
    assert set(frame.select("time", "project", "device", "metric", "value", "value_text").rows()) == set(stored)
    one = {"project": "plant-1", "device": "pump-1", "metric": "flow", "resolution": "1h"}
    hours = list(csv.DictReader(io.StringIO(reader.ask(path_of(OWN, "/export"), **one, **span()).body.decode())))
    count = sum(row[1:4] == ("plant-1", "pump-1", "flow") for row in stored)
    assert sum(int(row["count"]) for row in hours) == count
    empty = reader.ask(path_of(OWN, "/export"), project="no such", **span())
    assert (empty.status, empty.body.count(b"\n")) == (200, 1)


def test_answers_are_small_where_nothing_changed(console: Console) -> None:
    reader = console.reader
    first = reader.ask(path_of(OWN, "/rules"))
    again = reader.ask(path_of(OWN, "/rules"), headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert reader.ask(path_of(OWN, "/rules"), headers={"If-None-Match": '"other"'}).status == 200
    assert "no-cache" in first.headers["cache-control"]
    zipped = reader.ask(path_of(OWN, "/rules"), headers={"Accept-Encoding": "gzip"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert len(zipped.body) * 2 < len(first.body)
