"""The StatefulSet of ingest daemons is rolled while devices send: each pod is a daemon on this machine. Every message is stored once."""

import os
import sys
from pathlib import Path

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.ingest_pages import IngestPageError, counters, is_ready
from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.settings import Settings, exports
from iot_platform.simulator.comparison import Scope, compare, read
from iot_platform_tests.support.feeds.drain import check_books, drain
from iot_platform_tests.support.feeds.simulation import Simulation, count, stored_messages
from iot_platform_tests.support.kubernetes.api import Object
from iot_platform_tests.support.kubernetes.cluster import Cluster, Start
from iot_platform_tests.support.kubernetes.nodes import Played, environment_of, proportional_mib
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]
LIMIT_MIB = 256
RATE, MESSAGES = 1_000, 60_000
FLEET = ("--tenants=3", "--projects=4", "--devices=25", "--seed=7", f"--count={MESSAGES}", f"--rate={RATE}")
KEPT = ("IOT_INGEST_SHARED_GROUP", "IOT_INGEST_IN_FLIGHT_BYTES", "IOT_INGEST_SPOOL_BYTES", "IOT_INGEST_SHUTDOWN_SECONDS")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Topics of its own."""
    root = f"mtic/{settings.kafka_topic}/client/realtime"
    own = {"mqtt_topic_filter": f"{root}/#", "topic_pattern": root + "/{tenant}/{project}/{device...}"}
    return settings.model_copy(update=own)


def test_a_roll_loses_and_doubles_nothing(
    cluster: Start, settings: Settings, simulation: Simulation, database: Connection, tmp_path: Path
) -> None:
    ports = {f"iot-ingest-{number}": port for number, port in enumerate(free_ports(3))}
    urls = [f"http://{LOOPBACK}:{port}" for port in ports.values()]

    def play(pod: Object) -> Played | None:
        name = pod["metadata"]["name"]
        if name not in ports:
            return None
        own = {key: value for key, value in environment_of(made.api, pod).items() if key in (*KEPT, "IOT_INGEST_CLIENT_ID")}
        here = {"IOT_INGEST_STATE_DIR": str(tmp_path / name), "IOT_INGEST_HTTP_PORT": str(ports[name]), "PATH": os.environ["PATH"]}
        command = [str(Path(sys.executable).with_name("iot-ingest"))]
        return Played(command, exports(settings) | own | here, lambda: is_ready(f"http://{LOOPBACK}:{ports[name]}"))

    made = cluster("rke2")
    made.nodes.play = play
    for pod in made.pods("iot-ingest"):  # those that had begun without a process
        made.api.delete(f"/api/v1/namespaces/iot/pods/{pod['metadata']['name']}")
    eventually(lambda: all(map(is_ready, urls)), 120, "the daemons are not ready", pause=0.5)
    made.await_ready()
    simulation.start(*FLEET)
    eventually(lambda: counters(urls).get("iot_ingest_messages_delivered_total", 0) > RATE, 60, "nothing comes", pause=0.2)
    made.control_plane.kubectl("rollout", "restart", "statefulset/iot-ingest")
    made.control_plane.kubectl("rollout", "status", "statefulset/iot-ingest", "--timeout=300s")
    assert simulation.running, "the devices stopped before the roll had ended: the test proved less than it should"
    taken = {pod["metadata"]["name"]: memory(made, pod) for pod in made.pods("iot-ingest")}
    print(f"memory of each daemon, in MiB: {taken}")
    assert max(taken.values()) < LIMIT_MIB
    published = simulation.finish(300)

    def arrived() -> bool:
        try:
            return counters(urls)["iot_ingest_messages_in_flight"] == counters(urls)["iot_ingest_spool_messages"] == 0
        except IngestPageError:
            return False

    eventually(arrived, 60, lambda: str(counters(urls)), pause=0.5)

    def stored() -> int:
        drain(settings)
        return stored_messages(database)

    eventually(lambda: stored() >= MESSAGES, 300, lambda: f"{stored_messages(database)} of {MESSAGES}", pause=0.5)
    found = read(database, Scope(settings.kafka_topic))
    assert compare(published, found) == []
    assert stored_messages(database) == MESSAGES
    assert count(database, "SELECT count(*) FROM mqtt_connection") >= 2 * len(urls), "not every daemon was replaced"
    check_books(settings)


def memory(cluster: Cluster, pod: Object) -> float:
    """Of the process that plays the pod, in MiB."""
    process = cluster.nodes.process(pod)
    assert process is not None
    return proportional_mib(process.pid)
