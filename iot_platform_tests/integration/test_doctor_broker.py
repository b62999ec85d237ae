"""`iot doctor` on real Mosquittos with settings that lose what they acknowledged; each finding names the setting."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from iot_platform.diagnostics import broker_queue, doctor_broker
from iot_platform.diagnostics.broker_queue import PUBLISHED, ask_broker, kept_for_the_absent
from iot_platform.diagnostics.doctor_broker import broker_findings
from iot_platform.diagnostics.finding import Finding
from iot_platform.diagnostics.mosquitto_config import local_config, read_config
from iot_platform.local.ports import free_ports
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.own_servers import Broker
from iot_platform_tests.support.waiting import eventually

WEEK = 7 * 86_400
GOOD = {
    "persistence": "true",
    "autosave_interval": "10",
    "max_queued_messages": "1000000",
    "persistent_client_expiration": "14d",
}
Start = Callable[..., Settings]


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Start]:
    """Starts one with these options and no others; the settings that reach it."""
    running: list[Broker] = []

    def start(**options: str | None) -> Settings:
        made = Broker(tmp_path, free_ports(1)[0])
        lines = [line for line in made.config.read_text().splitlines() if line.split()[0] in ("listener", "allow_anonymous", "user")]
        lines += [f"persistence_location {tmp_path}/mosquitto/"] if options.get("persistence") == "true" else []
        made.config.write_text("\n".join(lines + [f"{name} {value}" for name, value in options.items() if value is not None]) + "\n")
        running.append(made.start())
        return Settings(mqtt_url=SecretStr(made.url))

    yield start
    for broker in running:
        broker.stop()


def told(settings: Settings, expiry_seconds: int = WEEK) -> list[Finding]:
    return [finding for finding in broker_findings(settings, expiry_seconds) if finding.state != "ok"]


def test_a_broker_set_up_as_the_manual_says_is_well(mosquitto: Start) -> None:
    assert told(mosquitto(**GOOD)) == []


@pytest.mark.parametrize(
    ("option", "value", "found"),
    [
        ("max_queued_messages", None, "max_queued_messages=1000 (its default)"),
        ("max_queued_messages", "500", "max_queued_messages=500"),
        ("max_queued_bytes", "1000000", "max_queued_bytes=1000000"),
        ("persistence", "false", "persistence is off"),
        ("autosave_interval", None, "autosave_interval=1800"),
        ("persistent_client_expiration", "1d", "persistent_client_expiration=1d"),
    ],
)
def test_a_setting_that_loses_messages_is_named(mosquitto: Start, option: str, value: str | None, found: str) -> None:
    (finding,) = told(mosquitto(**{**GOOD, option: value}))
    assert (finding.state, finding.text[: len(found)]) == ("risk", found)
    assert finding.remedy.startswith(f"{option} "), finding


def test_a_broker_whose_configuration_is_hidden_is_tried(mosquitto: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but a client that was away knows how many messages were kept for it."""
    monkeypatch.setattr(doctor_broker, "local_config", lambda *_: None)
    (finding,) = told(mosquitto(**{**GOOD, "max_queued_messages": "500"}))
    assert (finding.state, "it kept 500" in finding.text, "max_queued_messages" in finding.remedy) == ("risk", True, True), finding


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_all_that_was_published_is_found_where_the_queue_is_long_and_no_session_stays(mosquitto: Start, version: str) -> None:
    settings = mosquitto(**GOOD, sys_interval="1")
    assert kept_for_the_absent(settings, version) == PUBLISHED
    link = broker_queue._Link(settings, version, "looks")
    link.connect()
    assert link.subscribe("$SYS/broker/clients/disconnected")
    eventually(lambda: (link.until(lambda: False, 0.2), link.received and link.received[-1] == b"0")[1], 10)
    link.leave()


def test_a_probe_that_would_be_data_is_not_sent(mosquitto: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_broker, "local_config", lambda *_: None)
    settings = mosquitto(**GOOD).model_copy(update={"mqtt_topic_filter": "#"})
    (finding,) = told(settings)
    assert (finding.state, "the daemon subscribes to #" in finding.text) == ("note", True)


def test_messages_that_the_broker_dropped_are_told(mosquitto: Start) -> None:
    settings = mosquitto(**{**GOOD, "max_queued_messages": "500", "sys_interval": "1"})
    kept = kept_for_the_absent(settings, "5")
    assert kept < PUBLISHED
    eventually(lambda: ask_broker(settings, WEEK, "5").dropped == PUBLISHED - kept, 10)
    assert any("has dropped" in finding.text and finding.state == "risk" for finding in told(settings))


def test_a_session_that_is_kept_for_less_than_the_daemon_asks_is_told(mosquitto: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mosquitto 2.0 shortens it without a word; other brokers say so in CONNACK."""
    settings = mosquitto(**GOOD)
    answer = broker_queue.BrokerAnswer(session_expiry_seconds=7200)
    monkeypatch.setattr(doctor_broker, "ask_broker", lambda *_: answer)
    (finding,) = told(settings)
    assert (finding.state, "7,200 s" in finding.text, "IOT_INGEST_SESSION_EXPIRY_SECONDS" in finding.remedy) == ("risk", True, True)


def test_the_configuration_is_that_of_the_broker_at_this_port(mosquitto: Start, tmp_path: Path) -> None:
    settings = mosquitto(**GOOD)
    port = int(settings.mqtt_url.get_secret_value().rsplit(":", 1)[1])
    found = local_config("127.0.0.1", port)
    assert found is not None
    assert (found.file, found.number("max_queued_messages", 0)) == (tmp_path / "mosquitto.conf", 1_000_000)
    assert local_config("127.0.0.1", free_ports(1)[0]) is None
    assert local_config("broker.invalid", port) is None


def test_included_files_count_and_the_last_one_wins(tmp_path: Path) -> None:
    more = tmp_path / "conf.d"
    more.mkdir()
    (more / "a.conf").write_text("max_queued_messages 7\n# listener 9\nlistener 1884\n")
    (tmp_path / "main.conf").write_text(f"max_queued_messages 5\ninclude_dir {more}\n")
    found = read_config(tmp_path / "main.conf")
    assert (found.number("max_queued_messages", 0), found.ports) == (7, {1884})
