"""What users of the console ask for happens once, whoever dies; and what it may be is checked when asked and when done."""

import gzip
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
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
from iot_platform.telemetry import corrections
from iot_platform.telemetry.decode import DecodeRules
from iot_platform.telemetry.errors import CorrectionError
from iot_platform.telemetry.replay.replay import Replay, Selection
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
    assert carry_out_short(settings, writer) == 5
    assert carry_out_short(settings, writer) == 0
    assert [told(settings, action)[0] for action in actions] == ["done", "done", "done", "failed", "failed"]
    assert told(settings, actions[2])[1] == "ann had acknowledged it already"
    columns = "SELECT silenced_until, silence_reason, silenced_by, acknowledged_by FROM quality_incident WHERE incident_id = %s"
    assert query(settings, columns, own) == [(until, "pump is being cleaned", "ann", "ann")]
    assert query(settings, columns, others) == [(None, "", "", "")]
    ask(settings, "silence-incident", {"incident_id": str(own), "until": None})
    carry_out_short(settings, writer)
    assert query(settings, columns, own) == [(None, "", "", "ann")]


def test_a_rule_is_changed_for_its_tenant_and_a_bad_one_changes_nothing(settings: Settings, writer: Connection) -> None:
    limits = {"rule": "range", "metric": "temp", "parameters": {"min": -40, "max": 85}, "threshold": 2, "window_seconds": 600}
    good = ask(settings, "change-rule", limits)
    crossed = ask(settings, "change-rule", {"rule": "range", "metric": "temp", "parameters": {"min": 100}})  # max is 85
    after = ask(settings, "change-rule", {"rule": "clock_skew", "project": PROJECT, "enabled": False})
    assert carry_out_short(settings, writer) == 3
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
    assert carry_out_short(settings, writer) == 5
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


def complete(settings: Settings, writer: Connection, action: int) -> None:
    """The next run, unless the one that was killed had noted that the action is done."""
    if told(settings, action)[0] != "done":
        eventually(lambda: waiting(writer) == action)  # the server has noticed that the lock's session is gone
        assert carry_out_replays(settings) == 1


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
    complete(named, writer, action)
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
    carry_out_short(settings, writer)
    assert [told(settings, action) for action in actions] == [("done", "changed")] * 4
    assert query(settings, "SELECT display_name FROM series_info_change ORDER BY change_id") == [(f"name {number}",) for number in range(4)]


CODEC = {"topic_codecs": [{"topic": "mtic/msg/client/realtime/+/+", "codec": "json", "compression": "gzip"}]}


def zipped(settings: Settings, count: int, first: int = 0, tenant: str = TENANT) -> None:
    """Compressed messages, of which the platform's rules know nothing."""
    feed, now = Feed(settings), time.time_ns() // 1_000_000
    for number in range(first, first + count):
        payload = {"deviceId": f"d{number % 7}", "ts": now - number, "flow": number}
        feed.send(gzip.compress(json.dumps(payload).encode()), topic=f"mtic/msg/client/realtime/{tenant}/{PROJECT}", partition=number % 2)
    feed.flush()
    drain(settings)


def counts(settings: Settings) -> tuple[int, int, int]:
    """Quarantined messages, stored ones, measurements."""
    sums = "SELECT (SELECT count(*) FROM quarantine), (SELECT count(*) FROM message), (SELECT count(*) FROM measurement)"
    (found,) = query(settings, sums)
    return found


