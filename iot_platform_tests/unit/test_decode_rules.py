"""Topic patterns, JSON pointers and the settings that break them."""

import gzip
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from iot_platform.settings import Settings, SettingsError
from iot_platform.telemetry.decode import Correction, Decoder, DecodeRules, Message, Quarantined, decode_one
from iot_platform.telemetry.decode.topic_pattern import TopicNames, TopicPattern
from iot_platform_tests.support.feeds.decode_cases import NOW

DEFAULT = "mtic/msg/client/realtime/{tenant}/{project}/{device...}"


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        (DEFAULT, "mtic/msg/client/realtime/t/p", TopicNames("t", "p", None)),
        (DEFAULT, "mtic/msg/client/realtime/t/p/", TopicNames("t", "p", "")),
        (DEFAULT, "mtic/msg/client/realtime/t/p/a/b", TopicNames("t", "p", "a/b")),
        (DEFAULT, "mtic/msg/client/realtime/t/p//b", TopicNames("t", "p", "/b")),
        (DEFAULT, "mtic/msg/client/realtime/t/", None),
        (DEFAULT, "/mtic/msg/client/realtime/t/p", None),
        (DEFAULT, "mtic/msg/client/realtime/" + "t" * 128 + "/p", TopicNames("t" * 128, "p", None)),
        (DEFAULT, "mtic/msg/client/realtime/" + "厂" * 43 + "/p", None),
        ("a/{project}/+/{device}", "a/p/x/d", TopicNames(None, "p", "d")),
        ("a/{project}/+/{device}", "a/p/x/d/e", None),
        ("a/{project}/+/{device}", "a/p/x", None),
    ],
)
def test_pattern(pattern: str, topic: str, expected: TopicNames | None) -> None:
    assert TopicPattern.compile(pattern).match(topic) == expected


@pytest.mark.parametrize(
    "pattern", ["{tenant}/{device...}/x", "{tenant}/{tenant}", "a{tenant}/{project}", "{tenant}/{site}", "a/{device}/{device...}"]
)
def test_a_pattern_that_means_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError, match="IOT_TOPIC_PATTERN"):
        TopicPattern.compile(pattern)


@pytest.mark.parametrize("pointer", ["ts", "", "/a~2b"])
def test_a_bad_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(SettingsError, match="IOT_TIME_POINTERS"):
        DecodeRules.from_settings(Settings(time_pointers=(pointer,)))


def test_pointers_name_what_the_topic_does_not() -> None:
    rules = DecodeRules.from_settings(
        Settings(
            topic_pattern="plant/+",
            tenant_pointers=("/meta/tenant",),
            project_pointers=("/meta/a~1b", "/project"),
            device_pointers=("/meta/dev~0",),
        )
    )
    payload = b'{"meta":{"tenant":"t","dev~":5,"x":1},"project":"p","t":2}'
    outcome = decode_one(rules, b"plant/1", payload, NOW)
    assert isinstance(outcome, Message)
    assert (outcome.tenant, outcome.project, outcome.device) == ("t", "p", "5")
    assert [item.metric for item in outcome.measurements] == ["meta.x", "t"]
    absent = decode_one(rules, b"plant/1", b'{"meta":{"tenant":"t"}}', NOW)
    assert isinstance(absent, Quarantined)
    assert absent.reason == "topic_mismatch"


def test_zone_of_times_without_one() -> None:
    rules = DecodeRules.from_settings(Settings(default_timezone="Asia/Shanghai"))
    outcome = decode_one(rules, b"mtic/msg/client/realtime/t/p", b'{"ts":"2026-11-23T17:59:58","t":1}', NOW)
    assert isinstance(outcome, Message)
    assert outcome.measurements[0].time == 1_795_427_998_000_000


def correction(said: Settings, tenant: str = "t", **scope: Any) -> Correction:
    """Of every message of the tenant that is refused, unless the scope says less."""
    scope = {"project": "", "topic_filter": "", "reason": "", "start": 0, "end": None, **scope}
    return Correction(tenant, rules=DecodeRules.from_settings(said), **scope)


