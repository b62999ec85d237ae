"""Evaluations as such: killed, at once, after a pause, on long histories; and the settings of rules as people write them."""

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from iot_platform.database import connect
from iot_platform.database.deadline import BoundedCursor
from iot_platform.database.locks import advisory_lock
from iot_platform.orchestration.quality_run import check_result
from iot_platform.quality import RULES, BusyError, RulesError, evaluate, intake
from iot_platform.quality.report import read_incidents, read_states
from iot_platform.quality.rules import read_rules
from iot_platform.quality.rules_file import read_file, write_text
from iot_platform.rollups import roll_up
from iot_platform.settings import exports
from iot_platform.tenants.deletion import delete_tenant
from iot_platform_tests.support.children.killer import Killer
from iot_platform_tests.support.feeds.drain import backdate_ledger, query
from iot_platform_tests.support.feeds.quality import World

pytestmark = pytest.mark.both_editions


@pytest.mark.parametrize("place", ["cadence", "range"])
def test_killed_and_repeated_it_finds_everything_once(world: World, killer: Killer, place: str) -> None:
    for minute in range(30):
        world.send(minute, {"humidity": 50 if minute < 28 else 500})
    world.feed.flush()
    command = [sys.executable, "-m", "iot_platform_tests.support.children.quality", world.at(30).isoformat()]
    killer.kill(command, world.settings, "before_commit", f"error = NULL WHERE rule = '{place}'")
    assert query(world.settings, "SELECT count(*) FROM quality_incident WHERE rule = 'range'") == [(0,)]
    world.judge(30)
    world.judge(31)
    assert world.incidents("range") == [("device", "humidity", True, 0)]
    assert query(world.settings, "SELECT count(*) FROM quality_result WHERE rule = 'range'") == [(1,)]
    assert query(world.settings, "SELECT messages, weight FROM quality_cadence") == [(30, 29)] * 2, "of device and project, learnt once"
    assert query(world.settings, "SELECT count(DISTINCT feed_position) FROM quality_watermark WHERE rule <> 'intake'") == [(1,)]


@pytest.mark.several_sessions("two sessions at once")
def test_two_never_run_at_once(world: World) -> None:
    with (
        closing(connect(world.settings)) as other,
        advisory_lock(other, "quality", 1),
        pytest.raises(BusyError, match="another evaluation"),
    ):
        evaluate(world.settings, at=world.at(0), wait_seconds=0.1)


def test_a_rule_that_fails_is_repeated_and_stops_no_other(world: World) -> None:
    world.send(0, {"humidity": 500})
    world.feed.flush()
    query(world.settings, "ALTER TABLE quality_constant RENAME TO hidden")
    result = evaluate(world.settings, at=world.at(1), rules=("range", "stuck_value"))
    assert [error.split(":")[0] for error in result.errors] == ["stuck_value"]
    assert world.incidents("range") == [("device", "humidity", True, 0)]
    query(world.settings, "ALTER TABLE hidden RENAME TO quality_constant")
    world.judge(2)
    positions = query(world.settings, "SELECT DISTINCT feed_position FROM quality_watermark WHERE rule IN ('range', 'stuck_value')")
    assert len(positions) == 1
    assert query(world.settings, "SELECT count(error) FROM quality_watermark") == [(0,)]


def test_a_batch_that_commits_after_later_ones_is_seen(world: World) -> None:
    world.send(0, {"humidity": 50})
    world.judge(1, "range")
    world.send(1, {"humidity": 500}, "overtaken")
    world.feed.flush()
    backdate_ledger(world.settings, "5 minutes", from_offset=1)
    world.judge(2, "range")
    assert world.incidents("range") == [("overtaken", "humidity", True, 0)]


def test_after_a_long_pause_it_works_in_stretches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_RECORDS", 20)
    for minute in range(100):
        world.send(minute, {"humidity": 50 if minute != 55 else 500})
        if minute % 5 == 4:
            world.feed.flush()
    result = world.judge(100, "range", "freshness_device")
    assert result.stretches == 5
    assert world.incidents("range") == [("device", "humidity", False, 0)], "opened by one stretch, closed by the next"
    assert world.incidents("freshness_device") == []


