"""The report of `make bench`: its ratios, and that reports of different machines are not compared."""

from typing import Any

import pytest

from bench import drain, report


def made(drain_seconds: list[float], bare_seconds: list[float]) -> dict[str, Any]:
    ours = [{"seconds": seconds, "cpu": 0.5, "measurements": 3000, "duplicates": 0, "wal_bytes": 6e5} for seconds in drain_seconds]
    bare = [{"seconds": seconds, "cpu": 0.1, "wal_bytes": 3e5} for seconds in bare_seconds]
    turns = [{"per_second": speed, "cpu_us": 8.0, "resident_mb": 70.0} for speed in (900.0, 1000.0, 1300.0)]
    return {
        "machine": report.machine(),
        "at": "2026-11-30",
        "load_before": 0.1,
        "builds": {report.OURS: "abc"},
        "versions": {"python": "3.11"},
        "settings": {"fsync": "on"},
        "messages": 1000,
        "rounds": len(ours),
        "drain": {"flat": {"payload_bytes": 111.0, "rounds": {drain.DRAIN: ours, drain.ONE: bare}}},
        "ingest": {
            "messages": 500,
            "rounds": {"bare": turns, "daemon": [turn | {"per_second": 3 * turn["per_second"]} for turn in turns]},
            "kafka_cpu_us": 30.0,
        },
    }


def test_ratios_are_of_the_same_round() -> None:
    """A machine that is twice as slow in one round changes nothing."""
    row = report.drain_rows(made([1.0, 2.0, 1.0], [0.8, 1.6, 0.8]))["flat"][drain.ONE]
    assert row["ratio"] == pytest.approx(0.8)
    assert row["wal_bytes"] == pytest.approx(100)
    assert report.drain_rows(made([1.0, 2.0, 1.0], [0.8, 1.6, 0.8]))["flat"][drain.DRAIN]["per_second"] == pytest.approx(1000)


def test_the_report_has_machine_versions_settings_and_every_contender() -> None:
    text = report.markdown(made([1.0], [0.8]))
    assert [
        word for word in ("processor", "python 3.11", "fsync on", "abc", drain.DRAIN, drain.ONE, "daemon", "bare") if word not in text
    ] == []


def test_an_earlier_report_of_this_machine_is_compared() -> None:
    assert "| drain, flat | 2.00 | 0.80 → 0.80 |" in report.compared(made([1.0], [0.8]), made([2.0], [1.6]))


@pytest.mark.parametrize("name", ["id", "processor", "cores", "memory_gib", "kernel"])
def test_a_report_of_another_machine_is_refused(name: str) -> None:
    before = made([1.0], [0.8])
    before["machine"][name] = "another"
    with pytest.raises(ValueError, match=f"different machines \\({name} differ"):
        report.compared(made([1.0], [0.8]), before)
