"""The simulator's plan: reproducible, mixed as asked, and right about what must become of each message."""

import itertools
import json
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from iot_platform.settings import Settings
from iot_platform.simulator.connection import Delivery
from iot_platform.simulator.fleet import FleetError, FleetOptions, TopicTemplate, build_fleet
from iot_platform.simulator.generator import Generator
from iot_platform.simulator.message import Expected, Message
from iot_platform.simulator.record import Recorder, read_record
from iot_platform.telemetry.decode import DecodeRules, Quarantined, decode_one

PATTERN = "mtic/msg/client/realtime/{tenant}/{project}/{device...}"
START_US = 1_795_427_998_000_000
OPTIONS = FleetOptions(late=0.05, duplicate=0.05, malformed=0.1, conflict=0.02, retained=0.02, skew=0.2)


def plan(count: int, options: FleetOptions = OPTIONS, rate: float = 200.0, start_us: int = START_US) -> list[Message]:
    return list(itertools.islice(Generator(options, PATTERN, start_us, rate).messages(), count))


def test_same_seed_options_and_start_give_the_same_bytes() -> None:
    assert plan(3000) == plan(3000)


def test_another_seed_gives_another_fleet() -> None:
    topics = {message.topic for message in plan(300)}
    assert topics.isdisjoint(message.topic for message in plan(300, replace(OPTIONS, seed=2)))


def test_a_larger_fleet_contains_the_smaller_one() -> None:
    template = TopicTemplate(PATTERN)
    small = {device.topic for device in build_fleet(FleetOptions(tenants=2, projects=2, devices=3), template, START_US)}
    assert small < {device.topic for device in build_fleet(FleetOptions(), template, START_US)}


def test_ids_have_19_digits_and_every_project_publishes() -> None:
    identities = {(m.expected.tenant, m.expected.project) for m in plan(5000) if m.expected.reason is None}
    assert len(identities) == OPTIONS.tenants * OPTIONS.projects
    assert all(len(part) == 19 and part.isdigit() for identity in identities for part in identity)


def test_shares_are_those_asked_for() -> None:
    messages = plan(20_000)
    kinds = Counter(message.kind for message in messages)
    assert sum(message.expected.reason is not None for message in messages) / 20_000 == pytest.approx(0.1, abs=0.01)
    assert kinds["duplicate"] / 20_000 == pytest.approx(0.05, abs=0.01)
    assert 0.02 < kinds["late"] / 20_000 < 0.06  # devices without a clock are never late
    assert sum(message.retain for message in messages) / 20_000 == pytest.approx(0.018, abs=0.01)


def test_nothing_but_the_ordinary_when_all_shares_are_zero() -> None:
    options = FleetOptions(mix="flat", late=0, duplicate=0, malformed=0, heartbeat=0, skew=0)
    assert {message.kind for message in plan(2000, options)} == {"flat"}


def test_malformed_messages_cover_the_reasons_a_sender_can_cause() -> None:
    reasons = {message.expected.reason for message in plan(20_000)} - {None}
    assert reasons == {
        "topic_mismatch", "empty_payload", "not_utf8", "not_json", "bad_unicode", "too_deep", "not_object", "not_finite",
        "nul_character", "bad_name", "duplicate_metric", "too_many_values", "bad_timestamp", "time_out_of_range",
    }  # fmt: skip


def test_a_copy_repeats_its_original_byte_for_byte_on_the_same_connection() -> None:
    messages = plan(5000)
    copies = [message for message in messages if message.copy_of is not None]
    assert copies
    for copy in copies:
        original = messages[copy.copy_of or 0]
        assert original.number < copy.number
        assert (copy.topic, copy.payload, copy.device, copy.expected) == (
            original.topic,
            original.payload,
            original.device,
            original.expected,
        )


def test_only_copies_and_conflicts_claim_a_series_and_time_again() -> None:
    seen: set[tuple[str, ...]] = set()
    for message in plan(20_000, rate=0):
        outcome = message.expected
        keys = {
            (outcome.tenant, outcome.project, item.device or outcome.device, item.metric, str(item.time_us))
            for item in outcome.measurements
            if item.time_us is not None
        }
        if message.kind not in ("duplicate", "conflict"):
            assert seen.isdisjoint(keys), message
        seen |= keys


@pytest.mark.parametrize(("rate", "offsets"), [(200.0, [0, 5000, 10_000]), (0.0, [0, 0, 0])])
def test_due_times_follow_the_rate(rate: float, offsets: list[int]) -> None:
    assert [message.offset_us for message in plan(3, rate=rate)] == offsets


def test_the_drains_decoder_agrees_with_what_the_generator_knows() -> None:
    rules = DecodeRules.from_settings(Settings())
    for message in plan(10_000):
        received_us = START_US + message.offset_us + 137
        assert decoded(rules, message, received_us) == known(message.expected, received_us), message


def decoded(rules: DecodeRules, message: Message, received_us: int) -> tuple[object, ...]:
    outcome = decode_one(rules, message.topic.encode(), message.payload, received_us)
    if isinstance(outcome, Quarantined):
        return (str(outcome.reason),)
    values = Counter((x.device, x.metric, x.time, bits(x.value), x.value_int, x.value_text) for x in outcome.measurements)
    return (None, outcome.tenant, outcome.project, outcome.device, "payload" if outcome.time_from_payload else "receive", values)


def known(expected: Expected, received_us: int) -> tuple[object, ...]:
    if expected.reason is not None:
        return (expected.reason,)
    values = Counter(
        (
            expected.device if x.device is None else x.device,
            x.metric,
            received_us if x.time_us is None else x.time_us,
            bits(x.value),
            x.value_int,
            x.value_text,
        )
        for x in expected.measurements
    )
    return (None, expected.tenant, expected.project, expected.device, expected.time_source, values)


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack(">d", value)


def test_a_record_can_be_read_back(tmp_path: Path) -> None:
    messages = plan(2000)
    path = tmp_path / "published.jsonl"
    with Recorder(path, {"seed": 1}) as recorder:
        for message in messages:
            recorder.add(Delivery(message, START_US, acked_us=START_US + 1 if message.number % 2 else None))
    lines = list(read_record(path))
    assert [line.message for line in lines] == messages
    assert [line.acked for line in lines] == [bool(message.number % 2) for message in messages]
    assert json.loads(path.read_text("utf-8").splitlines()[0])["record"] == "iot-simulator"


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text("{}\n", "utf-8")
    with pytest.raises(ValueError, match="no simulator record"):
        list(read_record(path))


@pytest.mark.parametrize("wrong", [{"tenants": 0}, {"late": 1.5}, {"late": 0.6, "malformed": 0.6}])
def test_impossible_options_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(FleetError, match="--"):
        FleetOptions(**wrong)  # type: ignore[arg-type]


def test_a_pattern_without_tenant_is_refused() -> None:
    with pytest.raises(FleetError, match="IOT_TOPIC_PATTERN"):
        TopicTemplate("plant/{project}/{device...}")


@pytest.mark.parametrize(
    ("pattern", "device", "topic"),
    [
        ("a/{tenant}/{project}/{device...}", "x/y", "a/T/P/x/y"),
        ("a/{tenant}/{project}/{device...}", None, "a/T/P"),
        ("+/{project}/{tenant}", None, "x/P/T"),
        ("{tenant}/{project}/{device}/data", "d", "T/P/d/data"),
    ],
)
def test_topics_follow_the_configured_pattern(pattern: str, device: str | None, topic: str) -> None:
    assert TopicTemplate(pattern).render("T", "P", device) == topic
