"""The alert rules name what exists (metrics, runbooks, sections), each has a case in which it fires and one in which it stays quiet, and
what promtool accepts in silence is not there. Where promtool is, its cases pass; `make test-deploy` runs them on more versions."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from iot_platform.diagnostics.doctor_ingest import SOON_SECONDS
from iot_platform.drills.alert_plan import LIVE, PROMTOOL_ONLY
from iot_platform.drills.catalog import all_drills
from iot_platform.drills.rig.paced_rules import paced_groups
from iot_platform.metrics.definitions import FRESHNESS_BUCKETS
from iot_platform_tests.support.deploy.promtool import promtool_cases
from iot_platform_tests.support.oracles.grafana_prometheus import series_names
from scripts import exporters_table, metrics_page

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yaml"))
GROUPS: dict[Path, list[dict[str, Any]]] = {file: yaml.safe_load(file.read_text("utf-8"))["groups"] for file in RULES}
ALERTS = [rule for groups in GROUPS.values() for group in groups for rule in group["rules"] if "alert" in rule]
FOREIGN = {
    "up",  # Prometheus' own
    "alertmanager_notifications_failed_total",
    *(row.name for row in exporters_table.rows()),  # which test_exporters.py finds on their pages
}
SCRAPE_SECONDS = 15
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SECTIONS = {
    ".md": ["Meaning", "Impact", "Diagnosis", "Mitigation", "How to see that it is over"],
    ".zh-CN.md": ["含义", "影响", "诊断", "处理", "如何看出已结束"],
}
EACH = pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
FILES = pytest.mark.parametrize("file", RULES, ids=lambda file: file.name)


def cases(file: Path) -> dict[str, Any]:
    """The promtool file of a rule file."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "tests" / file.name).read_text("utf-8"))
    return found


@EACH
def test_an_alert_names_what_exists(rule: dict[str, Any]) -> None:
    parts = [row for part in metrics_page.rows() for row in part]
    histograms = {f"{name}{end}" for name, kind, *_ in parts if kind == "histogram" for end in ("_bucket", "_count")}
    known = {name for name, *_ in parts} | histograms | FOREIGN
    records = {other["record"] for groups in GROUPS.values() for group in groups for other in group["rules"] if "record" in other}
    assert series_names(rule["expr"]) <= known | records
    for bound in re.findall(r'\ble="([^"]*)"', rule["expr"]):
        assert bound in {str(float(bound)) for bound in FRESHNESS_BUCKETS}, "as prometheus_client writes it, and Prometheus 3 stores it"


@EACH
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    name, labels, annotations = rule["alert"], rule["labels"], rule["annotations"]
    assert labels.keys() == {"severity", "area"}
    assert labels["severity"] in {"critical", "warning"}
    assert annotations.keys() == {"summary", "summary_zh", "runbook"}
    assert re.search(r"[一-鿿]", annotations["summary_zh"])
    shown = [sorted(re.findall(r"\{\{.*?\}\}", annotations[name])) for name in ("summary", "summary_zh")]
    assert shown[0] == shown[1]
    assert annotations["runbook"] == f"docs/runbooks/{name}.md"
    for end, sections in SECTIONS.items():
        page = (ROOT / "docs" / "runbooks" / f"{name}{end}").read_text("utf-8")
        assert page.startswith(f"# {name}\n")
        assert re.findall(r"^## (.+)$", page, re.M) == sections
        assert re.search(r"^```sh\n.+\n```", page, re.M | re.S)


@EACH
def test_ranges_hold_four_scrapes(rule: dict[str, Any]) -> None:
    for number, unit in re.findall(r"\[(\d+)([smhd])\]", rule["expr"]):
        assert int(number) * SECONDS[unit] >= 4 * SCRAPE_SECONDS


def test_each_alert_is_there_once_and_on_the_page() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(names) == len(set(names))
    runbooks = {path.name.partition(".")[0] for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert runbooks == set(names)
    for page, end in (("alerts.md", ".md"), ("alerts.zh-CN.md", ".zh-CN.md")):
        text = (ROOT / "docs" / page).read_text("utf-8")
        shown = re.findall(rf"^\| \[(\w+)\]\(runbooks/\1{re.escape(end)}\) \| (\w+) \|", text, re.M)
        assert shown == [(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS]


def test_each_alert_has_a_live_drill_or_a_reason_for_none() -> None:
    assert [*LIVE, *PROMTOOL_ONLY] == list(dict.fromkeys([*LIVE, *PROMTOOL_ONLY]))
    assert LIVE.keys() | PROMTOOL_ONLY.keys() == {rule["alert"] for rule in ALERTS}
    assert {live.drill for live in LIVE.values()} == {drill.name for drill in all_drills() if drill.group == "alerts"}
    for page in ("alerts.md", "alerts.zh-CN.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        rows = re.findall(r"^\|[^|]*\| (\w+) \| ([\d.]+) \| \d+ (?:s|秒) \| (?:< )?\d+ (?:s|秒) \|$", text, re.M)
        assert {name: float(factor) for name, factor in rows} == {name: live.divided_by for name, live in LIVE.items()}
        told = re.findall(r"^- ((?:\w+(?:, |、)?)+)[:：]", text, re.M)
        assert PROMTOOL_ONLY.keys() == {name for names in told for name in re.split(", |、", names)}


def test_rules_at_another_pace_are_rules(tmp_path: Path) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("no promtool here: .ci/run installs it")
    factors, ages = {name: live.divided_by for name, live in LIVE.items()}, frozenset(LIVE)
    for file, groups in GROUPS.items():
        (tmp_path / file.name).write_text(yaml.safe_dump({"groups": paced_groups(groups, factors, ages)}), "utf-8")
    subprocess.run([promtool, "check", "rules", *sorted(tmp_path.glob("*.yaml"))], check=True, capture_output=True)


@FILES
def test_no_rule_reads_a_record_of_another_group(file: Path) -> None:
    for group in GROUPS[file]:
        own: set[str] = set()
        for rule in group["rules"]:
            assert {name for name in series_names(rule["expr"]) if ":" in name} <= own, "its group's earlier records only"
            own |= {rule["record"]} if "record" in rule else set()


@FILES
def test_cases_run_at_the_interval_of_the_group(file: Path) -> None:
    found = cases(file)
    assert found["rule_files"] == [f"../rules/{file.name}"]
    assert {group["interval"] for group in GROUPS[file]} == {found["evaluation_interval"]}


@FILES
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(file: Path) -> None:
    tried = [(one["alertname"], bool(one["exp_alerts"])) for case in cases(file)["tests"] for one in case["alert_rule_test"]]
    names = [rule["alert"] for group in GROUPS[file] for rule in group["rules"] if "alert" in rule]
    assert set(tried) == {(name, fires) for name in names for fires in (True, False)}


def test_the_cases_pass() -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("no promtool here: .ci/run installs it")
    promtool_cases(promtool)


def test_the_doctor_warns_as_early_as_the_alert() -> None:
    (rule,) = [rule for rule in ALERTS if rule["alert"] == "IngestCertificateEnds"]
    assert f"< {SOON_SECONDS // 86_400} * 86400" in rule["expr"]
