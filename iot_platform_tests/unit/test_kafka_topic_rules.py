"""Which settings of a Kafka topic are refused, warned of or accepted, and what we create topics with."""

import pytest

from ingest_daemon import dead_letter, kafka
from iot_platform.kafka import topic_rules
from iot_platform.kafka.topic_rules import Finding, dead_letter_config, judge, message_config
from iot_platform.kafka.topic_state import TopicState, Value
from iot_platform.settings import Settings

TOPIC, DEAD_LETTERS = "iot-messages", "iot-dead-letter"
KAFKAS_DEFAULTS = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
    "min.insync.replicas": "1",
    "flush.messages": "9223372036854775807",
    "message.timestamp.type": "CreateTime",
    "max.message.bytes": "1048588",
}


def topic(
    settings: Settings, name: str = TOPIC, *, replicas: int = 1, brokers: int = 0, in_sync: int | None = None, **other: str
) -> TopicState:
    """A topic as we make it, with other values for some settings (underscores stand for dots)."""
    made = message_config(settings) if name == TOPIC else dead_letter_config(settings)
    config = KAFKAS_DEFAULTS | made | {key.replace("_", "."): value for key, value in other.items()}
    values = {key: Value(value, "topic") for key, value in config.items()}
    at_hand = replicas if in_sync is None else in_sync
    return TopicState(
        name,
        values,
        brokers=brokers or replicas,
        partitions=6,
        replicas=replicas,
        under_replicated=6 if at_hand < replicas else 0,
        in_sync=at_hand,
    )


def refused(found: list[Finding]) -> list[tuple[str, str, tuple[str, str] | None]]:
    return [(item.setting, item.risk, item.mend) for item in found if item.state == "refused"]


@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
@pytest.mark.parametrize("name", [TOPIC, DEAD_LETTERS])
def test_what_we_create_is_not_refused(name: str, replicas: int) -> None:
    settings = Settings(kafka_replication_factor=replicas)
    assert judge(topic(settings, name, replicas=replicas), settings) == []


def test_one_or_two_replicas_sync_and_three_have_two_copies() -> None:
    made = {number: message_config(Settings(kafka_replication_factor=number)) for number in (1, 2, 3)}
    wanted = ("min.insync.replicas", "flush.messages")
    assert [[made[number].get(name) for name in wanted] for number in (1, 2, 3)] == [["1", "1"], ["1", "1"], ["2", None]]
    assert "flush.messages" not in message_config(Settings(kafka_flush=False))


def test_a_topic_with_kafkas_defaults_is_refused_for_each_reason() -> None:
    settings = Settings()
    assert refused(judge(topic(settings, **{key.replace(".", "_"): value for key, value in KAFKAS_DEFAULTS.items()}), settings)) == [
        ("flush.messages", "flush", ("flush.messages", "1")),
        ("message.timestamp.type", "timestamp", ("message.timestamp.type", "LogAppendTime")),
        ("max.message.bytes", "size", ("max.message.bytes", "20971520")),
    ]


@pytest.mark.parametrize(
    ("other", "risk", "mend"),
    [
        ({"cleanup_policy": "compact"}, "cleanup", ("cleanup.policy", "delete")),
        ({"cleanup_policy": "compact,delete"}, "cleanup", ("cleanup.policy", "delete")),
        ({"retention_ms": "604799999"}, "retention", ("retention.ms", "604800000")),
        ({"retention_ms": "0"}, "retention", ("retention.ms", "604800000")),
        ({"retention_bytes": "1073741824"}, "retention", ("retention.bytes", "-1")),
        ({"unclean_leader_election_enable": "true"}, "unclean_election", ("unclean.leader.election.enable", "false")),
        ({"min_insync_replicas": "2"}, "insync", ("min.insync.replicas", "1")),
        ({"flush_messages": "2"}, "flush", ("flush.messages", "1")),
        ({"message_timestamp_type": "CreateTime"}, "timestamp", ("message.timestamp.type", "LogAppendTime")),
        ({"max_message_bytes": "17039359"}, "size", ("max.message.bytes", "20971520")),
    ],
)
def test_each_dangerous_value_is_refused_unless_its_risk_is_accepted(other: dict[str, str], risk: str, mend: tuple[str, str]) -> None:
    settings = Settings()
    state = topic(settings, **other)
    assert refused(judge(state, settings)) == [(mend[0], risk, mend)]
    word = {"kafka_flush": False} if risk == "flush" else {"kafka_accept_risks": risk}
    assert [item.state for item in judge(state, Settings(**word))] == ["accepted"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        {"retention_ms": "-1"},
        {"retention_ms": "1", "cleanup_policy": ""},  # nothing is ever deleted
        {"flush_messages": "9223372036854775807", "min_insync_replicas": "2"},
        {"flush_messages": "9223372036854775807", "min_insync_replicas": "3"},
    ],
)
def test_other_ways_to_keep_the_promise(other: dict[str, str]) -> None:
    settings = Settings()
    assert refused(judge(topic(settings, replicas=3, **other), settings)) == []


