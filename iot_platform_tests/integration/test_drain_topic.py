"""A Kafka topic that grows under a running drain."""

import threading

from confluent_kafka.admin import AdminClient, NewPartitions

from iot_platform.settings import Settings
from iot_platform.telemetry.drain.drain import Drain, Progress, Shift
from iot_platform_tests.support.feeds.drain import Feed, query
from iot_platform_tests.support.waiting import eventually


def test_a_shift_ends_when_the_topic_gets_partitions_that_it_is_not_made_for(settings: Settings) -> None:
    feed = Feed(settings)
    feed.send(b'{"n": 1}', partition=0)
    feed.flush()
    progress: list[Progress] = []
    own = settings.model_copy(update={"drain_idle_seconds": 300.0, "drain_shift_seconds": 300.0})
    stop = threading.Event()
    thread = threading.Thread(target=lambda: progress.append(Drain(own, Shift((0, 1), "grows", fits=(0, 1).__eq__), stop=stop).run()))
    thread.start()
    try:
        eventually(lambda: query(settings, "SELECT count(*) FROM message") == [(1,)])
        with AdminClient(settings.kafka_config()) as admin:
            admin.create_partitions([NewPartitions(settings.kafka_topic, 4)])[settings.kafka_topic].result(30)
        thread.join(60)
        assert not thread.is_alive()
    finally:
        stop.set()
        thread.join()
    assert progress[0].ended == "other partitions"
