"""What may be asked of the console's queue of writes, and what a dry run's rule may say: anything else is refused by its field."""

import io
from typing import Any

import pytest

from iot_platform.actions import ActionError, dry_run, parse_request
from iot_platform.settings import Settings
from iot_platform.telemetry.errors import CorrectionError
from iot_platform.tenants.errors import TenantError
from iot_platform.tenants.series_info import SeriesInfo, read_csv, write_csv

TENANT = "1968193631353446400"


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"topic_pattern": "a/{nothing}"}, "topic_pattern"),
        ({"topic_pattern": "a/{tenant}"}, "topic_pattern"),  # and no pointer to the project
        ({"default_timezone": "../../etc/passwd"}, "default_timezone"),
        ({"time_pointers": ["no pointer"]}, "time_pointers"),
        ({"topic_codecs": [{"topic": "a/#", "codec": "exec"}]}, "topic_codecs"),
        ({"database_url": "postgresql://x"}, "database_url"),
        ({"max_decompressed_bytes": 1 << 40}, "max_decompressed_bytes"),
    ],
)
def test_a_rule_that_means_nothing_is_refused_by_its_field(rule: dict[str, Any], field: str) -> None:
    with pytest.raises(CorrectionError) as refused:
        dry_run.rules_with(Settings(), rule)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("kind", "arguments", "field"),
    [
        ("drop-table", {}, "kind"),
        ("replay", {"from": "2026-11-01T00:00:00Z"}, "to"),
        ("replay", {"from": "2026-11-01T00:00:00", "to": "2026-11-02T00:00:00Z"}, "from"),
        ("replay", {"from": 0, "to": 1}, "from"),
        ("replay", {"from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, ""),
        ("replay", {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z", "reason": "none"}, "reason"),
        ("replay", {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z", "rule": {"database_url": "x"}}, ""),
        ("replay", {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z", "keep": True}, ""),
        ("silence-incident", {"incident_id": "1", "until": "2099-01-01T00:00:00Z", "reason": " "}, ""),
        ("acknowledge-incident", {"incident_id": "1; DROP"}, "incident_id"),
        ("change-rule", {"rule": "ledger_continuous"}, "rule"),
        ("change-rule", {"rule": "range", "parameters": {"min": 1}}, ""),
        ("change-rule", {"rule": "range", "metric": "m", "window_seconds": 0}, "window_seconds"),
        ("change-series-info", {"project": "p", "device": "d", "metric": "m", "valid_min": 2, "valid_max": 1}, ""),
        ("change-series-info", {"project": "p", "device": "d", "metric": "m", "unit": "x" * 51}, "unit"),
        ("change-series-info", {"project": "p", "device": "d", "metric": "m", "unit": "\0"}, ""),
    ],
)
def test_what_may_not_be_asked(kind: str, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ActionError) as refused:
        parse_request(TENANT, kind, arguments)
    assert refused.value.field == field


def test_a_file_of_series_comes_back_as_it_was_written() -> None:
    infos = [
        SeriesInfo("1968193691042586624", "d,1", 'a "quoted" metric', "主泵 \u2028 两行\r\n流量", "m³/h", -0.5, 1e300, "line\nline"),
        SeriesInfo("p", "", "m"),
    ]
    assert read_csv(io.StringIO("".join(write_csv(infos)), newline=""), "series.csv") == infos
    names_only = io.StringIO("metric,project,device\nm,p,d\n")
    assert read_csv(names_only, "series.csv") == [SeriesInfo("p", "d", "m")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("project,device\np,d\n", "series.csv:1: the column metric is missing"),
        ("project,device,metric,name\n", "series.csv:1: there is no column 'name'"),
        ("project,device,metric\np,d\n", "series.csv:2: as many fields as columns"),
        ("project,device,metric\np,d,m\np,d,m\n", "series.csv:3: this series is in the file already"),
        ("project,device,metric,valid_min\np,d,m,abc\n", "series.csv:2: valid_min must be a number"),
        ("project,device,metric,valid_min\np,d,m,nan\n", "series.csv:2: valid_min must be finite"),
        ("project,device,metric,valid_min,valid_max\np,d,m,2,1\n", "series.csv:2: valid_min is greater"),
        ("project,device,metric,unit\np,d,m," + "x" * 51 + "\n", "series.csv:2: unit is longer than 50"),
        ('project,device,metric\n"p,d,m\n', "no CSV"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(TenantError, match=words):
        read_csv(io.StringIO(text, newline=""), "series.csv")
