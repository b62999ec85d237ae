"""Which MQTT version is spoken, and what is said when none is: the daemon's session against a broker that follows a script."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from ingest_daemon import session as session_module
from ingest_daemon.broker_access import BrokerFiles
from ingest_daemon.errors import UnsafeBrokerError
from ingest_daemon.session import Session
from ingest_daemon.settings import Settings
from ingest_daemon.state_dir import StateDir
from ingest_daemon.transport import BY_PUBREC, Message
from iot_platform.local import probes
from iot_platform.settings import Settings as PlatformSettings
from iot_platform_tests.support.servers.mqtt_packets import PUBACK, PUBCOMP, PUBREC, SUBSCRIBE
from iot_platform_tests.support.servers.mqtt_script import (
    V5,
    V311,
    Link,
    Script,
    ScriptedBroker,
    close,
    only,
    refuse_version,
    scripted,
    silent,
)

CLIENT_ID = "c"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(session_module, "LAST_DELAY_SECONDS", 0.05)
    monkeypatch.setattr(session_module, "FIRST_ASK_SECONDS", 0.05)
    monkeypatch.setattr(session_module, "MISC_INTERVAL_SECONDS", 0.01)


class Driven:
    """A session, and what the daemon's loop would do with it: every message is safe at once."""

    def __init__(self, broker: ScriptedBroker, folder: Path, **settings: Any) -> None:
        self.state = StateDir(folder, CLIENT_ID)
        self.opened: list[bool] = []
        self.messages: list[Message] = []
        self.acknowledging = True
        self.sequence = 0  # of the last message of this connection
        self.problems: list[str] = []
        url = broker.url.replace("://", "://me@") if "mqtt_password_file" in settings else broker.url
        made = Settings(mqtt_url=url, mqtt_topic_filter="f/#", ingest_client_id=CLIENT_ID, **settings)
        self.files = BrokerFiles(made)
        self.session = Session(made, self.state, self._open, lambda: None, self.files)

    def _open(self, present: bool) -> None:
        self.state.next_connection()
        self.opened.append(present)
        self.sequence = 0

    def turn(self) -> None:
        session = self.session
        session.connect_if_due()
        found = session.receive(100, readable=session.wait(0.01, 100))
        self.messages += found
        if self.acknowledging:
            self.sequence += len(found)
            session.acknowledge([packet_id + (BY_PUBREC if first & 4 else 0) for first, _, packet_id, _ in found], self.sequence)
        session.serve()
        if session.problem and session.problem not in self.problems:
            self.problems.append(session.problem)

    def until(self, condition: Callable[[], Any], seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.session.problem, self.problems)
            self.turn()

    def until_subscribed(self) -> None:
        self.until(lambda: self.session.subscribed)

    def close(self) -> None:
        self.session.close()
        self.state.close()


def attempts(broker: ScriptedBroker) -> list[tuple[int, str]]:
    """Version and client id of each CONNECT; a session of its own must be a new one, and ours an old one."""
    assert all(link.clean is (link.client_id != CLIENT_ID) for link in broker.links)
    return [(link.level, link.client_id) for link in broker.links]


OWN_5, OWN_311, PROBE_5, PROBE_311 = (V5, CLIENT_ID), (V311, CLIENT_ID), (V5, f"{CLIENT_ID}-probe"), (V311, f"{CLIENT_ID}-probe")
FOUND_OUT = [OWN_5, PROBE_311, PROBE_5, PROBE_311, PROBE_5, OWN_311]


def refuse_version_as_5(link: Link) -> None:
    link.connack(0x84)


def accept_as_311(link: Link) -> None:
    link.send(b"\x20\x02\x00\x00")  # as a broker does that does not look at the version


@pytest.mark.parametrize("refusal", [refuse_version, refuse_version_as_5, accept_as_311])
def test_auto_falls_back_when_the_broker_refuses_the_version_and_remembers_it(refusal: Script, tmp_path: Path) -> None:
    with scripted(only(V311, refusal)) as broker, capture_logs() as logs:
        driven = Driven(broker, tmp_path)
        driven.until_subscribed()
        driven.close()
        assert attempts(broker) == [OWN_5, OWN_311]
        again = Driven(broker, tmp_path)
        again.until_subscribed()
        again.close()
        assert attempts(broker) == [OWN_5, OWN_311, OWN_311]
    assert [entry["event"] for entry in logs].count("mqtt_protocol_fallback") == 1


