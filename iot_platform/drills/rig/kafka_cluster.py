"""Three Kafka nodes for drills, each broker and controller, and what each partition's replicas are doing."""

import random
import re
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from iot_platform.kafka.topics import ensure_topics
from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import Note
from iot_platform.local.kafka import KafkaServer, Quorum, new_cluster_id
from iot_platform.local.ports import free_ports
from iot_platform.settings import Settings

BROKERS: Final = 3
REPLICAS: Final = 3
HEAP: Final = "320m"
ANSWER_SECONDS: Final = 5.0
TOGETHER_SECONDS: Final = 60.0
_DESCRIBED: Final = re.compile(r"\bTopic: (\S+)\s+Partition: (\d+)\s.*\bElr: ?([\d,]*)\s+LastKnownElr: ?([\d,]*)")


@dataclass(frozen=True)
class Replicas:
    """A partition's leader (-1: none) and the numbers of the brokers that have copies; `in_sync` are those that count for acks=all."""

    leader: int
    all: frozenset[int]
    in_sync: frozenset[int]


@dataclass(frozen=True)
class Eligible:
    """Brokers that may lead without being in sync (`eligible`), and the last leader where no broker may (`last_known`). KIP-966's ELR."""

    eligible: frozenset[int]
    last_known: frozenset[int]


class KafkaCluster:
    """The nodes, kafka-1 to kafka-3, on ports of their own. They come up only together: a quorum is two of three."""

    def __init__(self, folder: Path, cache_dir: Path, settings: Settings, host: str, ports: Iterable[int]) -> None:
        """`settings` carry all addresses as bootstrap servers."""
        self.settings = settings
        quorum = Quorum(tuple(free_ports(BROKERS)), new_cluster_id())
        self.servers = tuple(
            KafkaServer(folder, cache_dir, port, settings, HEAP, name_of(number), node_id=number, quorum=quorum, host=host)
            for number, port in enumerate(ports, 1)
        )

    def provision(self, note: Note) -> None:
        """Wait until every broker is there, and create the platform's topics.

        Raises:
            LocalStackError: they don't come together.
        """
        note("waiting until all brokers are there")
        deadline = time.monotonic() + TOGETHER_SECONDS
        while len(found := brokers(self.settings)) < BROKERS:
            if time.monotonic() > deadline:
                raise LocalStackError(f"only the brokers {sorted(found)} of {BROKERS} have come together")
            time.sleep(0.2)
        note("creating topics")
        ensure_topics(self.settings)

    def eligible(self, topic: str) -> dict[int, Eligible]:
        """By partition; takes seconds, because only Kafka's own tool knows.

        Raises:
            subprocess.SubprocessError: it does not answer in time.
        """
        tool = self.servers[0].java("org.apache.kafka.tools.TopicCommand", "--describe", "--topic", topic, "--bootstrap-server")
        shown = subprocess.run(
            [*tool, self.settings.kafka_bootstrap_servers], check=True, capture_output=True, text=True, timeout=TOGETHER_SECONDS
        )
        return {int(found[2]): Eligible(_numbers(found[3]), _numbers(found[4])) for found in _DESCRIBED.finditer(shown.stdout)}


def own_loopback() -> str:
    """A loopback address that nothing else uses: another program that looks for a port while a broker is dead must not get the broker's,
    or our clients would talk to it."""
    return "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))  # noqa: S311 - an address, no secret


def name_of(number: int) -> str:
    """The program of a broker."""
    return f"kafka-{number}"


def brokers(settings: Settings) -> frozenset[int]:
    """Numbers of the brokers that the cluster takes for alive; none when it does not answer."""
    try:
        with _admin(settings) as admin:
            return frozenset(admin.list_topics(timeout=ANSWER_SECONDS).brokers)
    except KafkaException:
        return frozenset()


def replicas(settings: Settings, topic: str) -> dict[int, Replicas]:
    """By partition, as the cluster believes; empty when it does not answer."""
    try:
        with _admin(settings) as admin:
            found = admin.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic]
    except KafkaException:
        return {}
    return {
        number: Replicas(partition.leader, frozenset(partition.replicas), frozenset(partition.isrs))
        for number, partition in found.partitions.items()
    }


def _admin(settings: Settings) -> AdminClient:
    return AdminClient({**settings.kafka_config(), "log_level": 0})


def _numbers(text: str) -> frozenset[int]:
    return frozenset(int(number) for number in text.split(",") if number)
