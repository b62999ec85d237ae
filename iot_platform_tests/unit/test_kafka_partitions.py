"""What is said about partitions without a leader or with copies behind, and that a missing answer is never taken for an offset."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from ingest_daemon.partitions import degraded, silent, unavailable

TOPIC = "iot-messages"


def metadata(partitions: dict[int, tuple[int, list[int], list[int]]], brokers: list[int]) -> Any:
    """Partition → (leader, replicas, in sync), as librdkafka gives it."""
    found = {number: SimpleNamespace(leader=item[0], replicas=item[1], isrs=item[2]) for number, item in partitions.items()}
    alive = {number: SimpleNamespace(host="kafka", port=9090 + number) for number in brokers}
    return SimpleNamespace(topics={TOPIC: SimpleNamespace(partitions=found)}, brokers=alive)


@pytest.mark.parametrize(
    ("partitions", "brokers", "not_answering", "said"),
    [
        ({0: (1, [1, 2, 3], [1, 2, 3])}, [1, 2, 3], [], None),
        (
            {0: (1, [1, 2, 3], [1, 2]), 1: (-1, [1, 2, 3], []), 2: (-1, [1, 2, 3], [])},
            [1, 2],
            [],
            "partitions 1, 2 of iot-messages without a leader, waiting for broker 3 to come back",
        ),
        (
            {0: (-1, [1, 2], [])},
            [1, 2],
            [],
            "partition 0 of iot-messages without a leader, although all its brokers are there",
        ),
        (
            {0: (2, [1, 2, 3], [2, 3]), 1: (2, [1, 2, 3], [2, 3]), 2: (3, [1, 2, 3], [2, 3])},
            [2, 3],
            [0, 1],
            "broker 2 at kafka:9092, leader of partitions 0, 1 of iot-messages, does not answer",
        ),
        (
            {0: (-1, [1, 2, 3], []), 1: (2, [2], [2])},
            [2],
            [1],
            "partition 0 of iot-messages without a leader, waiting for brokers 1, 3 to come back;"
            " broker 2 at kafka:9092, leader of partition 1 of iot-messages, does not answer",
        ),
    ],
)
def test_partitions_that_nobody_can_use_are_named_with_the_brokers_they_wait_for(
    partitions: dict[int, tuple[int, list[int], list[int]]], brokers: list[int], not_answering: list[int], said: str | None
) -> None:
    assert unavailable(metadata(partitions, brokers), TOPIC, not_answering) == said


def test_copies_that_lag_behind_are_named_with_the_broker_that_is_missing() -> None:
    assert degraded(metadata({0: (1, [1, 2, 3], [1, 2, 3])}, [1, 2, 3]), TOPIC) is None
    one_away = metadata({0: (1, [1, 2, 3], [1, 2]), 1: (2, [1, 2, 3], [1, 2])}, [1, 2])
    assert degraded(one_away, TOPIC) == "broker 3 missing, 2 of 3 copies in sync of partitions 0, 1 of iot-messages"
    catching_up = metadata({0: (1, [1, 2, 3], [1]), 1: (2, [1, 2, 3], [1, 2, 3])}, [1, 2, 3])
    assert degraded(catching_up, TOPIC) == "1 of 3 copies in sync of partition 0 of iot-messages"


def test_a_leader_that_gives_no_offset_is_silent() -> None:
    class Admin:
        def list_offsets(self, wanted: dict[TopicPartition, Any], request_timeout: float) -> dict[TopicPartition, Future[Any]]:
            assert request_timeout == 4
            assert {item.partition for item in wanted} == {0, 1}  # the third has no leader to ask
            answers = {}
            for item in wanted:
                answers[item] = Future[Any]()
                answers[item].set_result(SimpleNamespace(offset=7 if item.partition == 0 else -1001))
            return answers

    found = metadata({0: (1, [1], [1]), 1: (2, [2], [2]), 2: (-1, [3], [])}, [1, 2])
    assert silent(Admin(), found, TOPIC, 4) == [1]
