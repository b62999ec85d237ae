"""What users of the console ask for happens once, whoever dies; and what it may be is checked when asked and when done."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.actions import dry_run, parse_request
from iot_platform.actions.queue import carry_out_short, waiting
from iot_platform.actions.replays import carry_out_replays
from iot_platform.database import LockTimeoutError, connect
from iot_platform.database.locks import advisory_lock
from iot_platform.drills.rig.wire import Point
from iot_platform.settings import Settings
from iot_platform.tenants.series_info import SeriesInfo, read
from iot_platform_tests.support.children.killer import Killer
from iot_platform_tests.support.feeds.drain import Feed, check_books, drain, query
from iot_platform_tests.support.waiting import eventually

TENANT, PROJECT, OTHER = "1968193631353446400", "1968193691042586624", "another-tenant"
COMMAND = (sys.executable, "-m", "iot_platform_tests.support.children.actions")


@pytest.fixture
def writer(settings: Settings) -> Iterator[Connection]:
    with closing(connect(settings)) as connection:
        yield connection


def ask(settings: Settings, kind: str, arguments: dict[str, Any], tenant: str = TENANT, who: str = "ann") -> int:
    """As the console's API does, after its check."""
    request = parse_request(tenant, kind, arguments)
    ((action,),) = query(
        settings,
        "INSERT INTO console_action (tenant_id, kind, arguments, requested_by) VALUES (%s, %s, %s, %s) RETURNING action_id",
        tenant,
        kind,
        json.dumps(request.model_dump(mode="json")),
        who,
    )
    return int(action)


def told(settings: Settings, action: int) -> tuple[str, str]:
    ((state, words),) = query(settings, "SELECT state, words FROM console_action WHERE action_id = %s", action)
    return state, words


def hour() -> dict[str, str]:
    now = datetime.now(UTC)
    return {"from": (now - timedelta(hours=1)).isoformat(), "to": (now + timedelta(minutes=5)).isoformat()}


def incident(settings: Settings, tenant: str = TENANT) -> int:
    ((number,),) = query(
        settings,
        "INSERT INTO quality_incident (opened_at, last_seen_at, told_at, clear_seconds, hold_seconds, rule, tenant_id, project_id,"
        " device_id, metric, severity, message)"
        " VALUES (now(), now(), now(), 0, 0, 'freshness_device', %s, 'p', 'd', '', 'WARN', 'd is silent') RETURNING incident_id",
        tenant,
    )
    return int(number)


def quarantine(settings: Settings, count: int) -> None:
    """Messages whose topic names no project."""
    feed, now = Feed(settings), time.time_ns() // 1_000_000
    for number in range(count):
        payload = {"deviceId": f"d{number % 7}", "when": now - number, "flow": number}
        feed.send(json.dumps(payload).encode(), topic=f"mtic/msg/client/realtime/{TENANT}", partition=number % 2)
    feed.flush()
    drain(settings)


def test_incidents_are_silenced_and_acknowledged_by_their_own_tenant_only(settings: Settings, writer: Connection) -> None:
    own, others = incident(settings), incident(settings, OTHER)
    until = datetime.now(UTC) + timedelta(hours=2)
    silence = {"incident_id": str(own), "until": until.isoformat(), "reason": "pump is being cleaned"}
    actions = [
        ask(settings, "silence-incident", silence),
        ask(settings, "acknowledge-incident", {"incident_id": str(own)}),
        ask(settings, "acknowledge-incident", {"incident_id": str(own)}, who="bob"),
        ask(settings, "acknowledge-incident", {"incident_id": str(others)}),
        ask(settings, "silence-incident", {**silence, "incident_id": str(others)}),
    ]
    assert carry_out_short(writer) == 5
    assert carry_out_short(writer) == 0
    assert [told(settings, action)[0] for action in actions] == ["done", "done", "done", "failed", "failed"]
    assert told(settings, actions[2])[1] == "ann had acknowledged it already"
    columns = "SELECT silenced_until, silence_reason, silenced_by, acknowledged_by FROM quality_incident WHERE incident_id = %s"
    assert query(settings, columns, own) == [(until, "pump is being cleaned", "ann", "ann")]
    assert query(settings, columns, others) == [(None, "", "", "")]
    ask(settings, "silence-incident", {"incident_id": str(own), "until": None})
    carry_out_short(writer)
    assert query(settings, columns, own) == [(None, "", "", "ann")]