ZIPPED: dict[str, Any] = {"topic": "mtic/msg/client/realtime/+/+", "compression": "gzip"}


@pytest.mark.parametrize(
    ("made", "stored"),
    [
        (correction(Settings(topic_codecs=(ZIPPED,))), True),
        (correction(Settings(topic_codecs=(ZIPPED,)), tenant="other"), False),
        (correction(Settings(topic_codecs=({**ZIPPED, "tenant": "other"},))), False),  # it must stay its own
        (correction(Settings(topic_codecs=({**ZIPPED, "tenant": "t"},)), tenant="other", topic_filter="#"), False),
        (correction(Settings(topic_codecs=(ZIPPED,)), project="p", reason="not_utf8"), True),
        (correction(Settings(topic_codecs=(ZIPPED,)), project="q"), False),
        (correction(Settings(topic_codecs=(ZIPPED,)), reason="not_json"), False),
        (correction(Settings(topic_codecs=(ZIPPED,)), start=NOW, end=NOW + 1), True),
        (correction(Settings(topic_codecs=(ZIPPED,)), end=NOW), False),
        (correction(Settings(topic_codecs=(ZIPPED,)), start=NOW + 1), False),
    ],
)
def test_a_correction_takes_what_its_tenants_rules_refuse(made: Correction, stored: bool) -> None:
    topic, payload = b"mtic/msg/client/realtime/t/p", gzip.compress(b'{"deviceId":"d","flow":1}')
    rules = replace(DecodeRules.from_settings(Settings()), corrections=(made,))
    plain = decode_one(rules, topic, payload, NOW)
    assert isinstance(plain, Message) is stored
    decoder = Decoder(rules)
    count = 40  # of these enough for the columns
    topics, payloads = [topic] * count * 2, [payload] * count + [b'{"deviceId":"e","flow":2}'] * count
    decoded = decoder.decode(topics, payloads, np.full(2 * count, NOW, np.int64))
    assert [row for row, _, _ in decoded.reason] == ([] if stored else list(range(count)))
    assert {device for _, _, _, device in decoder.sources} == ({"d", "e"} if stored else {"e"})


def test_a_correction_changes_nothing_that_was_decoded_before() -> None:
    topic, payload = b"mtic/msg/client/realtime/t/p", b'{"deviceId":"d","ts":"2026-11-23 09:00:00","flow":1}'
    rules = DecodeRules.from_settings(Settings())
    first = correction(Settings(topic_codecs=(ZIPPED,)))
    second = correction(Settings(topic_codecs=(ZIPPED,), default_timezone="Asia/Shanghai"))
    for body in (payload, gzip.compress(payload)):
        found = [decode_one(replace(rules, corrections=those), topic, body, NOW) for those in ((first,), (first, second))]
        assert isinstance(found[0], Message)
        assert found[0] == found[1]
    local = gzip.compress(payload.replace(b"09:00", b"17:00"))
    ahead = decode_one(replace(rules, corrections=(first, second)), topic, local, NOW)  # for the first one hours ahead
    assert isinstance(ahead, Message)
    assert ahead.measurements[0].time == 1_795_424_400_000_000  # 09:00 UTC


def test_what_is_read_by_births_is_corrected_by_nobody() -> None:
    sparkplug: dict[str, Any] = {"topic": "spBv1.0/#", "codec": "sparkplug_b", "tenant": "t", "project": "p"}
    topic, payload = b"spBv1.0/g/NDATA/n", b"no protobuf"
    text: dict[str, Any] = {"topic": "spBv1.0/#", "codec": "scalar", "metric": "m", "tenant": "t", "project": "p"}
    for ours, theirs in (((sparkplug,), (text,)), ((), (sparkplug,))):
        made = correction(Settings(topic_codecs=theirs), topic_filter="#")
        rules = replace(DecodeRules.from_settings(Settings(topic_codecs=ours)), corrections=(made,))
        assert isinstance(decode_one(rules, topic, payload, NOW), Quarantined)
