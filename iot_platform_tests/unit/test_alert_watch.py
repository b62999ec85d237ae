"""What the alert drills take for a false alarm, and when an alert is told and ended."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from iot_platform.drills.rig.alert_watch import AlertWatch
from iot_platform.drills.rig.drill_run import DrillError, DrillRun


@contextmanager
def fault(_what: str) -> Iterator[SimpleNamespace]:
    """As DrillRun's."""
    yield SimpleNamespace(began=time.monotonic())


@pytest.fixture
def run() -> SimpleNamespace:
    """As much of a DrillRun as a watch needs."""
    problems: list[str] = []

    def check(condition: bool, text: str) -> None:
        problems.extend([] if condition else [text])

    quiet = {"show": lambda _text: None, "note": lambda _text: None}
    return SimpleNamespace(name="alert_daemon_killed", fault=fault, check=check, problems=problems, sightings=[], **quiet)


@pytest.fixture
def watch(run: SimpleNamespace) -> AlertWatch:
    """Of that run."""
    return AlertWatch(cast("DrillRun", run))


def tell(watch: AlertWatch, status: str, name: str, **labels: str) -> None:
    """As Alertmanager does."""
    watch.take({"alerts": [{"status": status, "labels": {"alertname": name, **labels}}]})


def false_alarms(watch: AlertWatch) -> list[str]:
    return [notice.alert for notice in watch.unexplained]


def test_only_what_a_fault_explains_is_no_false_alarm(watch: AlertWatch) -> None:
    with watch.fault("away", "ExporterDown", excused={"FiguresOld": "nobody looks"}) as away:
        tell(watch, "firing", "ExporterDown")
        tell(watch, "firing", "FiguresOld", look="kafka")
        tell(watch, "firing", "DrainStalled")
        watch.await_told(away, seconds=1)
    tell(watch, "resolved", "ExporterDown")
    watch.await_ended(seconds=1)
    tell(watch, "firing", "FiguresOld", look="kafka")  # told again while it lasts
    assert false_alarms(watch) == ["DrainStalled"]
    tell(watch, "firing", "FiguresOld", look="database")
    tell(watch, "firing", "ExporterDown")
    assert false_alarms(watch) == ["DrainStalled", "FiguresOld", "ExporterDown"]


def test_an_alert_has_ended_when_none_of_its_kind_fires(watch: AlertWatch) -> None:
    with watch.fault("away", "TargetDown") as away:
        tell(watch, "firing", "TargetDown", instance="a")
        tell(watch, "firing", "TargetDown", instance="b")
    tell(watch, "resolved", "TargetDown", instance="a")
    with pytest.raises(DrillError, match="TargetDown"):
        watch.await_ended(away, seconds=0)
    tell(watch, "resolved", "TargetDown", instance="b")
    watch.await_ended(away, seconds=1)


def test_an_alert_counts_at_the_pace_of_the_plan(watch: AlertWatch) -> None:
    with watch.fault("killed", "IngestAvailabilityBudget") as killed:
        tell(watch, "firing", "IngestAvailabilityBudget")
        with pytest.raises(DrillError, match="IngestAvailabilityBudget"):
            watch.await_told(killed, seconds=0)
        tell(watch, "firing", "IngestAvailabilityBudget", divided_by="60")
        watch.await_told(killed, seconds=1)


def test_what_the_plan_wants_must_be_seen_and_end(run: SimpleNamespace, watch: AlertWatch) -> None:
    with watch.fault("away", "ExporterDown", "TargetDown"):
        tell(watch, "firing", "ExporterDown")
    watch.conclude()
    (open_, missing) = run.problems
    assert open_ == "ExporterDown has not ended"
    assert "TargetDown" in missing
    assert "IngestUnavailable" in missing
    sightings: list[dict[str, Any]] = run.sightings
    assert [(item["alert"], item["ended_seconds"]) for item in sightings] == [("ExporterDown", None)]


def test_a_fault_names_alerts_of_its_drill(watch: AlertWatch) -> None:
    with pytest.raises(DrillError, match="KafkaLogCut"), watch.fault("cut", "KafkaLogCut"):
        pass