def test_the_cost_does_not_grow_with_history(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for device in range(20):
        world.send(0, {"humidity": 40, "temp": 1}, f"device-{device}")
    world.judge(1)
    blocks = [0]
    plain = BoundedCursor.execute

    def explained(cursor: BoundedCursor, text: str, parameters: object = None) -> None:
        judging = isinstance(text, str) and "quality_" in text and "INSERT INTO quality_" in text
        if not judging or any(
            name in text for name in ("INSERT INTO quality_feed", "INSERT INTO quality_watermark", "INSERT INTO quality_late")
        ):
            plain(cursor, text, parameters)
            return
        plain(cursor, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + text, parameters)
        plan = cursor.fetchone()[0][0]["Plan"]  # type: ignore[index]
        blocks[0] += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

    def cost(minute: int) -> int:
        for device in range(20):
            world.send(minute, {"humidity": 40 + minute, "temp": minute}, f"device-{device}")
        world.feed.flush()
        roll_up(world.settings)
        query(world.settings, "ANALYZE")
        blocks[0] = 0
        with monkeypatch.context() as patch:
            patch.setattr(BoundedCursor, "execute", explained)
            evaluate(
                world.settings, at=world.at(minute + 1), rules=[rule for rule in RULES if rule not in ("completeness", "ledger_continuous")]
            )
        return blocks[0]

    history = (
        "INSERT INTO measurement (time, series_id, value) SELECT %s::timestamptz - n * interval '20 seconds', s.series_id, n"
        " FROM series s CROSS JOIN generate_series(%s, %s) n"
    )
    query(world.settings, history, world.at(-1), 1, 1_000)
    cost(2)
    short = cost(4)
    query(world.settings, history, world.at(-1), 1_001, 4_000)
    assert 0 < cost(6) < 1.5 * short, "an index that is a level deeper, a second chunk"


@pytest.mark.several_sessions("a deletion inside an open transaction of the evaluation")
def test_nothing_is_written_of_a_tenant_that_is_deleted_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for minute in range(30):
        world.send(minute, {"humidity": 500, "x": "text" if minute == 20 else 3})
    world.feed.flush()
    lay_out = intake.lay_out

    def delete_behind_it(*arguments: Any) -> Any:
        stretch = lay_out(*arguments)
        delete_tenant(world.settings, "1968193631353446400", requested_by="test")
        return stretch

    monkeypatch.setattr(intake, "lay_out", delete_behind_it)
    assert evaluate(world.settings, at=world.at(31)).errors == []
    assert query(world.settings, "SELECT count(*) FROM tenant_deletion WHERE finished_at IS NOT NULL") == [(1,)]
    for table in ("quality_incident", "quality_result", "quality_cadence"):
        assert query(world.settings, f"SELECT count(*) FROM {table}") == [(0,)], table


def test_settings_for_a_tenant_and_disabled_rules(world: World) -> None:
    tenant = "1968193631353446400"
    world.send(0, {"humidity": 500})
    world.judge(1, "range")
    world.configure(rule="range", tenant=tenant, metric="humidity", parameters={"max": 1000})
    world.send(2, {"humidity": 500})
    world.send(2, {"humidity": 2000}, "other")
    world.judge(3, "range")
    assert world.incidents("range") == [("device", "humidity", False, 0), ("other", "humidity", True, 0)]
    world.configure(rule="range", tenant=tenant, enabled=False)
    assert world.incidents("range")[1] == ("other", "humidity", False, 0)


def test_checks_are_one_per_rule_with_tenants_and_examples(world: World) -> None:
    world.send(0, {"humidity": 500})
    world.judge(1)
    with closing(connect(world.settings)) as connection:
        states = read_states(connection)
        incidents = read_incidents(connection)
    assert tuple(states) == RULES
    result = check_result(states["range"], incidents, "http://dagster")
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.metadata["tenants"].records[0].data["link"] == "http://dagster/assets/tenant?partition=1968193631353446400"  # type: ignore[union-attr]
    assert result.metadata["examples"].records[0].data["record"] == "iot trace --partition 0 --offset 0"  # type: ignore[union-attr]
    odd = check_result(replace(states["range"], by_tenant=[("a&b c/1", 1, 1), ("", 1, 0)]), incidents, "http://dagster")
    links = [record.data["link"] for record in odd.metadata["tenants"].records]  # type: ignore[union-attr]
    assert links == ["http://dagster/assets/tenant?partition=a%26b%2520c%252F1", ""]
    assert check_result(states["type_change"], [], "").passed


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("- rule: range\n  metric: t\n  parameters:\n    min: 5\n    max: a\n", r"rules.yaml:5: parameter max must be a finite number"),
        ("- rule: range\n  metric: t\n- rule: rnge\n", r"rules.yaml:3: there is no rule 'rnge'"),
        ("- rule: range\n\n  treshold: 5\n", r"rules.yaml:3: treshold: Extra inputs are not permitted"),
        ("- rule: completeness\n  severity: BAD\n", r"rules.yaml:2: severity: Input should be 'WARN' or 'ERROR'"),
        ("- rule: completeness\n  threshold: [1]\n", r"rules.yaml:2: threshold: Input should be a valid number"),
        ("- rule: range\n  metric: t\n  metric: u\n", r"rules.yaml:3: metric is set in line 2 already"),
        ("- rule: range\n  metric: t\n- metric: t\n  rule: range\n", r"rules.yaml:3: range of metric t is set in line 1 already"),
        ("- rule: range\n  threshold: .nan\n", r"rules.yaml:2: threshold: Input should be a finite number"),
        ("- rule: [\n", r"rules.yaml:2: no YAML: "),
        ("\n\nrules: 5\n", r"rules.yaml:3: expected a list of rules"),
        ("", r"rules.yaml:1: expected a list of rules"),
        ("- rule: clock_skew\n  metric: t\n", r"rules.yaml:1: clock_skew knows no metrics"),
        ("- rule: range\n  project: 5\n", r"rules.yaml:1: a project needs its tenant"),
        ("- rule: !!python/object:os.system x\n", r"rules.yaml:1: rule: "),
        ("- rule: range\n  metric: t\n  parameters:\n    min: 1\n    min: 5\n", r"rules.yaml:5: min is set twice"),
        ("- rule: stuck_value\n  tenant: t\n  threshold: 1000000000000\n", r"rules.yaml:3: threshold must be from 2 to 1,000,000"),
        ("- rule: duplicate_rate\n  threshold: 50\n", r"rules.yaml:2: threshold is a share"),
        ("- rule: rollup_equals_source\n  parameters: {sample: -5}\n", r"rules.yaml:2: parameter sample must be an integer from 0 to"),
        ('- rule: stuck_value\n  tenant: "a\\0b"\n', r"rules.yaml:1: names have no character U\+0000"),
        ("- rule: " + "[" * 3000, r"rules.yaml: no YAML: maximum recursion depth"),
    ],
)
def test_mistakes_in_a_file_are_told_with_their_line(tmp_path: Path, text: str, error: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(RulesError, match=error):
        read_file(file)


def test_the_command_line(world: World, tmp_path: Path) -> None:
    environment = {**os.environ, **exports(world.settings), "COLUMNS": "200"}

    def iot(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "iot_platform.cli.main", "quality", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout + done.stderr

    file = tmp_path / "rules.yaml"
    file.write_text("- rule: range\n  metric: temp\n  tenant: 1968193631353446400\n  parameters: {max: 50}\n- rule: nothing\n")
    code, shown = iot("rules", "import", str(file))
    assert (code, "rules.yaml:5: there is no rule 'nothing'" in shown) == (1, True), shown
    file.write_text(file.read_text().replace("nothing", "type_change\n  threshold: 1"))
    code, shown = iot("rules", "import", str(file))
    assert (code, "warning: there is no tenant '1968193631353446400' yet; there are: none" in shown) == (0, True), shown
    with closing(connect(world.settings)) as connection:
        stored = [setting for setting, _ in read_rules(connection)]
    file.write_text(write_text(stored))
    assert [item.model_dump() for item in read_file(file)] == [item.model_dump() for item in stored]
    world.send(0, {"temp": 60})
    world.judge(1)
    code, shown = iot("rules", "set", "range", "--tenant", "nobody", "enabled=false")
    assert (code, "there is no tenant 'nobody' yet; there are: 1968193631353446400" in shown) == (1, True), shown
    code, shown = iot("--rule", "nope")
    assert (code, "there is no rule 'nope'; rules: freshness_device, " in shown) == (1, True), shown
    code, shown = iot("--open", "--tenant", "1968193631353446400")
    assert (code, "60 is above 50" in shown, f"1 open incident of {len(RULES)} rules" in shown) == (1, True, True), shown
    code, shown = iot("--json", "--tenant", "another")
    assert (code, json.loads(shown)["incidents"]) == (0, [])
