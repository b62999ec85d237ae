"""Where messages go: each change of the sink's state by what brings it about; no other one is possible."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from ingest_daemon.credentials import ClientCredentials
from ingest_daemon.gate import Gate
from ingest_daemon.sink_state import FOLLOWING, SinkState
from iot_platform_tests.support.feeds.sink_rig import Record, Rig

DIRECT, PROBING, UNPROVEN, FORWARDING, FAILED, CLOSED = SinkState
RETRIABLE = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
REFUSED = KafkaError(KafkaError.INVALID_RECORD)


@pytest.fixture
def visited(monkeypatch: pytest.MonkeyPatch) -> list[SinkState]:
    """The states that gates go through, as they do."""
    states: list[SinkState] = []
    become = Gate.become

    def noted(gate: Gate, state: SinkState, reason: str | None) -> None:
        become(gate, state, reason)
        states.append(state)

    monkeypatch.setattr(Gate, "become", noted)
    return states


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, ingest_in_flight_window=10)
    yield made
    made.close()


def hold(_record: Record) -> str:
    return "hold"


def deliver(_record: Record) -> None:
    return None


def fail(_record: Record) -> KafkaError:
    return RETRIABLE


# -- what brings the sink into a state, by the shortest way ----------------------------------------------------
def late(rig: Rig) -> None:
    rig.script.answer = hold
    rig.send(b"1")
    rig.turns(2, seconds=3)


def full_queue(rig: Rig) -> None:
    hold_one(rig)
    rig.script.full = True
    rig.send(b"2")


def refused_are_many(rig: Rig) -> None:
    rig.script.answer = lambda record: REFUSED if record[0] == "iot-messages" else RETRIABLE
    rig.send(*[b"bad"] * 10)
    rig.turns(1)


def new_files(rig: Rig, name: bytes = b"new") -> None:
    rig.credentials.current = ClientCredentials(None, name)
    rig.turns(1)


def failing(rig: Rig) -> None:
    rig.script.answer = fail
    rig.send(b"1")
    rig.turns(1)


def fatal(rig: Rig) -> None:
    rig.script.producers[-1].fail(KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    rig.turns(1)


def leaving(rig: Rig) -> None:
    rig.script.answer = hold
    rig.send(b"1")
    rig.sink.leave()
    rig.sink.spool_all()


def heal(rig: Rig) -> None:
    rig.script.answer, rig.script.full = deliver, False
    rig.turns(10, seconds=1)


def unmakable(rig: Rig) -> None:
    rig.script.unmakable = True


def hold_one(rig: Rig) -> None:
    rig.script.answer = hold
    rig.send(b"1")
    rig.turns(1)


def fail_all(rig: Rig) -> None:
    rig.script.answer = fail
    rig.turns(1)


def full_while_forwarding(rig: Rig) -> None:
    """The first of two messages is the probe; its report comes, and there is no room for the other one."""
    rig.disk.hanging = True
    late(rig)
    rig.send(b"2")
    rig.script.full, rig.script.answer = True, deliver
    rig.turns(2)


def close(rig: Rig) -> None:
    rig.script.answer = hold
    rig.sink.close()


def time_passes(rig: Rig) -> None:
    rig.turns(1, seconds=1)


Steps = list[Callable[[Rig], None]]
CASES: dict[str, tuple[Steps, list[SinkState]]] = {
    "no confirmation in time, then one": ([late, heal], [PROBING, FORWARDING, DIRECT]),
    "librdkafka's queue is full of what tells": ([full_queue, heal], [PROBING, FORWARDING, DIRECT]),
    "refused messages fill the memory": ([refused_are_many, heal], [PROBING, FORWARDING, DIRECT]),
    "a retriable failure": ([failing, heal], [FAILED, UNPROVEN, PROBING, FORWARDING, DIRECT]),
    "a fatal failure without messages": ([fatal, heal], [FAILED, UNPROVEN, DIRECT]),
    "no other producer after a fatal failure": ([unmakable, fatal, time_passes], [FAILED, FAILED]),
    "a probe that fails": ([late, fail_all], [PROBING, FAILED]),
    "a failure before the probe": ([hold_one, new_files, fail_all], [UNPROVEN, FAILED]),
    "a failure while the spool flows": ([full_while_forwarding, fatal], [PROBING, FORWARDING, FAILED]),
    "new certificates": ([new_files, heal], [UNPROVEN, DIRECT]),
    "new certificates during a probe": ([late, new_files, heal], [PROBING, UNPROVEN, DIRECT]),
    "leaving": ([leaving, heal], [UNPROVEN]),
    "closing, directly": ([close], [CLOSED]),
    "closing, with a probe out": ([late, close], [PROBING, CLOSED]),
    "closing, before a probe": ([leaving, close], [UNPROVEN, CLOSED]),
    "closing, while the spool flows": ([full_while_forwarding, close], [PROBING, FORWARDING, CLOSED]),
    "closing, failed": ([failing, close], [FAILED, CLOSED]),
}


@pytest.mark.parametrize("case", CASES)
def test_states_by_what_happens(rig: Rig, visited: list[SinkState], case: str) -> None:
    steps, states = CASES[case]
    for step in steps:
        step(rig)
    assert visited == states


def test_each_allowed_change_has_its_case() -> None:
    taken = {pair for _, states in CASES.values() for pair in zip([DIRECT, *states], states, strict=False)}
    assert taken == {(state, following) for state, all_following in FOLLOWING.items() for following in all_following}


@pytest.mark.parametrize("state", SinkState)
def test_any_other_change_is_refused(rig: Rig, state: SinkState) -> None:
    gate: Gate = rig.sink._gate
    for following in set(SinkState) - FOLLOWING[state]:
        gate.state = state
        with pytest.raises(AssertionError, match=following.name):
            gate.become(following, None)
        assert gate.state is state
