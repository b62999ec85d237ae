"""The drain seen by Kafka's own tools: its offsets in a consumer group, a copy that holds nobody up and that nobody reads back."""

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from iot_platform.kafka.group_offsets import NOTE_SECONDS, GroupOffsets
from iot_platform.orchestration import lag_watch
from iot_platform.orchestration.dynamic_partitions import KAFKA_PARTITION
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.source import KafkaSource, Start
from iot_platform_tests.support.feeds.drain import Feed, drain
from iot_platform_tests.support.servers.secured_kafka import SecuredKafka
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually

pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),  # Dagster's own, with newer pydantic
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
]
STARTING = {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
"""The group's coordinator is just starting."""
_numbers = itertools.count(1)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions(KAFKA_PARTITION, ["0", "1"])
        yield made


@pytest.fixture
def own(settings: Settings) -> Settings:
    """With a group that only this test has."""
    return settings.model_copy(update={"kafka_drain_group": f"drain-of-test-{next(_numbers)}"})


def noted(settings: Settings) -> dict[int, int]:
    """What the group has of the test's topic. (An AdminClient ends the process when it asks while the group's coordinator loads.)"""
    wanted = [TopicPartition(settings.kafka_topic, partition) for partition in range(2)]
    with closing(Consumer({**settings.kafka_config(), "group.id": settings.kafka_drain_group})) as consumer:

        def committed() -> list[TopicPartition] | None:
            try:
                return consumer.committed(wanted, timeout=20)
            except KafkaException as error:
                if error.args[0].code() in STARTING:
                    return None
                raise

        found = eventually(committed)
    return {item.partition: item.offset for item in found if item.offset >= 0}


def lag_by_kafkas_tool(servers: Servers, settings: Settings) -> dict[int, tuple[int, int, int]]:
    """Partition → current offset, log end, lag, as `kafka-consumer-groups.sh --describe` prints them."""
    tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    arguments = "--bootstrap-server", settings.kafka_bootstrap_servers, "--describe", "--group", settings.kafka_drain_group
    done = subprocess.run(servers.kafka.java(tool, *arguments), check=True, capture_output=True, text=True, timeout=60)
    rows = [line.split() for line in done.stdout.splitlines()]
    return {int(row[2]): (int(row[3]), int(row[4]), int(row[5])) for row in rows if row[1:2] == [settings.kafka_topic]}


def test_kafkas_own_tool_shows_the_lag(
    servers: Servers, own: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(own)
    for number in range(50):
        feed.send(b'{"n": 1}', partition=number % 2)
    feed.flush()
    drain(own)
    for _ in range(7):
        feed.send(b'{"n": 2}', partition=1)
    feed.flush()
    assert isinstance(lag_watch.watch(own, instance), dg.SensorResult)  # the sensor's tick, as in Dagster: it wants a run
    eventually(lambda: noted(own) == {0: 25, 1: 25}, what="the tick noted nothing")
    assert lag_by_kafkas_tool(servers, own) == {0: (25, 25, 0), 1: (25, 32, 7)}

    drain(own)
    monkeypatch.setattr(lag_watch, "TICK_SECONDS", 0.0)
    lag_watch.watch(own, instance)
    assert noted(own) == {0: 25, 1: 25}, "more than once a minute"
    clock = [0.0]
    with closing(GroupOffsets(own, lambda: clock[0])) as later:
        later.note({0: 25, 1: 32})
        eventually(lambda: noted(own) == {0: 25, 1: 32})
    assert lag_by_kafkas_tool(servers, own)[1] == (32, 32, 0)


def test_the_drains_own_consumers_do_not_hinder_it(settings: Settings) -> None:
    """They have the same group id, but only assign partitions: that makes no member."""
    assert settings.kafka_drain_group == "iot-drain"
    feed = Feed(settings)
    feed.send(b'{"n": 1}')
    feed.flush()
    with closing(GroupOffsets(settings)) as group, closing(KafkaSource(settings)) as source:
        source.assign({0: Start(0), 1: Start(0)})
        eventually(lambda: source.read(lambda: False) is not None)
        with capture_logs() as logs:
            group.note({0: 1, 1: 0})
            eventually(lambda: noted(settings) == {0: 1, 1: 0})
            group.note({})
    assert logs == []


def test_off_leaves_nothing(own: Settings, instance: dg.DagsterInstance) -> None:
    def groups() -> set[str]:
        with AdminClient(own.kafka_config()) as admin:
            return {group.group_id for group in admin.list_consumer_groups().result(10).valid}

    drain(own)
    before = groups()
    off = own.model_copy(update={"kafka_drain_group": "off"})
    feed = Feed(own)
    feed.send(b'{"n": 1}')
    feed.flush()
    assert isinstance(lag_watch.watch(off, instance), dg.SensorResult)
    assert lag_watch._group_offsets(off)._admin is None
    assert groups() == before


def test_a_group_with_members_is_told_once(own: Settings) -> None:
    consumer = Consumer({**own.kafka_config(), "group.id": own.kafka_drain_group})
    consumer.subscribe([own.kafka_topic])
    try:
        eventually(lambda: consumer.poll(0.2) is None and bool(consumer.assignment()), what="the consumer does not join")
        logs = told_over(own, minutes=3)
    finally:
        consumer.close()
    assert [entry["event"] for entry in logs] == ["drain_group_not_noted"]
    assert "subscribed under this name" in logs[0]["reason"]


def test_no_kafka_is_told_once_and_holds_nobody_up(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iot_platform.kafka.group_offsets.REQUEST_SECONDS", 2.0)
    logs = told_over(own.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"}), minutes=2)
    assert len(logs) == 1
    assert "Connection refused" in logs[0]["reason"]


def test_a_missing_right_on_the_group_is_named_once(secured_kafka: SecuredKafka) -> None:
    user, topic, group = "group-user", "group-messages", "group-of-test"
    secured_kafka.set_password(user, "secret")
    secured_kafka.create(topic)
    secured_kafka.grant(user, "READ", "DESCRIBE", topic=topic)
    settings = Settings(**secured_kafka.sasl(user, "secret"), kafka_topic=topic, kafka_drain_group=group)
    (entry,) = told_over(settings, minutes=3)
    assert f"user {user} may not READ the group {group}" in entry["reason"]
    assert f"--add --allow-principal User:{user} --operation Read --group {group}" in entry["reason"]

    secured_kafka.grant(user, "READ", group=group)
    everything = settings.model_copy(
        update={"kafka_bootstrap_servers": secured_kafka.bootstrap_servers, "kafka_security_protocol": "PLAINTEXT"}
        | {"kafka_sasl_mechanism": None, "kafka_sasl_username": None, "kafka_sasl_password": None, "kafka_ssl_ca_file": None}
    )
    # The first answers may still be that Kafka is making the topic of the groups: nothing to log, and tried again.
    eventually(lambda: (told_over(settings, minutes=1), noted(everything)) == ([], {0: 3}))


def test_a_new_password_in_the_file_is_taken_over(secured_kafka: SecuredKafka, tmp_path: Path) -> None:
    user, topic, group, file = "group-changes", "group-changes", "group-changes", tmp_path / "password"
    secured_kafka.set_password(user, "new")
    secured_kafka.create(topic)
    secured_kafka.grant(user, "READ", "DESCRIBE", topic=topic)
    secured_kafka.grant(user, "READ", group=group)
    file.write_text("old")
    access = secured_kafka.sasl(user, "old") | {"kafka_sasl_password": None, "kafka_sasl_password_file": file}
    settings, clock = Settings(**access, kafka_topic=topic, kafka_drain_group=group), [0.0]

    def noted_now() -> list[str]:
        with capture_logs() as logs:
            clock[0] += NOTE_SECONDS
            offsets.note({0: 3})
            eventually(lambda: offsets.note({}) or offsets._answer is None, seconds=30, what="no answer")  # type: ignore[func-returns-value]
        return [str(entry["reason"]) for entry in logs]

    with closing(GroupOffsets(settings, lambda: clock[0])) as offsets:
        (reason,) = noted_now()
        assert "IOT_KAFKA_SASL_PASSWORD_FILE" in reason
        file.write_text("new")
        eventually(lambda: noted_now() == [] and noted(settings) == {0: 3}, 60)


def told_over(settings: Settings, *, minutes: int) -> list[dict[str, object]]:
    """What is logged when offsets are noted for so many minutes, each answer awaited."""
    clock = [0.0]
    with closing(GroupOffsets(settings, lambda: clock[0])) as group, capture_logs() as logs:
        for _ in range(minutes):
            group.note({0: 3})
            eventually(lambda: group.note({}) or group._answer is None, seconds=20, what="no answer")  # type: ignore[func-returns-value]
            clock[0] += NOTE_SECONDS
    return [dict(entry) for entry in logs]