@pytest.mark.parametrize("unanswered", [close, silent])
def test_auto_falls_back_from_a_broker_that_answers_311_only(unanswered: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "SETUP_SECONDS", 0.3)
    with scripted(only(V311, unanswered)) as broker:
        driven = Driven(broker, tmp_path)
        driven.until_subscribed()
        driven.close()
        assert attempts(broker) == FOUND_OUT


def test_a_probe_that_is_refused_is_answered_all_the_same(tmp_path: Path) -> None:
    """A broker may allow our own client id only."""

    def strict(link: Link) -> None:
        link.serve() if link.client_id == CLIENT_ID else link.connack(5)

    with scripted(only(V311, close, strict)) as broker:
        driven = Driven(broker, tmp_path)
        driven.until_subscribed()
        driven.close()
        assert attempts(broker) == FOUND_OUT


@pytest.mark.parametrize("unanswered", [close, refuse_version])
def test_what_tells_about_the_version_says_nothing_of_a_new_password(unanswered: Script, tmp_path: Path) -> None:
    """A broker that takes the new password, too, comes back with MQTT 3.1.1 only."""
    updated = threading.Event()

    def until_the_update(link: Link) -> None:
        link.connack()
        link.suback(link.packet_id(SUBSCRIBE))
        updated.wait(10)

    password = tmp_path / "password"
    password.write_text("one")
    with scripted(until_the_update, refuse_version, close, only(V311, unanswered)) as broker:
        driven = Driven(broker, tmp_path, mqtt_password_file=password)
        driven.until_subscribed()
        password.write_text("two")
        driven.files.look()
        updated.set()
        driven.until(lambda: not driven.session.subscribed)
        driven.until_subscribed()
        driven.close()
        assert attempts(broker)[0] == OWN_5
        assert attempts(broker)[-1] == OWN_311
        shown = [(link.client_id == CLIENT_ID, link.password) for link in broker.links]
    assert shown[:3] == [(True, "one"), (True, "two"), (True, "two")]
    assert len({word for own, word in shown if not own}) == (unanswered is close)


def test_a_broker_that_is_in_trouble_at_first_is_not_taken_for_one_of_311(tmp_path: Path) -> None:
    """Closes, comes up between two probes, and then speaks both versions."""
    with scripted(close, close, close, close, Link.connack, Link.serve) as broker:
        driven = Driven(broker, tmp_path)
        driven.until_subscribed()
        driven.close()
        assert OWN_311 not in attempts(broker)
        assert attempts(broker)[-1] == OWN_5


@pytest.mark.parametrize("trouble", [close, silent])
def test_what_has_worked_by_5_stays_with_5(trouble: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session by 3.1.1 may be another one: the messages of the first would stay behind. Only the broker's word changes that."""
    monkeypatch.setattr(session_module, "SETUP_SECONDS", 0.1)
    with scripted(Link.serve, *[only(V311, trouble)] * 8, refuse_version, Link.serve) as broker:
        first = Driven(broker, tmp_path)
        first.until_subscribed()
        first.close()
        driven = Driven(broker, tmp_path)
        driven.until_subscribed()
        driven.close()
        assert attempts(broker) == [OWN_5] * 10 + [OWN_311]


def test_a_state_directory_of_a_release_before_is_one_of_5(tmp_path: Path) -> None:
    with scripted(*[only(V311, close)] * 5, Link.serve) as broker:
        before = StateDir(tmp_path, CLIENT_ID)
        before.next_connection()
        before.close()
        driven = Driven(broker, tmp_path)
        driven.until_subscribed()
        driven.close()
        assert attempts(broker) == [OWN_5] * 6


def test_another_broker_is_asked_anew(tmp_path: Path) -> None:
    for script, expected in ((only(V311, refuse_version), [OWN_5, OWN_311]), (only(V5, close), [OWN_5])):
        with scripted(script) as broker:
            driven = Driven(broker, tmp_path)
            driven.until_subscribed()
            driven.close()
            assert attempts(broker) == expected


def test_a_version_that_is_set_is_kept_and_the_problem_names_the_setting(tmp_path: Path) -> None:
    for version, level in (("5", V311), ("3.1.1", V5)):
        with scripted(only(level, refuse_version)) as broker:
            driven = Driven(broker, tmp_path / version, mqtt_protocol=version)
            driven.until(lambda broker=broker: len(broker.links) >= 4)
            driven.close()
            assert {link.level for link in broker.links} == {V5 if version == "5" else V311}
            assert "IOT_MQTT_PROTOCOL" in driven.problems[-1]
            assert f"does not speak MQTT {version} " in driven.problems[-1]


def test_a_shared_subscription_ends_where_it_would_be_an_ordinary_topic(tmp_path: Path) -> None:
    with scripted(only(V311, refuse_version)) as broker:
        driven = Driven(broker, tmp_path, ingest_shared_group="g")
        with pytest.raises(UnsafeBrokerError, match=r"IOT_INGEST_SHARED_GROUP.*IOT_MQTT_TOPIC_FILTER"):
            driven.until_subscribed()
        driven.close()
        assert attempts(broker) == [OWN_5]  # no session by 3.1.1 was begun


# -- what is said ----------------------------------------------------------------------------------------------


def http(link: Link) -> None:
    link.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + b"x" * 500)


