"""Macros and variables expand as Grafana's documentation says."""

from datetime import UTC, datetime, timedelta

import pytest

from iot_platform_tests.support.oracles.grafana_macros import MacroError, Range, expand

SINCE = datetime(2026, 4, 21, 5, 1, 17, 500_000, tzinfo=UTC)
WINDOW = Range(SINCE, SINCE + timedelta(hours=6), points=100)


@pytest.mark.parametrize(
    ("query", "expanded"),
    [
        ("$__timeFilter(t.time)", "t.time BETWEEN '2026-04-21T05:01:17.500Z' AND '2026-04-21T11:01:17.500Z'"),
        ("$__timeFrom()::timestamptz", "'2026-04-21T05:01:17.500Z'::timestamptz"),
        ("$__timeTo()", "'2026-04-21T11:01:17.500Z'"),
        ("$__timeGroup(time, $__interval)", "time_bucket('300.000s',time)"),
        ("$__timeGroupAlias(time,'1h', 0)", "time_bucket('3600.000s',time) AS \"time\""),
        ("$__timeGroup(coalesce(a, b), 30s)", "time_bucket('30.000s',coalesce(a, b))"),
        ("$__interval $__interval_ms", "5m 300000"),
        ("$__unixEpochFilter(e)", "e >= 1776747677 AND e <= 1776769277"),
        ("$__unixEpochGroup(e, 5m)", "floor((e)/300)*300"),
        ("$__from ${__to}", "1776747677500 1776769277500"),
        ("${one:sqlstring}", "'o''neil'"),
        ("id IN (${several:sqlstring})", "id IN ('a','b''c')"),
        ("id IN ($several)", "id IN ('a','b''c')"),
        ("'$one'", "'o''neil'"),
        ("${every:sqlstring}", "'*'"),
    ],
)
def test_expansion(query: str, expanded: str) -> None:
    assert expand(query, WINDOW, {"one": "o'neil", "several": ["a", "b'c"]}, {"every": "'*'"}) == expanded


@pytest.mark.parametrize(
    "query", ["$__timeSpan(t)", "$__timeFilter(", "$unknown", "${one:csv}", "$__timeGroup(t)", "$__timeGroup(t, soon)"]
)
def test_what_grafana_does_not_know_is_an_error(query: str) -> None:
    with pytest.raises(MacroError):
        expand(query, WINDOW, {"one": "1"})
