"""Files for the broker: what is half written stays out of use, and what the broker does not take is tried in turn with what worked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest_daemon.broker_access import AccessInUse, BrokerFiles
from ingest_daemon.errors import SettingsError
from ingest_daemon.settings import Settings


@pytest.fixture
def files(tmp_path: Path) -> BrokerFiles:
    (tmp_path / "password").write_text("one\n")
    (tmp_path / "filters").write_text("a/#\nb/#\n")
    return BrokerFiles(
        Settings(mqtt_url="mqtt://me@broker", mqtt_password_file=tmp_path / "password", mqtt_topic_filter_file=tmp_path / "filters")  # type: ignore[arg-type]
    )


def test_filters_are_taken_over_when_they_stay(files: BrokerFiles, tmp_path: Path) -> None:
    first = files.current
    (tmp_path / "filters").write_text("a/#\n")  # the rest is still to be written
    files.look()
    assert files.current is first
    (tmp_path / "filters").write_text("a/#\nc/#\n")
    files.look()
    assert files.current is first
    files.look()
    assert files.current.topic_filters == ("a/#", "c/#")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("filters", "", "IOT_MQTT_TOPIC_FILTER_FILE"), ("filters", "a/#\nb+", "b+"), ("password", "", "IOT_MQTT_PASSWORD_FILE")],
)
def test_what_is_unusable_is_named_and_changes_nothing(files: BrokerFiles, tmp_path: Path, name: str, content: str, said: str) -> None:
    before = (tmp_path / name).read_text()
    (tmp_path / name).write_text(content)
    files.look()
    files.look()
    assert (files.current.topic_filters, files.current.password) == (("a/#", "b/#"), "one")
    assert said in " ".join(files.problems)
    (tmp_path / name).unlink()
    files.look()
    assert "can't read" in " ".join(files.problems)
    (tmp_path / name).write_text(before)
    files.look()
    assert files.problems == []


def test_an_unreadable_file_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "filters").write_text("a/#/b")
    with pytest.raises(SettingsError, match=r"IOT_MQTT_TOPIC_FILTER_FILE.*last level"):
        BrokerFiles(Settings(mqtt_topic_filter_file=tmp_path / "filters"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_the_broker_does_not_take_and_what_worked_take_turns(files: BrokerFiles) -> None:
    clock = Clock()
    use = AccessInUse(files, clock)
    worked = files.current
    use.take()
    use.worked()
    newer: Any = replace(files.current, certificates=b"2")
    files.current = newer
    assert use.fresh
    assert use.renewal_due
    use.take()
    assert use.current is newer
    use.failed("unknown ca")
    assert use.current is worked
    use.take()
    use.worked()
    assert "unknown ca" in str(use.refused)
    assert not use.renewal_due  # leave what works alone
    clock.now += 301
    assert use.renewal_due
    use.take()
    assert use.current is newer
    use.failed("unknown ca")
    use.failed("refused")  # the other one does not work either
    assert use.current is newer
    use.worked()
    assert use.refused is None
    assert not use.renewal_due


def test_without_anything_that_worked_there_is_no_turn(files: BrokerFiles) -> None:
    use = AccessInUse(files)
    use.take()
    use.failed("refused")
    assert use.current is files.current
    assert use.refused is None