def banner(link: Link) -> None:
    link.send(b"220 mail.example ESMTP\r\n")


def tls_alert(link: Link) -> None:
    link.send(b"\x15\x03\x01\x00\x02\x02\x46")


def after_connack(link: Link) -> None:
    link.connack()
    link.packet(SUBSCRIBE)


def no_suback(link: Link) -> None:
    link.connack()
    link.rest()


def disconnect(code: int) -> Script:
    def script(link: Link) -> None:
        link.begin()
        link.send(bytes([0xE0, 2, code, 0]))

    return script


def connack(code: int) -> Script:
    return lambda link: link.connack(code)


def suback(code: int) -> Script:
    def script(link: Link) -> None:
        link.connack()
        link.suback(link.packet_id(SUBSCRIBE), code)
        link.rest()

    return script


def malformed(link: Link) -> None:
    link.send(b"\x20\x09\x00\x00\x06\xff\xff\xff\xff\xff\xff")


@pytest.mark.parametrize(
    ("version", "script", "words"),
    [
        ("5", close, ["before CONNACK", "is this an MQTT port", "does it speak MQTT 5", "IOT_MQTT_URL", "IOT_MQTT_PROTOCOL"]),
        ("3.1.1", close, ["before CONNACK", "does it speak MQTT 3.1.1", "IOT_MQTT_PROTOCOL"]),
        ("5", silent, ["no answer to CONNECT within", "MQTT 5", "IOT_MQTT_URL"]),
        ("5", http, ["no CONNACK", "HTTP/1.1 400", "IOT_MQTT_URL"]),
        ("3.1.1", http, ["no CONNACK", "HTTP/1.1 400", "IOT_MQTT_URL"]),
        ("5", banner, ["no CONNACK", "220 mail", "IOT_MQTT_URL"]),
        ("5", tls_alert, ["no CONNACK", r"\x15\x03", "TLS", "IOT_MQTT_URL"]),
        ("5", malformed, ["MQTT 5 does not allow", "IOT_MQTT_URL"]),
        ("5", after_connack, ["after CONNACK, before SUBACK", "IOT_MQTT_TOPIC_FILTER"]),
        ("3.1.1", after_connack, ["after CONNACK, before SUBACK", "IOT_MQTT_TOPIC_FILTER"]),
        ("5", no_suback, ["no answer to SUBSCRIBE within", "before SUBACK", "IOT_MQTT_TOPIC_FILTER"]),
        ("5", Link.begin, ["the broker closed the connection", "IOT_MQTT_URL"]),
        ("5", connack(0x80), ["refuses the connection", "without a reason", "IOT_MQTT_URL"]),
        ("5", connack(0x85), ["refuses the connection", "IOT_INGEST_CLIENT_ID"]),
        ("5", connack(0x86), ["refuses the connection", "IOT_MQTT_URL: user and password"]),
        ("5", connack(0x88), ["refuses the connection", "Server unavailable", "IOT_MQTT_URL"]),
        ("3.1.1", connack(2), ["refuses the connection", "IOT_INGEST_CLIENT_ID"]),
        ("3.1.1", connack(4), ["refuses the connection", "IOT_MQTT_URL: user and password"]),
        ("3.1.1", connack(5), ["refuses the connection", "IOT_MQTT_URL: the user"]),
        ("3.1.1", connack(77), ["refuses the connection", "IOT_MQTT_URL"]),
        ("5", suback(0x87), ["refuses the subscription to f/#", "IOT_MQTT_TOPIC_FILTER", "the user in IOT_MQTT_URL"]),
        ("5", suback(0x8F), ["refuses the subscription to f/#", "IOT_MQTT_TOPIC_FILTER"]),
        ("3.1.1", suback(0x80), ["refuses the subscription to f/#", "no reasons", "IOT_MQTT_TOPIC_FILTER"]),
        ("5", disconnect(0x80), ["ended the connection", "without a reason", "IOT_MQTT_URL"]),
        ("5", disconnect(0x8E), ["another client", "IOT_INGEST_CLIENT_ID"]),
        ("5", disconnect(0x9E), ["ended the connection", "IOT_INGEST_SHARED_GROUP"]),
    ],
)
def test_a_problem_says_what_is_known_and_names_the_setting(
    version: str, script: Script, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "SETUP_SECONDS", 0.3)
    with scripted(script) as broker, capture_logs() as logs:
        driven = Driven(broker, tmp_path, mqtt_protocol=version)
        driven.until(lambda: any(entry["event"] == "mqtt_disconnected" for entry in logs))
        driven.close()
    why = next(entry["why"] for entry in logs if entry["event"] == "mqtt_disconnected")
    assert [word for word in words if word not in why] == [], why
    assert f"MQTT: {why}" in driven.problems
    assert not any("Unspecified" in problem for problem in driven.problems)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (Link.serve, "5"),
        (only(V311, refuse_version), "3.1.1"),
        (only(V311, close), "3.1.1"),
        (close, "before CONNACK: is this an MQTT port, does it speak MQTT 5?"),
        (refuse_version, "does not speak MQTT 5 (IOT_MQTT_PROTOCOL"),
        (connack(0x86), "(IOT_MQTT_URL: user and password"),
        (only(V311, close, connack(4)), "(IOT_MQTT_URL: user and password"),
    ],
)
def test_iot_doctor_finds_out_the_version_or_says_the_same(script: Script, found: str) -> None:
    with scripted(script) as broker:
        try:
            said = probes.mqtt(PlatformSettings(mqtt_url=SecretStr(broker.url)))
        except probes.NotReadyError as error:
            said = str(error)
    assert found in said


