"""Subscriptions of a resumed session: the former one goes only when the new one is granted."""

from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import ConnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from ingest_daemon.broker_access import BrokerFiles
from ingest_daemon.session import Session
from ingest_daemon.settings import Settings
from ingest_daemon.state_dir import StateDir

GRANTED_QOS_1, NOT_AUTHORIZED = 0x01, 0x87


class Asked:
    """What the session asks of its client."""

    def __init__(self) -> None:
        self.packets: list[tuple[str, str]] = []

    def number_next(self, packet_id: int) -> None:
        assert packet_id >= 0x8000

    def subscribe(self, filters: list[tuple[str, object]]) -> None:
        self.packets += [("subscribe", one) for one, _ in filters]

    def unsubscribe(self, filters: list[str]) -> None:
        self.packets += [("unsubscribe", one) for one in filters]


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path, "c")


def granted(session: Session, client: Any, *codes: int) -> None:
    session._granted(client, None, 1, [ReasonCode(PacketTypes.SUBACK, identifier=code) for code in codes], None)


def given_up(session: Session, client: Any, *codes: int) -> None:
    session._unsubscribed(client, None, 2, [ReasonCode(PacketTypes.UNSUBACK, identifier=code) for code in codes], None)


def answered(state: StateDir, *codes: int, session_present: bool, wanted: str = "new/#") -> tuple[Session, Any]:
    """A session that was connected, and whose SUBACK has these reason codes; and its client, which holds what it asked for."""
    settings = Settings(mqtt_topic_filter=wanted)
    session = Session(settings, state, lambda _: None, lambda: None, BrokerFiles(settings))
    client: Any = Asked()
    session._client = client
    success = ReasonCode(PacketTypes.CONNACK, "Success")
    session._connected(client, None, ConnectFlags(session_present=session_present), success, None)
    granted(session, client, *codes)
    return session, client


def test_a_refused_filter_leaves_the_former_subscription(state: StateDir) -> None:
    state.remember_subscriptions(["old/#"])
    session, client = answered(state, NOT_AUTHORIZED, session_present=True)
    assert client.packets == [("subscribe", "new/#")]
    assert not session.subscribed
    assert "new/#" in str(session.problem)
    assert "IOT_MQTT_TOPIC_FILTER" in str(session.problem)
    assert "old/#" in (state.subscriptions or ())


def test_a_granted_filter_replaces_the_former_one(state: StateDir) -> None:
    state.remember_subscriptions(["old/#"])
    session, client = answered(state, GRANTED_QOS_1, session_present=True)
    assert client.packets == [("subscribe", "new/#"), ("unsubscribe", "old/#")]
    assert session.subscribed
    assert set(state.subscriptions or ()) == {"old/#", "new/#"}  # until the broker has answered
    given_up(session, client, 0)
    assert state.subscriptions == ("new/#",)


def test_a_new_session_has_no_former_one(state: StateDir) -> None:
    state.remember_subscriptions(["old/#"])
    _, client = answered(state, GRANTED_QOS_1, session_present=False)
    assert client.packets == [("subscribe", "new/#")]
    assert state.subscriptions == ("new/#",)


def test_one_refused_filter_of_several_keeps_the_others_and_what_was_before(state: StateDir) -> None:
    state.remember_subscriptions(["old/#"])
    session, client = answered(state, GRANTED_QOS_1, NOT_AUTHORIZED, session_present=True, wanted='["a/#", "b/#"]')
    assert client.packets == [("subscribe", "a/#"), ("subscribe", "b/#")]
    assert session.subscribed
    assert "b/#" in str(session.problem)
    assert "a/#" not in str(session.problem)
    assert set(state.subscriptions or ()) == {"old/#", "a/#", "b/#"}


def test_a_death_at_any_step_leaves_all_that_the_broker_may_hold_on_disk(state: StateDir) -> None:
    state.remember_subscriptions(["old/#"])
    answered(state, session_present=True)  # dies before SUBACK: the broker may have both
    assert set(state.subscriptions or ()) == {"old/#", "new/#"}
    _, client = answered(state, GRANTED_QOS_1, session_present=True, wanted="newest/#")
    assert client.packets == [("subscribe", "newest/#"), ("unsubscribe", "old/#"), ("unsubscribe", "new/#")]


def test_the_file_of_a_release_that_knew_one_filter_only(tmp_path: Path) -> None:
    StateDir(tmp_path, "c").close()
    (tmp_path / "subscription-c").write_text("plant/+/[x]/#")
    assert StateDir(tmp_path, "c").subscriptions == ("plant/+/[x]/#",)
