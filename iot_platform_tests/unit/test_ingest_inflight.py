"""The acknowledgement window: in arrival order, after the delivery report, only on the connection that brought the message."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingest_daemon.inflight import Connection, InFlight, Pending, State


class Failures:
    """Owner of messages that notes the failed ones."""

    def __init__(self) -> None:
        self.noted: list[tuple[Pending, Any]] = []

    def failed(self, message: Pending, error: Any) -> None:
        self.noted.append((message, error))

    def arrived(self, message: Pending, state: State) -> None:
        raise AssertionError("nothing is in a spool")


def pending(connection: Connection, packet_id: int, value: bytes = b"x") -> Pending:
    connection.sequence += 1
    return Pending(connection, packet_id, connection.sequence, b"t", value, b"")


def test_reports_out_of_order_are_acknowledged_in_order() -> None:
    connection, window = Connection(1, Failures()), InFlight()
    first, second, third = (pending(connection, packet_id) for packet_id in (7, 5, 6))
    for message in (first, second, third):
        window.add(message)
    third(None, None)
    second(None, None)
    assert window.settle(connection).packet_ids == []
    first(None, None)
    assert window.settle(connection).packet_ids == [7, 5, 6]
    assert len(window) == 0
    assert window.payload_bytes == 0


def test_a_dead_connections_messages_are_counted_but_never_acknowledged() -> None:
    dead, alive, window = Connection(1, Failures()), Connection(2, Failures()), InFlight()
    old, new = pending(dead, 1), pending(alive, 1)
    window.add(old)
    window.add(new)
    new(None, None)
    old(None, None)
    settled = window.settle(alive)
    assert settled.packet_ids == [1]
    assert settled.delivered == 2
    assert window.settle(None).packet_ids == []


def test_qos0_settles_without_acknowledgement_and_failures_settle_nothing() -> None:
    failures = Failures()
    connection = Connection(1, failures)
    window = InFlight()
    qos0, refused = pending(connection, 0), pending(connection, 3)
    window.add(qos0)
    window.add(refused)
    qos0(None, None)
    refused("refused", None)
    settled = window.settle(connection)
    assert (settled.packet_ids, settled.delivered) == ([], 1)
    assert failures.noted == [(refused, "refused")]
    refused.state = State.DEAD_LETTERED
    settled = window.settle(connection)
    assert (settled.packet_ids, settled.delivered, settled.dead_lettered) == ([3], 0, 1)


@given(st.data())
def test_any_interleaving_keeps_the_promise(data: st.DataObject) -> None:
    """Model: per connection, acknowledgements are a prefix of arrivals; each message's and all earlier ones' reports came before."""
    window = InFlight()
    alive: Connection | None = None
    number = 0
    arrived: list[Pending] = []
    acknowledged: dict[Connection, list[int]] = {}
    settled_total = 0
    for _ in range(data.draw(st.integers(1, 60))):
        action = data.draw(st.sampled_from(["connect", "cut", "arrive", "arrive", "report", "report", "settle"]))
        open_messages = [message for message in arrived if message.state is State.IN_FLIGHT]
        if action == "connect":
            number += 1
            alive = Connection(number, Failures())
            acknowledged[alive] = []
        elif action == "cut":
            alive = None
        elif action == "arrive" and alive is not None:
            message = pending(alive, alive.sequence % 65535 + 1)
            arrived.append(message)
            window.add(message)
        elif action == "report" and open_messages:
            data.draw(st.sampled_from(open_messages))(None, None)
        elif action == "settle":
            settled = window.settle(alive)
            settled_total += settled.delivered
            if settled.packet_ids:
                assert alive is not None
                acknowledged[alive] += settled.packet_ids
    for connection, packet_ids in acknowledged.items():
        own = [message for message in arrived if message.connection is connection]
        assert packet_ids == [message.packet_id for message in own[: len(packet_ids)]]
        last = arrived.index(own[len(packet_ids) - 1]) if packet_ids else -1
        assert all(message.state for message in arrived[: last + 1])
    assert len(arrived) == settled_total + len(window)
    assert window.payload_bytes == len(window)


def test_a_probe_is_acknowledged_in_its_turn_and_counted_nowhere() -> None:
    connection, window = Connection(1, Failures()), InFlight()
    window.add_probe(connection, 1, b"t", b"p")
    assert len(window) == 0
    settled = window.settle(connection)
    assert (settled.packet_ids, settled.delivered, window.released) == ([1], 0, 0)
    first, last = pending(connection, 2), pending(connection, 4)
    window.add(first)
    window.add_probe(connection, 3, b"t", b"p")
    window.add(last)
    assert (len(window), window.unsettled()) == (2, [first, last])
    last(None, None)
    assert window.settle(connection).packet_ids == []
    first(None, None)
    settled = window.settle(connection)
    assert (settled.packet_ids, settled.delivered, settled.last, window.released) == ([2, 3, 4], 2, {1: 2}, 2)
    window.add_probe(connection, 5, b"t", b"p")
    assert window.settle(None).packet_ids == []  # of a dead connection
    assert (len(window), window.payload_bytes) == (0, 0)
