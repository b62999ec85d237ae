"""What `iot doctor` says about the disk that has to sync Kafka's log."""

from pathlib import Path

import pytest

from iot_platform.diagnostics import doctor_kafka
from iot_platform.diagnostics.disk_syncs import syncs_per_second
from iot_platform.diagnostics.doctor_kafka import disk_finding
from iot_platform.local.plan import make_plan
from iot_platform.settings import Settings


def test_syncs_are_counted_and_nothing_is_left(tmp_path: Path) -> None:
    assert syncs_per_second(tmp_path, seconds=0.05) > 0
    assert syncs_per_second(tmp_path, seconds=60, most=3) > 0, "the count does not end it"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_yet_is_measured_where_it_will_be(tmp_path: Path) -> None:
    plan = make_plan(Settings(local_dir=tmp_path / "not" / "yet"))
    assert not (tmp_path / "not" / "yet" / "data" / "kafka").exists()
    assert f"syncs/s at {tmp_path}" in disk_finding(plan).text


@pytest.mark.parametrize(
    ("rate", "more", "state", "expected"),
    [
        (600.0, {}, "ok", "about 200 batches or at most 333,333 messages a second"),
        (30.0, {}, "note", "at most 16,667 messages a second"),
        (600.0, {"kafka_flush": False}, "note", "a power cut may lose acknowledged messages"),
        (600.0, {"kafka_bootstrap_servers": "kafka.example:9092"}, "note", "can't be measured from here"),
    ],
)
def test_what_a_disk_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, rate: float, more: dict[str, object], state: str, expected: str
) -> None:
    monkeypatch.setattr(doctor_kafka, "syncs_per_second", lambda _folder: rate)
    found = disk_finding(make_plan(Settings(local_dir=tmp_path, **more)))  # type: ignore[arg-type]
    assert (found.state, expected in found.text) == (state, True), found