def test_a_rule_is_changed_for_its_tenant_and_a_bad_one_changes_nothing(settings: Settings, writer: Connection) -> None:
    limits = {"rule": "range", "metric": "temp", "parameters": {"min": -40, "max": 85}, "threshold": 2, "window_seconds": 600}
    good = ask(settings, "change-rule", limits)
    crossed = ask(settings, "change-rule", {"rule": "range", "metric": "temp", "parameters": {"min": 100}})  # max is 85
    after = ask(settings, "change-rule", {"rule": "clock_skew", "project": PROJECT, "enabled": False})
    assert carry_out_short(writer) == 3
    assert (told(settings, good)[0], told(settings, crossed)[0], told(settings, after)[0]) == ("done", "failed", "done")
    assert "min would be greater than max" in told(settings, crossed)[1]
    rows = (
        "SELECT rule, tenant_id, project_id, metric, enabled, threshold, window_seconds, parameters FROM quality_rule WHERE tenant_id <> ''"
    )
    assert query(settings, f"{rows} ORDER BY rule") == [
        ("clock_skew", TENANT, PROJECT, "", False, None, None, {}),
        ("range", TENANT, "", "temp", None, 2.0, 600, {"min": -40, "max": 85}),
    ]


def test_what_people_say_of_a_series_is_kept_with_its_history(settings: Settings, writer: Connection) -> None:
    feed = Feed(settings)
    feed.send(b'{"deviceId":"pump","flow":1.5,"temp":2}')
    feed.flush()
    drain(settings)
    series = {"project": PROJECT, "device": "pump", "metric": "flow"}
    said = {**series, "display_name": "主泵流量 %s", "unit": "m³/h", "valid_min": 0, "valid_max": 120.5, "description": "O'Brien's"}
    first, again = ask(settings, "change-series-info", said), ask(settings, "change-series-info", said)
    cleared = ask(settings, "change-series-info", series, who="bob")
    unknown = ask(settings, "change-series-info", {**said, "metric": "nothing"})
    others = ask(settings, "change-series-info", said, tenant=OTHER)
    assert carry_out_short(writer) == 5
    assert [told(settings, action)[1] for action in (first, again, cleared)] == ["changed", "nothing to change", "changed"]
    assert [told(settings, action)[0] for action in (unknown, others)] == ["failed", "failed"]
    changes = "SELECT display_name, unit, valid_min, valid_max, description, changed_by FROM series_info_change ORDER BY change_id"
    assert query(settings, changes) == [
        ("主泵流量 %s", "m³/h", 0.0, 120.5, "O'Brien's", "ann"),
        ("", "", None, None, "", "bob"),
    ]
    query(settings, "UPDATE series_info SET unit = 'l/s', display_name = 'shown' WHERE changed_by = 'bob'")
    shown = "SELECT metric, unit, display_name FROM {} WHERE tenant_id = %s ORDER BY 1"
    for view in ("latest_named", "series_named"):  # what Grafana asks
        assert query(settings, shown.format(view), TENANT) == [("flow", "l/s", "shown"), ("temp", None, "")]
    query(settings, "UPDATE series_info SET unit = '', display_name = ''")
    assert list(read(writer, TENANT)) == [SeriesInfo(PROJECT, "pump", "flow"), SeriesInfo(PROJECT, "pump", "temp")]


def project_named(settings: Settings) -> Settings:
    """The rule that was missing: the project is in the payload's topic-less messages."""
    return settings.model_copy(update={"topic_pattern": "mtic/msg/client/realtime/{tenant}", "project_pointers": ("/deviceId",)})


