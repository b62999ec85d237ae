"""Subscriptions of a resumed session: the former one goes only when the new one is granted."""

from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import ConnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

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

    def subscribe(self, topic_filter: str, options: object) -> None:
        self.packets.append(("subscribe", topic_filter))

    def unsubscribe(self, topic_filter: str) -> None:
        self.packets.append(("unsubscribe", topic_filter))


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path, "c")


def answered(state: StateDir, code: int, *, session_present: bool) -> tuple[Session, list[tuple[str, str]]]:
    """A session that was connected, and whose SUBACK has this reason code; and what it asked for."""
    session = Session(Settings(mqtt_topic_filter="new/#"), state, lambda _: None, lambda: None)
    client: Any = Asked()
    session._client = client
    success = ReasonCode(PacketTypes.CONNACK, "Success")
    session._connected(client, None, ConnectFlags(session_present=session_present), success, None)
    session._granted(client, None, 1, [ReasonCode(PacketTypes.SUBACK, identifier=code)], None)
    return session, client.packets


def test_a_refused_filter_leaves_the_former_subscription(state: StateDir) -> None:
    state.remember_subscription("old/#")
    session, packets = answered(state, NOT_AUTHORIZED, session_present=True)
    assert packets == [("subscribe", "new/#")]
    assert not session.subscribed
    assert "IOT_MQTT_TOPIC_FILTER" in str(session.problem)
    assert state.subscription == "old/#"


def test_a_granted_filter_replaces_the_former_one(state: StateDir) -> None:
    state.remember_subscription("old/#")
    session, packets = answered(state, GRANTED_QOS_1, session_present=True)
    assert packets == [("subscribe", "new/#"), ("unsubscribe", "old/#")]
    assert session.subscribed
    assert state.subscription == "old/#"  # until the broker has answered


def test_a_new_session_has_no_former_one(state: StateDir) -> None:
    state.remember_subscription("old/#")
    _, packets = answered(state, GRANTED_QOS_1, session_present=False)
    assert packets == [("subscribe", "new/#")]
    assert state.subscription == "new/#"
