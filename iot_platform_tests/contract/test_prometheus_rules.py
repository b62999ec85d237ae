"""The alert rules name metrics that the daemon has and sections that the documentation has; where promtool is, its cases pass."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ingest_daemon.figures import Totals
from ingest_daemon.metrics import Metrics
from iot_platform.diagnostics.doctor_ingest import SOON_SECONDS

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yaml"))
ALERTS = [rule for file in RULES for group in yaml.safe_load(file.read_text("utf-8"))["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_names_what_exists(rule: dict[str, object]) -> None:
    metrics = Metrics(Totals)
    metrics.show_certificates(dict)
    known = {metric.name for metric in metrics.registry.collect()}
    assert set(re.findall(r"iot_\w+", str(rule["expr"]))) <= known
    annotations = rule["annotations"]
    assert isinstance(annotations, dict)
    page, _, anchor = annotations["runbook"].partition("#")
    titles = re.findall(r"^#+ (.+)$", (ROOT / page).read_text("utf-8"), re.M)
    assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_the_doctor_warns_as_early_as_the_alert() -> None:
    (rule,) = [rule for rule in ALERTS if rule["alert"] == "IngestCertificateEnds"]
    assert f"< {SOON_SECONDS // 86_400} * 86400" in rule["expr"]


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.name)
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(file: Path) -> None:
    cases = yaml.safe_load((ROOT / "deploy" / "prometheus" / "tests" / file.name).read_text("utf-8"))["tests"]
    tried = [(one["alertname"], bool(one["exp_alerts"])) for case in cases for one in case["alert_rule_test"]]
    names = [rule["alert"] for group in yaml.safe_load(file.read_text("utf-8"))["groups"] for rule in group["rules"]]
    assert set(tried) == {(name, fires) for name in names for fires in (True, False)}
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("no promtool here: apt-get install prometheus")
    done = subprocess.run(
        [promtool, "test", "rules", str(ROOT / "deploy" / "prometheus" / "tests" / file.name)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
