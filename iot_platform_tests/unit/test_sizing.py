"""`iot size`: the arithmetic, its bounds, and where its figures come from."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iot_platform import sizing
from iot_platform.cli.main import app

ROOT = Path(__file__).parents[2]
LOAD = sizing.Load(messages_per_second=1000, measurements=3, retention_days=90, payload_bytes=117)
OPTIONS = ["size", "--messages-per-second", "1000", "--measurements", "3", "--retention", "90", "--payload-bytes", "117"]


def test_every_figure_has_a_unit_and_a_page_that_has_it() -> None:
    names = [name for name, value in vars(sizing).items() if isinstance(value, sizing.Figure)]
    assert len(names) == len(sizing.figures()) > 20
    for figure in sizing.figures():
        assert figure.unit
        assert figure.value > 0
        page = (ROOT / figure.source).read_text("utf-8")
        assert figure.source != "docs/performance.md" or f"| {figure.value:,g} {figure.unit} |" in page, figure


def test_the_example_of_the_operations_page() -> None:
    disk = sizing.size(LOAD).disk_bytes
    assert disk["message"] == pytest.approx(113e9, rel=0.01)  # 86.4 M × 327 bytes, 3 days and the chunk that is cut
    assert disk["measurement"] == pytest.approx(259.2e6 * 97 * 91)
    compressed = sizing.size(replace(LOAD, compression=True)).disk_bytes
    assert compressed["measurement"] == pytest.approx(259.2e6 * 97 * (8 + 83 / 9.6))
    assert compressed["kafka"] == disk["kafka"]


def test_what_is_kept_for_less_than_the_plain_days_gains_nothing_by_compression() -> None:
    short = replace(LOAD, retention_days=2)
    assert sizing.size(replace(short, compression=True)).disk_bytes["measurement"] == sizing.size(short).disk_bytes["measurement"]


@pytest.mark.parametrize(
    ("rate", "measurements", "shards", "partitions"), [(100, 3, 1, 6), (31_000, 1, 1, 6), (31_001, 1, 2, 6), (60_000, 3, 3, 12)]
)
def test_shards_and_partitions(rate: float, measurements: float, shards: int, partitions: int) -> None:
    found = sizing.size(replace(LOAD, messages_per_second=rate, measurements=measurements))
    assert (found.shards, found.partitions) == (shards, partitions)


def test_more_than_was_measured_is_said() -> None:
    found = sizing.size(replace(LOAD, messages_per_second=200_000, series=200_000, projects=20_000))
    assert found.shards == sizing.MOST_SHARDS
    assert [word for word in ("IOT_DRAIN_SHARDS", "series", "projects") if not any(word in line for line in found.warnings)] == []
    assert sizing.size(LOAD).warnings == ()


def test_twice_the_messages_take_twice_the_cores_beside_those_at_rest() -> None:
    once, twice = (sizing.size(replace(LOAD, messages_per_second=rate)).cores for rate in (1000, 2000))
    assert sum(twice.values()) - twice["at rest"] == pytest.approx(2 * (sum(once.values()) - once["at rest"]))
    assert sizing.size(replace(LOAD, flat=True)).cores["drain"] < once["drain"]


def test_json_has_what_the_screen_has() -> None:
    found = json.loads(CliRunner().invoke(app, [*OPTIONS, "--json"], catch_exceptions=False).stdout)
    assert found["shards"] == 1
    assert {figure["source"] for figure in found["figures"]} >= {"docs/performance.md", "docs/soak.md"}
    screen = CliRunner().invoke(app, OPTIONS, catch_exceptions=False).stdout
    assert all(part in screen for kind in ("cores", "memory_mb", "disk_bytes") for part in found[kind])
    assert all(figure["what"] in screen for figure in found["figures"])


def test_what_makes_no_sense_is_refused_by_name() -> None:
    result = CliRunner().invoke(app, [*OPTIONS, "--replicas", "0"])
    assert result.exit_code != 0
    assert "replicas must be above 0" in str(result.exception)