# -- a refused SUBSCRIBE ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "code"), [("5", 0x91), ("5", 0x97), ("5", 0x83), ("5", 0x87), ("3.1.1", 0x80)])
def test_a_refused_subscribe_is_sent_again_while_the_sessions_messages_flow(version: str, code: int, tmp_path: Path) -> None:
    asked: list[int] = []
    answered: list[int] = []

    def script(link: Link) -> None:
        link.connack(present=True)
        for number in range(1, 5):
            asked.append(link.packet_id(SUBSCRIBE))
            link.suback(asked[-1], code)
            link.publish("f/x", number, b"%d" % number)
            answered.append(link.packet_id(PUBACK))
        asked.append(link.packet_id(SUBSCRIBE))
        link.suback(asked[-1])
        link.rest()

    with scripted(script) as broker:
        driven = Driven(broker, tmp_path, mqtt_protocol=version)
        driven.until_subscribed()
        driven.close()
        assert len(broker.links) == 1
    assert answered == [1, 2, 3, 4]
    assert [message[3] for message in driven.messages] == [b"1", b"2", b"3", b"4"]
    assert min(asked) >= 0x8000
    assert len(set(asked)) > 1
    refusals = [problem for problem in driven.problems if "subscription" in problem and "waiting" not in problem]
    assert refusals
    assert all(("IOT_" in problem) is (code in (0x87, 0x80)) for problem in refusals)


def test_a_refused_filter_of_a_new_session_is_tried_with_a_new_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing flows there, and some brokers look at rights only when one connects."""
    monkeypatch.setattr(session_module, "SETUP_SECONDS", 0.3)
    with scripted(suback(0x87), Link.serve) as broker:
        driven = Driven(broker, tmp_path)
        driven.until_subscribed()
        driven.close()
        assert len(broker.links) == 2


# -- QoS 2 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_qos_2_is_answered_to_its_end_also_on_the_next_connection(version: str, tmp_path: Path) -> None:
    def first(link: Link) -> None:
        link.begin()
        link.publish("f/1", 7, b"exactly", first=0x34)
        link.publish("f/2", 8, b"at least")
        assert (link.packet(), link.packet()) == ((PUBREC, b"\0\x07"), (PUBACK, b"\0\x08"))

    def second(link: Link) -> None:
        link.connack(present=True)
        link.pubrel(7)
        packets = dict(link.packet() for _ in range(2))
        assert packets[PUBCOMP] == b"\0\x07"
        link.suback(int.from_bytes(packets[SUBSCRIBE][:2], "big"))
        link.rest()

    with scripted(first, second) as broker:
        driven = Driven(broker, tmp_path, mqtt_protocol=version)
        driven.until(lambda: len(broker.links) == 2 and driven.session.subscribed)
        driven.close()
    assert [message[3] for message in driven.messages] == [b"exactly", b"at least"]
    assert driven.opened == [False, True]
