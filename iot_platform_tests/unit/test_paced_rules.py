"""Alert rules at another pace: every duration divided, and nothing else changed."""

from typing import Any

import pytest

from iot_platform.drills.rig.paced_rules import divided, milliseconds, paced, paced_groups


@pytest.mark.parametrize(("duration", "found"), [("15m", 900_000), ("1h30m", 5_400_000), ("250ms", 250), ("1d", 86_400_000), ("0s", 0)])
def test_durations(duration: str, found: int) -> None:
    assert milliseconds(duration) == found


@pytest.mark.parametrize("wrong", ["", "5", "m", "5 m", "1.5h", "-1m"])
def test_no_durations(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        milliseconds(wrong)


def test_division_is_to_the_millisecond_and_never_to_nothing() -> None:
    assert [divided("15m", 60), divided("1s", 7), divided("1ms", 60), divided("0s", 60)] == ["15000ms", "143ms", "1ms", "0s"]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("increase(a_total[1h]) > 0", "increase(a_total[60000ms]) > 0"),
        ("a > 0 unless a <= a offset 1d", "a > 0 unless a <= a offset 1440000ms"),
        ("max_over_time(rate(a[5m])[1h:1m])", "max_over_time(rate(a[5000ms])[60000ms:1000ms])"),
        ("max_over_time(a[1h:])", "max_over_time(a[60000ms:])"),
        ('a{look!~"[5m]|x offset 5m"} == 1', 'a{look!~"[5m]|x offset 5m"} == 1'),
        ("predict_linear(a_bytes[10m], 4 * 3600) > b_bytes", "predict_linear(a_bytes[10000ms], 4 * 3600 / 60) > b_bytes"),
        ("15 * sum_over_time(r[1h]) / 3600 > 14.4 * 0.001", "15 * sum_over_time(r[60000ms]) / 3600 > 14.4 * 0.001"),
        ("time() - a > 26 * 3600", "time() - a > 26 * 3600"),
    ],
)
def test_times_that_prometheus_measures(expression: str, found: str) -> None:
    assert paced(expression, 60) == found


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("time() - max(a) > 26 * 3600", "time() - max(a) > (26 * 3600 / 10)"),
        ("oldest_queued_seconds > 600", "oldest_queued_seconds > (600 / 10)"),
        ("sum(lag_messages) > 100 and on () time() - a > 120", "sum(lag_messages) > 100 and on () time() - a > (120 / 10)"),
        ('time() - t{k="a"} > 300 unless off == 1', 'time() - t{k="a"} > (300 / 10) unless off == 1'),
        ("a_seconds - time() < 21 * 86400", "a_seconds - time() < (21 * 86400 / 10)"),
    ],
)
def test_limits_that_are_ages(expression: str, found: str) -> None:
    assert paced(expression, 10, ages=True) == found


def test_groups_of_one_pace_each() -> None:
    expression, labels = "sum_over_time(unavailable:bool[1h]) > 5", {"severity": "warning"}
    group: dict[str, Any] = {
        "name": "g",
        "interval": "15s",
        "rules": [
            {"record": "unavailable:bool", "expr": "1 - up"},
            {"alert": "A", "expr": expression, "for": "10m", "labels": labels},
            {"alert": "B", "expr": "up == 0", "labels": labels},
            {"alert": "C", "expr": "up == 0", "labels": labels},
        ],
    }
    slow, fast = paced_groups([group], {"A": 60, "B": 15})
    assert [slow["interval"], fast["interval"]] == ["1000ms", "250ms"]
    assert [rule.get("alert") for rule in slow["rules"]] == [None, "B"]
    record, alert = fast["rules"]
    assert record["record"] == "unavailable:bool:by_60"
    assert alert == {
        "alert": "A",
        "expr": "sum_over_time(unavailable:bool:by_60[60000ms]) > 5",
        "for": "10000ms",
        "labels": {"severity": "warning", "divided_by": "60"},
    }
    assert group["rules"][1]["labels"] == {"severity": "warning"}