def test_a_dry_run_shows_what_the_corrected_rule_would_do_and_changes_nothing(settings: Settings) -> None:
    zipped(settings, 10)
    rows = query(
        settings,
        "SELECT kafka_partition, kafka_offset, topic, payload, (extract(epoch FROM received_at) * 1000000)::bigint, reason FROM quarantine"
        " ORDER BY 1, 2",
    )
    messages, rules = [dry_run.Stored(*row) for row in rows], DecodeRules.from_settings(settings)
    today = dry_run.dry_run(rules, TENANT, messages)
    assert (today.would_store, today.still_refused, today.left) == (0, 10, 0)
    assert today.examples[0].words.startswith("not_utf8")
    then = dry_run.dry_run(rules, TENANT, messages, dry_run.correcting(settings, TENANT, CODEC))
    assert (then.would_store, then.still_refused) == (10, 0)
    assert then.examples[0].words == f"1 measurement of device 'd0' in project {PROJECT}"
    late = dry_run.dry_run(rules, TENANT, messages, dry_run.correcting(settings, TENANT, {**CODEC, "time_pointers": ["/flow"]}))
    assert (late.would_store, late.examples[0].words.partition(":")[0]) == (0, "time_out_of_range")
    stolen = dry_run.dry_run(rules, OTHER, messages, dry_run.correcting(settings, OTHER, CODEC))
    assert (stolen.would_store, stolen.examples[0].words) == (0, "another tenant's")
    assert dry_run.dry_run(rules, TENANT, messages, seconds=0).left == 10
    assert counts(settings) == (10, 0, 0)


def test_a_replay_takes_its_correction_along_and_leaves_all_others_alone(settings: Settings, writer: Connection) -> None:
    zipped(settings, 40)
    zipped(settings, 5, tenant=OTHER)
    action = ask(settings, "replay", {**hour(), "rule": CODEC})
    assert carry_out_replays(settings) == 1
    assert told(settings, action) == ("done", "40 messages left quarantine with 40 measurements")
    assert query(settings, "SELECT DISTINCT tenant_id FROM quarantine") == [(OTHER,)]
    assert counts(settings) == (5, 40, 40)
    check_books(settings)
    (kept,) = corrections.corrections(writer, TENANT)
    assert (kept.said, kept.created_by, kept.reason) == (CODEC, "ann", "")
    assert kept.received_to is not None
    # Decoded again, for whatever reason, each message gives what it gave: nothing is refused, missing or there twice.
    again = Replay(settings, Selection(tenant=TENANT)).run()
    assert (again.complete, again.refused, again.completed, again.measurements) == (40, 0, 0, 0)
    # It ends where the replay ended: what comes later is decoded by the platform's rules alone.
    query(settings, "UPDATE decode_correction SET received_to = now()")
    zipped(settings, 3, 100)
    assert counts(settings) == (8, 40, 40)


def test_a_kept_correction_counts_for_what_comes_until_it_is_ended(settings: Settings, writer: Connection) -> None:
    zipped(settings, 4)
    ask(settings, "replay", {**hour(), "rule": CODEC, "keep": True})
    carry_out_replays(settings)
    zipped(settings, 6, 100)
    assert counts(settings) == (0, 10, 10)
    feed = Feed(settings)
    feed.send(b'{"deviceId":"plain","flow":1}')  # what the platform's rules take is theirs
    feed.flush()
    drain(settings)
    assert counts(settings) == (0, 11, 11)
    (kept,) = corrections.corrections(writer)
    others = ask(settings, "end-correction", {"correction_id": str(kept.correction_id)}, tenant=OTHER)
    ended = ask(settings, "end-correction", {"correction_id": str(kept.correction_id)}, who="bob")
    at_once = settings.model_copy(update={"drain_shift_seconds": -corrections.SHIFT_MARGIN_SECONDS})
    assert carry_out_short(at_once, writer) == 2
    assert (told(settings, others)[0], told(settings, ended)[0]) == ("failed", "done")
    assert corrections.corrections(writer)[0].ended_by == "bob"
    zipped(settings, 2, 200)
    assert counts(settings) == (2, 11, 11)
    again = Replay(settings, Selection()).run()
    assert (again.complete, again.refused, again.still_bad) == (11, 0, 2)
    check_books(settings)


