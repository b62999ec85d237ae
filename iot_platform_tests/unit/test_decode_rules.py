"""Topic patterns, JSON pointers and the settings that break them."""

import pytest

from iot_platform.settings import Settings, SettingsError
from iot_platform.telemetry.decode import DecodeRules, Message, Quarantined, decode_one
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
