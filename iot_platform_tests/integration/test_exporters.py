"""Others' exporters as `MONITORING=1 make up` runs them, on real servers: what docs/metrics.md and the alerts name is on their pages, no
series twice and not many; the exporter's role in the database sees the server's figures and nothing of the platform."""

import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
from confluent_kafka import Consumer, Producer
from prometheus_client.parser import text_string_to_metric_families

from iot_platform.local import exporters, jmx_exporter, probes
from iot_platform.local.errors import NotReadyError
from iot_platform.local.install import which
from iot_platform.local.kafka import KafkaServer
from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.local.program import Program
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.own_servers import OwnKafka, kafka_on_free_ports
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually
from scripts import exporters_table

MOST_SERIES = 600
"""PostgreSQL's grow with the databases of the server, of which the tests have several; nothing grows with what is in them."""


def installed(name: str) -> None:
    if which(name) is None:
        pytest.skip(f"no {name} here: .ci/run installs it")


def answers(url: str) -> bool:
    try:
        probes.http(url)
    except NotReadyError:
        return False
    return True


@contextmanager
def running(program: Program, port: int) -> Iterator[None]:
    with (program.directory / f"{program.name}.log").open("wb") as log:
        process = subprocess.Popen(program.command, env=dict(program.environment), stdout=log, stderr=log)
        try:
            eventually(lambda: process.poll() is not None or answers(f"http://{LOOPBACK}:{port}/"), 30)
            assert process.poll() is None, (program.directory / f"{program.name}.log").read_text("utf-8")
            yield
        finally:
            process.terminate()
            process.wait(20)


def page(port: int) -> dict[str, float]:
    """Samples by name, summed up; without `_total`, which the parser adds to counters that lack it."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4"), "Prometheus 3 refuses a page without"
        samples = [sample for family in text_string_to_metric_families(answer.read().decode()) for sample in family.samples]
    series = Counter((sample.name, *sorted(sample.labels.items())) for sample in samples)
    assert [name for name, count in series.items() if count > 1] == []
    assert len(series) < MOST_SERIES
    found: dict[str, float] = {}
    for sample in samples:
        name = sample.name.removesuffix("_total")
        found[name] = found.get(name, 0.0) + sample.value
    return found


def named(job: str) -> set[str]:
    return {row.name.removesuffix("_total") for row in exporters_table.rows() if row.job == job}


def test_the_hosts_page(tmp_path: Path) -> None:
    installed(exporters.NODE)
    port = free_ports(1)[0]
    with running(exporters.node_exporter(tmp_path, port), port):
        # Some machines have no pressure figures, some containers no disk of their own.
        missing = {
            name for name in named("node") - set(page(port)) if not name.startswith(("node_pressure_", "node_filesystem_", "node_disk_"))
        }
    assert missing == set()


def test_postgresqls_page_by_a_role_that_sees_nothing_of_the_platform(servers: Servers, settings: Settings, tmp_path: Path) -> None:
    database = settings.writer_url.rsplit("/", 1)[-1]
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        psycopg2.connect(servers.postgresql.url("iot_monitor", database))
    installed(exporters.POSTGRES)
    port = free_ports(1)[0]
    program = exporters.postgres_exporter(tmp_path, port, servers.postgresql.url("iot_monitor", "postgres"))
    later = {"pg_wal_size_bytes"} if "--disable-default-metrics" not in program.command else set()
    with running(program, port):
        found = page(port)
        assert found["pg_up"] == 1
        assert named("postgres") - later <= set(found)
        assert found.get("pg_scrape_collector_success", 0) == sum("--collector." in part for part in program.command) or later


def test_kafkas_page(tmp_path: Path) -> None:
    settings, port = Settings(), free_ports(1)[0]
    missing = KafkaServer(tmp_path, settings.cache_dir, 9092, settings).missing_packages()
    if missing or (which("mvn") is None and not list(settings.cache_dir.glob("jmx-exporter-*"))):
        pytest.skip("no Kafka here yet, or no Maven")
    option = jmx_exporter.agent(jmx_exporter.fetch(settings.cache_dir, tmp_path, lambda _: None), port)

    def make() -> KafkaServer:
        return KafkaServer(tmp_path, settings.cache_dir, free_ports(1)[0], settings, java_options=(option,))

    with contextmanager(kafka_on_free_ports)(make, OwnKafka) as kafka:
        kafka.create("iot-messages", "unknown")
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        for topic in ("iot-messages", "unknown"):
            producer.produce(topic, b"x")
        assert producer.flush(30) == 0
        consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "g", "auto.offset.reset": "earliest"})
        consumer.subscribe(["iot-messages"])
        eventually(lambda: consumer.poll(1), 60, "the message")
        consumer.close()
        eventually(lambda: named("kafka") <= set(page(port)), 30, lambda: named("kafka") - set(page(port)), pause=0.2)
        found = page(port)
        assert (found["kafka_topic_received_messages"], found["kafka_active_controllers"]) == (1, 1), "not of others' topics"
        assert found["jmx_scrape_error"] == 0