def test_of_several_corrections_the_oldest_that_decodes_a_message_counts(settings: Settings, writer: Connection) -> None:
    zipped(settings, 7)
    bad = ask(settings, "replay", {**hour(), "rule": {**CODEC, "time_pointers": ["/flow"]}})
    first = ask(settings, "replay", {**hour(), "rule": CODEC})
    assert carry_out_replays(settings) == 2
    assert told(settings, bad) == ("done", "0 messages left quarantine with 0 measurements; 7 stay (not_utf8: 7)")
    assert told(settings, first) == ("done", "7 messages left quarantine with 7 measurements")
    later = ask(settings, "replay", {**hour(), "rule": {**CODEC, "device_pointers": ["/ts"]}})
    moved = settings.model_copy(update={"default_timezone": "Asia/Shanghai", "device_pointers": ("/nothing",)})
    assert carry_out_replays(moved) == 1  # even under other settings of the platform
    assert told(settings, later) == ("done", "0 messages left quarantine with 0 measurements")
    again = Replay(moved, Selection()).run()
    assert (again.complete, again.completed, again.measurements) == (7, 0, 0)


def test_an_administrator_may_take_in_what_names_no_tenant(settings: Settings, writer: Connection) -> None:
    quarantine(settings, 6)  # their topic names no project, so it does not fit
    said = {"topic_pattern": "mtic/msg/client/realtime/{tenant}", "project_pointers": ["/deviceId"], "time_pointers": ["/when"]}
    now = datetime.now(UTC)
    span = now - timedelta(hours=1), now + timedelta(hours=1)
    own = corrections.Wanted(TENANT, said, *span)
    corrections.add(writer, settings, own, who="ann")
    corrections.add(writer, settings, replace(own, tenant=OTHER, topic_filter="#"), who="ann")  # it makes none of OTHER's of them
    writer.commit()
    assert Replay(settings, Selection(quarantined=True)).run().moved == 0
    corrections.add(writer, settings, replace(own, topic_filter="mtic/msg/client/realtime/+"), who="ann")
    writer.commit()
    assert Replay(settings, Selection(quarantined=True)).run().moved == 6
    assert query(settings, "SELECT count(DISTINCT project_id) FROM project WHERE tenant_id = %s", TENANT) == [(6,)]
    check_books(settings)


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"zone": "x"}, "is none of"),
        ({"default_timezone": "Mars/Base"}, "default_timezone"),
        ({"topic_pattern": "{tenant}/{tenant}"}, "topic_pattern"),
        ({"topic_codecs": [{"topic": "#", "codec": "sparkplug_b", "tenant": TENANT, "project": "p"}]}, "births"),
    ],
)
def test_a_correction_that_means_nothing_is_refused_and_stands_in_nobodys_way(
    settings: Settings, writer: Connection, rule: dict[str, Any], field: str
) -> None:
    with pytest.raises(CorrectionError) as caught:
        corrections.add(writer, settings, corrections.Wanted(TENANT, rule, datetime.now(UTC), None), who="ann")
    assert field in f"{caught.value} {caught.value.field}"
    writer.rollback()
    assert corrections.corrections(writer) == []


def test_a_tenant_has_so_many_corrections_at_most(settings: Settings, writer: Connection) -> None:
    wanted = corrections.Wanted(TENANT, {"default_timezone": "Asia/Shanghai"}, datetime.now(UTC), None)
    for _ in range(corrections.MOST):
        corrections.add(writer, settings, wanted, who="ann")
    with pytest.raises(CorrectionError, match="put what they say into the platform's settings"):
        corrections.add(writer, settings, wanted, who="ann")


@pytest.mark.parametrize(
    ("point", "statement"),
    [
        pytest.param("before_commit", "INSERT INTO decode_correction", id="before_it_is_there"),
        pytest.param("answer_lost", "INSERT INTO decode_correction", id="there_without_knowing"),
        pytest.param("before_commit", "DELETE FROM quarantine", id="in_the_replay"),
    ],
)
def test_a_corrected_replay_that_is_killed_is_completed_with_one_correction(
    settings: Settings, writer: Connection, killer: Killer, point: Point, statement: str
) -> None:
    zipped(settings, 200)
    action = ask(settings, "replay", {**hour(), "rule": CODEC})
    small = settings.model_copy(update={"drain_batch_records": 64})
    killer.kill((*COMMAND, "replays"), small, point, statement, 1)
    complete(small, writer, action)
    assert told(settings, action) == ("done", "200 messages left quarantine with 200 measurements")
    assert len(corrections.corrections(writer)) == 1
    check_books(settings)
    assert counts(settings) == (0, 200, 200)
