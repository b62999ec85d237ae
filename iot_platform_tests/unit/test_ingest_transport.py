"""Our PUBLISH parsing below paho: equal to paho's own on the same bytes, and safe with bytes that are no MQTT."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ingest_daemon.errors import ProtocolError
from ingest_daemon.mqtt_client import MqttClient
from ingest_daemon.transport import BY_PUBREC, PAUSED_BUFFER_BYTES, RECEIVE_BYTES, FrameSocket, Message

PINGRESP = b"\xd0\x00"
DISCONNECT = b"\xe0\x00"


def variable_length(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def publish(first: int, topic: bytes, packet_id: int, payload: bytes, properties: bytes = b"\0") -> bytes:
    body = struct.pack("!H", len(topic)) + topic + (struct.pack("!H", packet_id) if first & 6 else b"") + properties + payload
    return bytes([first]) + variable_length(len(body)) + body


class Wire:
    """A FrameSocket on one end of a socket pair, and what it passes on."""

    def __init__(self, *, properties: bool = True) -> None:
        self.broker, ours = socket.socketpair()
        ours.setblocking(False)
        self.seen: list[Message] = []
        self.control: list[bytes] = []
        self.order: list[Message | bytes] = []  # control packets as they were served, messages as `receive` returned them
        self.transport = FrameSocket(ours, self.take_control, properties=properties)

    def take_control(self) -> None:
        data = bytearray()
        with contextlib.suppress(BlockingIOError):
            while chunk := self.transport.recv(100_000):
                data += chunk
        self.control.append(bytes(data))
        self.order.append(bytes(data))
        if data == DISCONNECT:
            self.transport.close()  # as paho does

    def receive(self, limit: int = 1_000_000, *, readable: bool = True) -> int:
        """How many messages came."""
        messages = self.transport.receive(limit, readable=readable)
        self.seen += messages
        self.order += messages
        return len(messages)

    def receive_all(self, limit: int = 9) -> None:
        """What needs no further input."""
        while self.transport.pending(limit):
            self.receive(limit, readable=False)

    def feed(self, data: bytes, limit: int = 1_000_000) -> None:
        for start in range(0, max(len(data), 1), 50_000):
            self.broker.sendall(data[start : start + 50_000])
            self.receive(limit)

    def close(self) -> None:
        self.broker.close()
        self.transport.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


class PahoOnPair(Client):
    """paho reading from a socket pair through the same private hook that the daemon overrides."""

    ours: socket.socket

    def _create_socket(self) -> Any:
        return self.ours


def pahos_reading(data: bytes, packets: int, protocol: MQTTProtocolVersion) -> list[tuple[Any, ...]]:
    """What paho's own parsing delivers for the bytes."""
    broker, ours = socket.socketpair()
    seen: list[tuple[Any, ...]] = []
    client = PahoOnPair(CallbackAPIVersion.VERSION2, "x", protocol=protocol, manual_ack=True)
    client.ours = ours
    client.on_message = lambda _client, _data, message: seen.append(
        (message.dup, message.qos, bool(message.retain), message.topic, message.mid, bytes(message.payload))
    )
    client.connect_async("pair", 1, 60)
    client.reconnect()
    broker.sendall(data)
    for _ in range(packets):
        client.loop_read()
    broker.close()
    client.disconnect()
    ours.close()
    return seen


def some_properties(draw: st.DrawFn) -> bytes:
    properties = Properties(PacketTypes.PUBLISH)
    if draw(st.booleans()):
        properties.MessageExpiryInterval = draw(st.integers(0, 2**32 - 1))
    if draw(st.booleans()):
        properties.ContentType = draw(st.text(alphabet="abcäö", max_size=200))
    if draw(st.booleans()):
        properties.UserProperty = [("k" * draw(st.integers(0, 300)), "v")]
    if draw(st.booleans()):
        properties.SubscriptionIdentifier = draw(st.integers(1, 268_435_455))
    return bytes(properties.pack())


@st.composite
def packets(draw: st.DrawFn, *, v5: bool) -> bytes:
    first = 0x30 | draw(st.sampled_from([0x00, 0x01, 0x02, 0x03, 0x0A, 0x0B]))
    topic = draw(st.text(alphabet=st.characters(exclude_characters="+#\0", exclude_categories=("Cs",)), min_size=1, max_size=40)).encode()
    payload = draw(st.binary(max_size=40)) * draw(st.sampled_from([1, 1, 10, 500]))
    return publish(first, topic, draw(st.integers(1, 65535)), payload, some_properties(draw) if v5 else b"")


