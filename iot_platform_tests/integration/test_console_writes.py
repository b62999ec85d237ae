"""Writes and the live feed through the real server: who may ask, what comes back, what the log says."""

import http.client
import json
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from iot_platform.actions.queue import carry_out_short
from iot_platform.actions.replays import carry_out_replays
from iot_platform.database import connect
from iot_platform_tests.support.feeds.direct import DirectFeed
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.tenants import OTHER, OWN, SECRET
from iot_platform_tests.support.servers.console import Browser, Console, path_of

INFO = {"project": "plant-0", "device": "pump-0", "metric": "flow"}


def hours() -> dict[str, str]:
    now = datetime.now(UTC)
    return {"from": (now - timedelta(hours=5)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}


def action_of(browser: Browser, action: str) -> dict[str, Any]:
    found = browser.ask(path_of(OWN, f"/actions/{action}")).document
    assert isinstance(found, dict)
    return found


def test_what_an_operator_asks_for_is_done_and_stands_in_the_log(console: Console) -> None:
    operator = console.browser("operator")
    ((incident,),) = query(console.settings, "SELECT incident_id FROM quality_incident WHERE tenant_id = %s", OWN)
    silence = {"incident_id": str(incident), "until": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "reason": "cleaning"}
    asked = [
        operator.ask(path_of(OWN, "/actions"), "POST", {"kind": "silence-incident", "arguments": silence}),
        operator.ask(path_of(OWN, "/actions"), "POST", {"kind": "acknowledge-incident", "arguments": {"incident_id": str(incident)}}),
        operator.ask(path_of(OWN, "/rules/range"), "PUT", {"metric": "flow", "parameters": {"min": 0, "max": 500}}),
        operator.ask(path_of(OWN, "/series-info"), "PUT", {"display_name": "主泵", "unit": "m³/h"}, **INFO),
        operator.ask(path_of(OWN, "/actions"), "POST", {"kind": "replay", "arguments": hours()}),
    ]
    assert [answer.status for answer in asked] == [202] * 5
    ids = [answer.document["action_id"] for answer in asked]
    assert action_of(operator, ids[0])["state"] == "queued"
    with closing(connect(console.settings)) as writer:
        assert carry_out_short(console.settings, writer) == 4
    assert carry_out_replays(console.settings) == 1
    done = [action_of(operator, action) for action in ids]
    assert [item["state"] for item in done] == ["done"] * 5
    assert {item["requested_by"] for item in done} == {"operator"}
    first = operator.ask(path_of(OWN, "/actions"), limit="3").document
    rest = operator.ask(path_of(OWN, "/actions"), after=first["next"]).document
    assert [item["action_id"] for item in first["actions"] + rest["actions"]] == ids[::-1]
    (shown,) = operator.ask(path_of(OWN, "/incidents")).document["incidents"]
    assert (shown["silence_reason"], shown["acknowledged_by"]) == ("cleaning", "operator")
    assert operator.ask(path_of(OWN, "/series-info"), **INFO).document["display_name"] == "主泵"


def test_who_may_not_ask_is_refused_and_nothing_is_queued(console: Console) -> None:
    action = {"kind": "acknowledge-incident", "arguments": {"incident_id": "1"}}
    path = path_of(OWN, "/actions")
    before = query(console.settings, "SELECT count(*) FROM console_action")
    viewer, other, operator = console.browser("own"), console.browser("other"), console.browser("operator")
    assert viewer.ask(path, "POST", action).problem == "not-allowed"
    assert other.ask(path, "POST", action).problem == "no-such-tenant"
    assert console.reader.ask(path, "POST", action).problem == "not-allowed"
    assert console.browser().ask(path, "POST", action).problem == "not-logged-in"
    operator.csrf = ""
    assert operator.ask(path, "POST", action).problem == "wrong-csrf-token"
    for wrong, field in (
        ({"kind": "drop", "arguments": {}}, "kind"),
        ({"kind": "silence-incident", "arguments": {"incident_id": "1"}}, "arguments.until"),
        ({"kind": "replay", "arguments": {**hours(), "from": 0}}, "arguments.from"),
    ):
        refused = console.browser("operator").ask(path, "POST", wrong)
        assert (refused.status, refused.document["errors"][0]["field"]) == (422, field)
    assert query(console.settings, "SELECT count(*) FROM console_action") == before
    assert other.ask(path_of(OTHER, "/actions")).document == {"actions": [], "next": None}
    assert other.ask(path_of(OTHER, "/actions/1")).problem == "not-found"


def test_a_dry_run_reads_what_the_tenant_has(console: Console) -> None:
    operator = console.browser("operator")
    body = {**hours(), "rule": {}}
    outcome = operator.ask(path_of(OWN, "/quarantine/dry-run"), "POST", body).document
    assert (outcome["would_store"], outcome["still_refused"], outcome["left"]) == (0, 1, 0)
    codec = [{"topic": f"mtic/msg/client/realtime/{OWN}/plant-0", "codec": "scalar", "metric": "text", "device": "d"}]
    refused = operator.ask(path_of(OWN, "/quarantine/dry-run"), "POST", {**hours(), "rule": {"topic_codecs": codec, "zone": "x"}})
    assert refused.document["errors"][0]["field"] == "rule.zone"
    assert not SECRET.search(json.dumps(outcome))
    assert console.browser("own").ask(path_of(OWN, "/quarantine/dry-run"), "POST", body).problem == "not-allowed"


def test_the_live_stream_over_http(console: Console) -> None:
    head = console.reader.ask(path_of(OWN, "/live"), "HEAD")
    assert (head.status, head.headers["content-type"].partition(";")[0], head.body) == (200, "text/event-stream", b"")
    assert console.browser("other").ask(path_of(OWN, "/live")).problem == "no-such-tenant"
    with closing(http.client.HTTPConnection("127.0.0.1", console.port, timeout=120)) as connection:
        connection.request("GET", "/api/v1" + path_of(OWN, "/live"), headers={"Authorization": f"Bearer {console.key}"})
        response = connection.getresponse()
        assert (response.status, response.headers["cache-control"]) == (200, "no-store")

        def until(event: str) -> dict[str, Any]:
            while True:
                lines = {}
                while line := response.readline().decode().strip():
                    name, _, value = line.partition(": ")
                    lines[name] = value
                if lines.get("event") == event:
                    return json.loads(lines["data"]) | {"id": lines.get("id", "")}

        assert until("resync")["id"]
        assert until("state")["connected"] is True
        with closing(DirectFeed(console.settings)) as feed:
            payload = {"deviceId": "pump-0", "ts": time.time_ns() // 1000, "flow": 4711.5}
            feed.send(datetime.now(UTC), payload, f"mtic/msg/client/realtime/{OWN}/plant-0")
            feed.flush()
        values = until("values")
        assert (values["columns"]["device"], values["columns"]["value"]) == (["pump-0"], [4711.5])