def test_a_replay_tells_how_far_it_is_and_what_stays(settings: Settings, writer: Connection) -> None:
    quarantine(settings, 40)
    assert query(settings, "SELECT DISTINCT reason FROM quarantine") == [("topic_mismatch",)]
    before = ask(settings, "replay", {**hour(), "reason": "topic_mismatch"})
    assert waiting(writer) == before
    assert carry_out_replays(settings) == 1
    assert waiting(writer) is None
    after = ask(settings, "replay", hour())
    assert carry_out_replays(project_named(settings)) == 1
    assert told(settings, after) == ("done", "40 messages left quarantine with 80 measurements")
    assert query(settings, "SELECT done, total FROM console_action WHERE action_id = %s", after) == [(40, 40)]
    assert query(settings, "SELECT (SELECT count(*) FROM quarantine), (SELECT count(*) FROM message)") == [(0, 40)]
    with closing(connect(settings)) as other, advisory_lock(other, "console-actions", 5), pytest.raises(LockTimeoutError):
        carry_out_replays(settings, wait_seconds=0.1)


@pytest.mark.parametrize(
    ("point", "statement"),
    [
        pytest.param("before_commit", "DELETE FROM quarantine", id="in_the_replay"),
        pytest.param("answer_lost", "DELETE FROM quarantine", id="replayed_without_knowing"),
        pytest.param("before_commit", "SET state = ", id="before_it_is_noted"),
        pytest.param("answer_lost", "SET state = ", id="noted_without_knowing"),
    ],
)
def test_a_replay_that_is_killed_is_completed_by_the_next_run(
    settings: Settings, writer: Connection, killer: Killer, point: Point, statement: str
) -> None:
    quarantine(settings, 200)
    action = ask(settings, "replay", hour())
    named = project_named(settings).model_copy(update={"drain_batch_records": 64})
    killer.kill((*COMMAND, "replays"), named, point, statement, 2)
    if told(settings, action)[0] != "done":
        eventually(lambda: waiting(writer) == action)  # the server has noticed that the lock's session is gone
        assert carry_out_replays(named) == 1
    assert told(settings, action) == ("done", "200 messages left quarantine with 400 measurements")
    assert carry_out_replays(named) == 0
    check_books(settings)
    assert query(settings, "SELECT (SELECT count(*) FROM quarantine), (SELECT count(*) FROM message)") == [(0, 200)]


@pytest.mark.parametrize("point", ["before_commit", "in_commit", "answer_lost"])
def test_a_short_action_whose_process_is_killed_happens_once(settings: Settings, writer: Connection, killer: Killer, point: Point) -> None:
    feed = Feed(settings)
    feed.send(b'{"deviceId":"pump","flow":1.5}')
    feed.flush()
    drain(settings)
    series = {"project": PROJECT, "device": "pump", "metric": "flow"}
    actions = [ask(settings, "change-series-info", {**series, "display_name": f"name {number}"}) for number in range(4)]
    killer.kill((*COMMAND, "short"), settings, point, "INSERT INTO series_info AS i", 2)
    carry_out_short(writer)
    assert [told(settings, action) for action in actions] == [("done", "changed")] * 4
    assert query(settings, "SELECT display_name FROM series_info_change ORDER BY change_id") == [(f"name {number}",) for number in range(4)]


def test_a_dry_run_shows_what_the_corrected_rule_would_do_and_changes_nothing(settings: Settings) -> None:
    quarantine(settings, 10)
    rows = query(
        settings,
        "SELECT kafka_partition, kafka_offset, topic, payload, (extract(epoch FROM received_at) * 1000000)::bigint, reason FROM quarantine"
        " ORDER BY 1, 2",
    )
    messages = [dry_run.Quarantined(*row) for row in rows]
    today = dry_run.dry_run(dry_run.rules_with(settings, {}), TENANT, messages)
    assert (today.would_store, today.still_refused, today.left) == (0, 10, 0)
    assert today.examples[0].words.startswith("topic_mismatch")
    corrected = {"topic_pattern": "mtic/msg/client/realtime/{tenant}", "project_pointers": ["/deviceId"], "time_pointers": ["/when"]}
    then = dry_run.dry_run(dry_run.rules_with(settings, corrected), TENANT, messages)
    assert (then.would_store, then.still_refused) == (10, 0)
    assert then.examples[0].words == "1 measurement of device 'd0' in project d0"
    stolen = dry_run.dry_run(dry_run.rules_with(settings, corrected), OTHER, messages)
    assert (stolen.would_store, stolen.examples[0].words) == (0, "another tenant's")
    assert dry_run.dry_run(dry_run.rules_with(settings, {}), TENANT, messages, seconds=0).left == 10
    assert query(settings, "SELECT count(*) FROM quarantine") == [(10,)]