@settings(max_examples=100)
@given(st.booleans(), st.data())
def test_contract_equal_to_pahos_own_parsing(v5: bool, data: st.DataObject) -> None:
    stream = data.draw(st.lists(packets(v5=v5), max_size=8))
    theirs = pahos_reading(b"".join(stream), len(stream), MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311)
    wire = Wire(properties=v5)
    try:
        joined = PINGRESP.join(stream)
        position = 0
        while position < len(joined):
            size = data.draw(st.integers(1, max(1, len(joined) // 3)))
            wire.feed(joined[position : position + size], limit=data.draw(st.integers(0, 3)))
            position += size
        wire.receive_all()
        ours = [
            (bool(first & 8), first >> 1 & 3, bool(first & 1), topic.decode(), packet_id, payload)
            for first, topic, packet_id, payload in wire.seen
        ]
        assert ours == theirs
        assert wire.control == [PINGRESP] * max(0, len(stream) - 1)
        assert wire.order == [part for message in wire.seen for part in (PINGRESP, message)][1:]
    finally:
        wire.close()


def test_a_large_packet_and_an_empty_payload(wire: Wire) -> None:
    wire.feed(publish(0x32, b"t", 1, b"y" * 3_000_000) + publish(0x32, b"t", 2, b""))
    assert [(packet_id, len(payload)) for _, _, packet_id, payload in wire.seen] == [(1, 3_000_000), (2, 0)]


def test_a_topic_that_is_no_utf8_is_passed_on(wire: Wire) -> None:
    wire.feed(publish(0x32, b"a/\xff", 1, b"x"))
    assert wire.seen == [(0x32, b"a/\xff", 1, b"x")]


@pytest.mark.parametrize(
    "data",
    [
        publish(0x34, b"t", 0, b"qos 2, packet id 0"),
        publish(0x36, b"t", 1, b"qos 3"),
        publish(0x32, b"t", 0, b"packet id 0"),
        publish(0x32, b"", 1, b"alias", b"\x03\x23\x00\x01"),
        b"\x32\x00",
        b"\x32\x03\x00\x09t",
        b"\x32\x04\x00\x01t\x00",
        b"\x32\x07\x00\x01t\x00\x01\x20x",  # properties longer than the packet
        b"\x32\x0b\x00\x01t\x00\x01\xff\xff\xff\xff\xff\x01",
        b"\x32\xff\xff\xff\xff\x01",
    ],
)
def test_what_is_no_agreed_publish_ends_the_connection(wire: Wire, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.feed(data + PINGRESP * 20)
    assert wire.seen == []


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_messages_control_or_a_protocol_error(data: bytes) -> None:
    wire = Wire()
    try:
        with contextlib.suppress(ProtocolError):
            wire.feed(data)
            wire.receive_all()
        assert sum(len(packet) for packet in wire.control) <= len(data)
    finally:
        wire.close()


def test_a_held_back_message_blocks_what_follows_and_stops_reading(wire: Wire) -> None:
    wire.feed(PINGRESP + publish(0x32, b"t", 1, b"x" * PAUSED_BUFFER_BYTES) + PINGRESP, limit=0)
    wire.receive(0)
    assert (wire.seen, wire.control) == ([], [PINGRESP])
    assert wire.transport.blocked
    assert not wire.transport.want_read
    assert not wire.transport.pending(0)
    assert wire.transport.pending(1)
    assert wire.receive(1, readable=False) == 1
    assert wire.transport.want_read
    assert wire.transport.pending(0)
    assert wire.receive(0, readable=False) == 0
    assert wire.control == [PINGRESP, PINGRESP]


def test_messages_returned_together_belong_to_the_connection_that_stands(wire: Wire) -> None:
    """A control packet may end the connection: what came before it is returned first, what comes after it is not."""
    first, second = publish(0x32, b"t", 1, b"1"), publish(0x32, b"t", 2, b"2")
    wire.feed(first + DISCONNECT + second)
    assert wire.order == [(0x32, b"t", 1, b"1")]
    assert wire.transport.pending(0)
    assert wire.receive(readable=False) == 0
    assert wire.control == [DISCONNECT]
    assert not wire.transport.pending(9)


@pytest.mark.parametrize("wrong", [publish(0x36, b"t", 1, b"qos 3"), b"\x32\x02\x00\x09", b"\xd0\xff\xff\xff\xff\x01"])
def test_messages_before_what_is_no_mqtt_are_returned_first(wire: Wire, wrong: bytes) -> None:
    wire.feed(publish(0x32, b"t", 1, b"1") + publish(0x32, b"t", 2, b"2") + wrong)
    assert [message[2] for message in wire.seen] == [1, 2]
    assert wire.transport.pending(1)
    with pytest.raises(ProtocolError):
        wire.receive(readable=False)
    assert len(wire.seen) == 2


def test_control_packets_between_messages_do_not_fill_the_memory(wire: Wire) -> None:
    """Each call stops behind one message here, and there is always more to read."""
    stream = (publish(0x32, b"t", 1, b"x" * 1000) + PINGRESP) * 2000
    wire.broker.setblocking(False)
    sent = largest = 0
    while len(wire.seen) < 2000:
        with contextlib.suppress(BlockingIOError):
            sent += wire.broker.send(stream[sent : sent + 200_000])
        wire.receive()
        largest = max(largest, len(wire.transport._buffer))
    assert largest < PAUSED_BUFFER_BYTES + RECEIVE_BYTES


def test_the_end_is_told_after_the_last_message(wire: Wire) -> None:
    wire.broker.sendall(publish(0x32, b"t", 1, b"x") * 3)
    wire.broker.close()
    while not wire.control:
        wire.receive(1)
    assert len(wire.seen) == 3
    assert wire.control == [b""]


def test_the_end_behind_messages_is_told_after_they_have_been_returned(wire: Wire) -> None:
    wire.broker.sendall(publish(0x32, b"t", 1, b"x") * 3 + b"\x32\x50cut off")
    wire.receive(2)
    wire.broker.close()
    assert wire.receive() == 1
    assert wire.control == []
    assert wire.transport.pending(0)
    assert wire.receive(readable=False) == 0
    assert wire.control == [b""]


def test_the_end_is_told_although_messages_are_held_back(wire: Wire) -> None:
    wire.broker.sendall(publish(0x32, b"t", 1, b"x"))
    wire.receive(0)
    assert wire.transport.blocked
    wire.broker.close()
    wire.receive(0)
    assert (wire.seen, wire.control) == ([], [b""])


def test_output_survives_a_full_socket_and_close_flushes(wire: Wire) -> None:
    data = bytes(range(256)) * 20_000
    wire.transport.send(data)
    wire.transport.flush()
    assert wire.transport.want_write
    received = bytearray()
    wire.broker.setblocking(False)
    while len(received) < len(data) - 1_000:
        with contextlib.suppress(BlockingIOError):
            received += wire.broker.recv(65536)
        wire.transport.flush()
    wire.transport.close()
    with contextlib.suppress(BlockingIOError):
        while chunk := wire.broker.recv(65536):
            received += chunk
    assert bytes(received) == data
    with pytest.raises(BrokenPipeError):
        wire.transport.send(b"x")


def answers(wire: Wire) -> bytes:
    """What goes to the broker."""
    wire.transport.flush()
    wire.broker.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return wire.broker.recv(65536)
    return b""


def test_qos_1_is_acknowledged_by_puback_and_qos_2_by_pubrec_in_the_order_asked(wire: Wire) -> None:
    wire.transport.acknowledge([1, 0xFFFF + BY_PUBREC, 2, 1 + BY_PUBREC])
    assert answers(wire) == b"@\x02\x00\x01P\x02\xff\xff@\x02\x00\x02P\x02\x00\x01"


def test_pubrel_is_answered_wherever_it_stands_and_ends_no_turn(wire: Wire) -> None:
    """Also of a message that an earlier connection, or an earlier process, brought and answered by PUBREC."""
    wire.feed(b"\x62\x02\x01\x02" + publish(0x34, b"t", 5, b"1") + b"\x62\x03\x03\x04\x00" + publish(0x32, b"t", 6, b"2"))
    assert [message[2] for message in wire.seen] == [5, 6]
    assert wire.control == []
    assert answers(wire) == b"p\x02\x01\x02p\x02\x03\x04"


def test_pubrel_is_answered_behind_a_message_that_is_held_back(wire: Wire) -> None:
    wire.feed(publish(0x34, b"t", 5, b"1") + b"\x62\x02\x01\x02", limit=0)
    assert answers(wire) == b""  # it comes after a PUBLISH that nobody has taken
    wire.receive(1)
    assert answers(wire) == b"p\x02\x01\x02"


def test_what_the_broker_said_first_and_how_it_ended_is_kept(wire: Wire) -> None:
    wire.feed(b"HTTP/1.1 400 Bad Request\r\n")
    wire.feed(b"more")
    assert wire.transport.greeting == b"HTTP/1.1 400 Bad Request\r\n"
    wire.broker.close()
    wire.receive()
    assert wire.transport.ending == "the broker closed the connection"


class NumberedOnPair(PahoOnPair, MqttClient):
    """The daemon's client on a socket pair."""


def test_contract_the_next_packet_identifier_of_paho_is_the_one_that_was_set() -> None:
    broker, ours = socket.socketpair()
    client = NumberedOnPair(CallbackAPIVersion.VERSION2, "x", protocol=MQTTProtocolVersion.MQTTv311)
    client.ours = ours
    client.connect_async("pair", 1, 60)
    client.reconnect()
    for packet_id in (0x8000, 0xFFFF):
        client.number_next(packet_id)
        assert client.subscribe("f/#", qos=1)[1] == packet_id
    broker.close()
    client.disconnect()
    ours.close()
