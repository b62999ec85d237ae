"""Kafka and PostgreSQL alone at a power cut, with the settings that the promise needs and without: what is left of what they confirmed."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from iot_platform.drills.rig.power_disk import PowerDisk, obstacle, power_disk
from iot_platform.local import leftovers
from iot_platform.local.errors import NotReadyError
from iot_platform.local.install import install_packages
from iot_platform.local.kafka import KafkaServer
from iot_platform.local.passwords import Passwords
from iot_platform.local.ports import free_ports
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.local.server import Server
from iot_platform.settings import Settings
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.fault, pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "can mount"), pytest.mark.timeout(600)]
CUTS = 3
RECORDS = 400
SURVIVE_PERCENT = 40


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerDisk]:
    """The stack's data folder. With a journal for names: Kafka relies on it (it syncs no folder that it makes a folder in)."""
    for folder in ("run", "logs"):
        (tmp_path / "stack" / folder).mkdir(parents=True)
    with power_disk(tmp_path / "stack" / "data", tmp_path / "work", sync_microseconds=500) as mounted:
        yield mounted


@contextmanager
def running(server: Server, stack: Path) -> Iterator[None]:
    """Start it and wait until it serves; at the end every process of it is killed, at once."""
    program = server.program()
    with (stack / "logs" / server.name).open("ab") as out:
        process = subprocess.Popen(program.command, cwd=program.directory, env=dict(program.environment), stdout=out, stderr=out)
    try:
        eventually(lambda: serves(server, process), 180, "the server serves")
        yield
    finally:
        while pids := leftovers.find(stack):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait()


def serves(server: Server, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "the server ended by itself"
    try:
        server.check()
    except NotReadyError:
        return False
    return True


def prepared(server: Server, stack: Path) -> None:
    if packages := server.missing_packages():
        install_packages(packages, stack / "logs" / "install.log", print)
    server.prepare(print)


# -- Kafka -----------------------------------------------------------------------------------------------------
def set_flush(settings: Settings, value: str | None) -> None:
    operation = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
    entries = [ConfigEntry("flush.messages", value or "", incremental_operation=operation)]
    entries.append(ConfigEntry("segment.bytes", str(1 << 20), incremental_operation=AlterConfigOpType.SET))  # so that segments end, too
    resource = ConfigResource(ResourceType.TOPIC, settings.kafka_topic, incremental_configs=entries)
    with AdminClient(settings.kafka_config()) as admin:
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(60)


def produce(settings: Settings, first: int) -> list[int]:
    """Numbers that Kafka has confirmed, in order."""
    confirmed: list[int] = []

    def settled(error: object, message: Message) -> None:
        if error is None:
            confirmed.append(int((message.value() or b"")[:10]))

    producer = Producer({**settings.kafka_config(), "enable.idempotence": True, "linger.ms": 1})
    for number in range(first, first + RECORDS):
        producer.produce(settings.kafka_topic, b"%010d" % number + bytes(5000), partition=0, on_delivery=settled)
        producer.poll(0.001)
    assert producer.flush(60) == 0
    return confirmed


def consume(settings: Settings) -> list[int]:
    with closing(Consumer({**settings.kafka_config(), "group.id": "check", "enable.auto.commit": False})) as consumer:
        low, high = consumer.get_watermark_offsets(TopicPartition(settings.kafka_topic, 0), timeout=60)
        consumer.assign([TopicPartition(settings.kafka_topic, 0, low)])
        found: list[int] = []
        while len(found) < high - low:
            message = eventually(lambda: consumer.poll(1), 60)
            assert message.error() is None
            found.append(int((message.value() or b"")[:10]))
        return found


@pytest.mark.parametrize("flush", ["1", None])
def test_kafka_keeps_what_it_confirmed_if_it_flushes_each_message(disk: PowerDisk, tmp_path: Path, flush: str | None) -> None:
    stack = tmp_path / "stack"
    settings = Settings(kafka_partitions=1)
    server = KafkaServer(stack, settings.cache_dir, free_ports(1)[0], settings)
    prepared(server, stack)
    confirmed: list[int] = []
    lost = 0
    for number in range(CUTS):
        with ExitStack() as alive:
            alive.enter_context(running(server, stack))
            if number == 0:
                server.provision(print)
                set_flush(server.local_settings, flush)
            if number:
                found = consume(server.local_settings)
                assert found == [each for each in confirmed if each in set(found)], "order, or something nobody wrote"
                lost += len(confirmed) - len(found)
                confirmed = found
            confirmed += produce(server.local_settings, number * RECORDS)
            disk.cut()
        disk.back(number, SURVIVE_PERCENT)
    print(f"{lost} of {(CUTS - 1) * RECORDS} lost with flush.messages {flush or 'unset'}")
    assert lost == 0 if flush else lost > 0


# -- PostgreSQL ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("synchronous_commit", ["on", "off"])
def test_postgresql_keeps_what_it_committed_if_it_commits_synchronously(disk: PowerDisk, tmp_path: Path, synchronous_commit: str) -> None:
    stack = tmp_path / "stack"
    server = PostgresqlServer(stack, Settings().cache_dir, free_ports(1)[0], Passwords.load(tmp_path / "passwords.json"))
    prepared(server, stack)
    committed = lost = 0
    for number in range(CUTS):
        with ExitStack() as alive:
            alive.enter_context(running(server, stack))
            with closing(psycopg2.connect(server.url("postgres", "postgres"))) as connection, connection.cursor() as cursor:
                cursor.execute("CREATE TABLE IF NOT EXISTS pair (number int PRIMARY KEY, filler text)")
                cursor.execute("CREATE TABLE IF NOT EXISTS following (number int)")
                cursor.execute("SELECT coalesce(max(number), 0), count(*), (SELECT max(number) FROM following) FROM pair")
                last, count, following = cursor.fetchone() or (0, 0, None)
                assert (count, following or 0) == (last, last)  # rows and offset moved together
                lost += committed - last
                cursor.execute(f"SET synchronous_commit = {synchronous_commit}")
                connection.commit()
                for committed in range(last + 1, last + RECORDS + 1):
                    cursor.execute("INSERT INTO pair VALUES (%s, repeat('x', 1000))", (committed,))
                    cursor.execute("DELETE FROM following")
                    cursor.execute("INSERT INTO following VALUES (%s)", (committed,))
                    connection.commit()
                disk.cut()
        disk.back(number, SURVIVE_PERCENT)
    print(f"{lost} of {(CUTS - 1) * RECORDS} lost with synchronous_commit {synchronous_commit}")
    assert lost == 0 if synchronous_commit == "on" else lost > 0
