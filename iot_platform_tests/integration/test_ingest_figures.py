"""The accounting of a real daemon under kill -9: it adds up in every answer, and what it says is in Kafka is there."""

import json
import random
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from iot_platform_tests.support.servers.ingest import Daemon, create_topics, forget, publish, read_all
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually

TOPIC = "accounting"
KILLS = 4
PORTION = 3_000
COUNT = (KILLS + 1) * PORTION


@pytest.fixture
def daemon(servers: Servers, tmp_path: Path) -> Iterator[Daemon]:
    """Between the two, and so impatient with Kafka that it spools all the time."""
    create_topics(servers.kafka_bootstrap_servers, TOPIC, f"{TOPIC}-dead", partitions=3)
    made = Daemon(
        tmp_path,
        mqtt_url=servers.mqtt_url,
        mqtt_topic_filter=f"{TOPIC}/#",
        kafka_bootstrap_servers=servers.kafka_bootstrap_servers,
        kafka_topic=TOPIC,
        kafka_dead_letter_topic=f"{TOPIC}-dead",
        ingest_spool_after_seconds=0.001,
    )
    yield made
    made.close()
    forget(servers.mqtt_url, made.environment["IOT_INGEST_CLIENT_ID"])


def accounting(daemon: Daemon) -> dict[str, Any] | None:
    """The answer, which adds up; None when there is none."""
    status, body = daemon.probe("accounting")
    if status != 200:
        return None
    found: dict[str, Any] = json.loads(body)
    assert found["received"] == sum(found[place] for place in ("delivered", "dead_lettered", "spooled", "in_flight", "given_up", "missing"))
    return found


def scrape_adds_up(daemon: Daemon) -> None:
    families = text_string_to_metric_families(daemon.probe("metrics")[1])
    found = {sample.name.removeprefix("iot_ingest_"): sample.value for family in families for sample in family.samples}
    places = ("messages_delivered_total", "messages_dead_lettered_total", "messages_given_up_total", "messages_missing")
    if found:
        in_hand = found["spool_messages"] + found["messages_in_flight"]
        assert found["messages_received_total"] == sum(found[place] for place in places) + in_hand


def test_every_answer_adds_up_and_claims_nothing_that_is_not_in_kafka(servers: Servers, daemon: Daemon) -> None:
    daemon.start()
    messages = [(f"{TOPIC}/{number % 7}", b'{"n": %d}' % number) for number in range(COUNT)]
    portions = threading.Semaphore(0)

    def pace(number: int) -> None:
        """A portion begins when the daemon's figures before it are known."""
        if number % PORTION == 0:
            portions.acquire()

    publisher = threading.Thread(target=publish, args=(servers.mqtt_url, messages), kwargs={"pace": pace}, daemon=True)
    publisher.start()
    answers: list[dict[str, Any]] = []
    chance = random.Random(7)

    def look() -> int:
        if found := accounting(daemon):
            answers.append(found)
            scrape_adds_up(daemon)
        return int(found["received"]) if found else 0

    eventually(lambda: accounting(daemon))
    for _ in range(KILLS):
        least = look() + chance.randrange(200, PORTION)
        portions.release()
        eventually(lambda least=least: look() >= least)
        daemon.kill()
        daemon.start(ready=False)
        eventually(lambda: accounting(daemon))
    portions.release()
    publisher.join(60)
    assert not publisher.is_alive()
    eventually(lambda: look() >= COUNT and answers[-1]["in_flight"] == answers[-1]["spooled"] == 0, 90)
    assert daemon.stop() == 0
    for before, after in pairwise(answers):
        assert all(after[counter] >= before[counter] for counter in ("received", "delivered"))
    last = answers[-1]
    assert (last["missing"], last["dead_lettered"]) == (0, 0)
    records = read_all(servers.kafka_bootstrap_servers, TOPIC)
    assert {(record.topic, record.value) for record in records} == set(messages)
    in_kafka = {(record.connection, record.sequence) for record in records}
    claimed = {connection["number"]: connection["in_kafka"] for found in answers for connection in found["connections"]}
    assert len(claimed) == KILLS + 1
    for found in answers:
        for connection in found["connections"]:
            assert connection["in_kafka"] <= connection["settled"] <= connection["received"]
            assert connection["in_kafka"] <= claimed[connection["number"]]
    assert {(number, sequence) for number, until in claimed.items() for sequence in range(1, until + 1)} <= in_kafka
    assert all(connection["in_kafka"] == connection["settled"] for connection in last["connections"])
    assert last["connections"][-1]["settled"] == last["connections"][-1]["received"]