def test_a_longer_outage_budget_wants_longer_retention_and_creates_it() -> None:
    longer = Settings(kafka_outage_budget_hours=240)
    assert message_config(longer)["retention.ms"] == "864000000"
    assert refused(judge(topic(Settings()), longer)) == [("retention.ms", "retention", ("retention.ms", "864000000"))]
    assert refused(judge(topic(Settings(), retention_ms="3600000"), Settings(kafka_outage_budget_hours=1))) == []


def test_three_replicas_of_which_one_may_confirm_alone_are_refused() -> None:
    settings = Settings()
    state = topic(settings, replicas=3, flush_messages="9223372036854775807")
    assert refused(judge(state, settings)) == [("min.insync.replicas", "insync", ("min.insync.replicas", "2"))]


def test_two_replicas_need_a_sync_or_both_of_them() -> None:
    settings = Settings()
    unsynced = {"flush_messages": "9223372036854775807"}
    assert refused(judge(topic(settings, replicas=2, **unsynced), settings)) == [("flush.messages", "flush", ("flush.messages", "1"))]
    (both,) = judge(topic(settings, replicas=2, min_insync_replicas="2", **unsynced), settings)
    assert (both.state, both.setting) == ("warning", "min.insync.replicas")


def test_larger_records_need_larger_batches() -> None:
    large = Settings(ingest_max_record_bytes=50_000_000)
    assert message_config(large)["max.message.bytes"] == str(50_000_000 + 256 * 1024)
    assert refused(judge(topic(Settings()), large)) == [("max.message.bytes", "size", ("max.message.bytes", str(50_000_000 + 256 * 1024)))]
    assert refused(judge(topic(Settings(), max_message_bytes="1048588"), Settings(ingest_max_record_bytes=700_000))) == []


def test_dead_letters_are_the_only_copy() -> None:
    settings = Settings()
    (short,) = judge(topic(settings, DEAD_LETTERS, retention_ms="3600000"), settings)
    assert (short.state, short.mend, "only copy" in short.reason) == ("refused", ("retention.ms", "-1"), True)
    (week,) = judge(topic(settings, DEAD_LETTERS, retention_ms="604800000"), settings)
    assert week.state == "warning"
    assert refused(judge(topic(settings, DEAD_LETTERS, max_message_bytes="100000"), settings)) == [
        ("max.message.bytes", "size", ("max.message.bytes", "1048588"))
    ]


def test_replicas_and_brokers_as_they_are() -> None:
    settings = Settings(kafka_replication_factor=3)
    said = {
        item.setting: item for item in judge(topic(settings, replicas=1, brokers=3, flush_messages="1", min_insync_replicas="1"), settings)
    }
    assert said["replicas"].state == "warning"
    (thin,) = judge(topic(settings, replicas=3, in_sync=1), settings)
    assert (thin.setting, "nothing can be written" in thin.reason) == ("under-replicated", True)


def test_what_kafka_does_not_tell_is_not_refused() -> None:
    (only,) = judge(TopicState(TOPIC, {}), Settings())
    assert (only.state, "DESCRIBE_CONFIGS" in only.reason) == ("warning", True)
    described = {"retention.ms": Value("604800000", "topic")}
    assert judge(TopicState(TOPIC, described), Settings()) == []


def test_risks_are_known_words() -> None:
    assert Settings(kafka_accept_risks=" size, retention ").kafka_accept_risks == "size,retention"
    with pytest.raises(ValueError, match="must be words out of cleanup"):
        Settings(kafka_accept_risks="everything")
    with pytest.raises(ValueError, match="IOT_KAFKA_FLUSH=false"):
        Settings(kafka_accept_risks="flush")


def test_both_sides_agree_on_sizes() -> None:
    assert topic_rules.RECORD_OVERHEAD_BYTES == kafka.OVERHEAD_BYTES
    assert topic_rules.PART_BYTES == dead_letter.FIRST_PART_BYTES
