"""Which MQTT version comes next, for any sequence of what came before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_daemon.protocol import Answer, Attempt, Protocol, ProtocolChoice, answer_of

V5, V311 = Protocol.V5, Protocol.V311


@pytest.mark.parametrize(
    ("greeting", "to_v5", "to_v311"),
    [
        (b"", Answer.NONE, Answer.NONE),
        (b"\x20\x02\x00", Answer.NONE, Answer.NONE),
        (b"\x20\x02\x00\x00", Answer.UNSUPPORTED, Answer.CONNACK),
        (b"\x20\x02\x00\x05", Answer.UNSUPPORTED, Answer.CONNACK),
        (b"\x20\x02\x00\x01", Answer.UNSUPPORTED, Answer.UNSUPPORTED),
        (b"\x20\x03\x00\x84\x00", Answer.UNSUPPORTED, Answer.UNSUPPORTED),
        (b"\x20\x03\x01\x00\x00", Answer.CONNACK, Answer.CONNACK),
        (b"\x20\x03\x00\x86\x00", Answer.CONNACK, Answer.CONNACK),
        (b"\x20\x90\x01\x00\x00" + b"p" * 59, Answer.CONNACK, Answer.CONNACK),
        (b"\x20\x90\x01\x00\x84" + b"p" * 59, Answer.UNSUPPORTED, Answer.UNSUPPORTED),
        (b"\x20\xff\xff\xff\xff\xff", Answer.NONE, Answer.NONE),
        (b"HTTP/1.1 400", Answer.UNREACHABLE, Answer.UNREACHABLE),
        (b"\x15\x03\x01\x00\x02\x02\x46", Answer.UNREACHABLE, Answer.UNREACHABLE),
    ],
)
def test_first_bytes_tell_whether_the_version_is_spoken(greeting: bytes, to_v5: Answer, to_v311: Answer) -> None:
    assert (answer_of(greeting, V5), answer_of(greeting, V311)) == (to_v5, to_v311)


@given(st.binary(max_size=64), st.sampled_from(Protocol))
def test_any_first_bytes_have_a_meaning(greeting: bytes, protocol: Protocol) -> None:
    assert answer_of(greeting, protocol) in Answer


@given(st.sampled_from(Protocol), st.sampled_from([None, *Protocol]), st.lists(st.sampled_from(Answer), max_size=30))
def test_a_version_that_is_set_is_never_left(protocol: Protocol, worked: Protocol | None, answers: list[Answer]) -> None:
    choice = ProtocolChoice(protocol, worked)
    for answer in answers:
        assert choice.attempt == Attempt(protocol)
        choice.learn(answer)


@given(st.sampled_from(Protocol), st.lists(st.sampled_from([Answer.CONNACK, Answer.NONE, Answer.UNREACHABLE]), max_size=60))
def test_what_has_worked_is_left_only_at_the_brokers_word(worked: Protocol, answers: list[Answer]) -> None:
    choice = ProtocolChoice("auto", worked)
    for answer in answers:
        assert choice.attempt == Attempt(worked)
        choice.learn(answer)
    choice.learn(Answer.UNSUPPORTED)
    assert choice.attempt == Attempt(worked.other)


@given(st.lists(st.sampled_from(Answer), max_size=200))
def test_our_own_session_begins_by_311_only_after_the_brokers_word_or_two_rounds_of_probes(answers: list[Answer]) -> None:
    choice = ProtocolChoice("auto", None)
    history: list[tuple[Attempt, Answer]] = []
    for answer in answers:
        attempt = choice.attempt
        if attempt == Attempt(V311) and not (history and history[-1][0] == attempt):
            said = history[-1] == (Attempt(V5), Answer.UNSUPPORTED)
            probes = [(one, come is Answer.CONNACK) for one, come in history[-4:]]
            rounds = [(Attempt(V311, probe=True), True), (Attempt(V5, probe=True), False)] * 2
            assert said or probes == rounds
            assert said or Answer.UNREACHABLE not in [come for _, come in history[-4:]]
            assert said or history[-5][1] is Answer.NONE
        history.append((attempt, answer))
        choice.learn(answer)


def test_a_broker_that_speaks_neither_is_asked_for_both_in_turns() -> None:
    choice = ProtocolChoice("auto", None)
    seen = []
    for _ in range(4):
        seen.append(choice.attempt.protocol)
        choice.learn(Answer.UNSUPPORTED)
    assert seen == [V5, V311, V5, V311]
