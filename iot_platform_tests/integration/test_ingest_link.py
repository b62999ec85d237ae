"""The daemon's link to the MQTT broker: slow is not dead, and dead is noticed."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from iot_platform.drills.rig.proxy import Proxy
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.ingest import Daemon, await_records, publish
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually

TOPIC = "mtic/msg/client/realtime/1968193631353446400/1968193691042586624/link"


@pytest.fixture
def proxy(servers: Servers) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", urlsplit(servers.mqtt_url).port or 1883) as made:
        yield made


@pytest.fixture
def daemon(settings: Settings, proxy: Proxy, tmp_path: Path) -> Iterator[Daemon]:
    own = {"mqtt_url": f"mqtt://127.0.0.1:{proxy.port}", "mqtt_topic_filter": f"{TOPIC}/#", "ingest_keepalive_seconds": 5}
    made = Daemon.on(settings, tmp_path, **own).start()
    yield made
    made.close()


def lost_connections(daemon: Daemon) -> list[str]:
    return [event["why"] for event in daemon.events() if event["event"] == "mqtt_disconnected"]


def test_a_message_that_takes_longer_than_the_keepalive_arrives(daemon: Daemon, servers: Servers, settings: Settings, proxy: Proxy) -> None:
    """It takes 9 s; a keepalive and a half is 7.5. The answers to our pings wait behind its bytes. Given up for dead, the link would bring
    the same message again, for ever."""
    proxy.slow(bytes_per_second=20_000)
    publish(servers.mqtt_url, [(TOPIC, b"x" * 180_000)])
    await_records(servers.kafka_bootstrap_servers, settings.kafka_topic, 1)
    assert lost_connections(daemon) == []


def test_a_link_that_dies_without_a_word_is_given_up(daemon: Daemon, servers: Servers, settings: Settings, proxy: Proxy) -> None:
    publish(servers.mqtt_url, [(TOPIC, b"1")])
    await_records(servers.kafka_bootstrap_servers, settings.kafka_topic, 1)
    proxy.deaf()
    publish(servers.mqtt_url, [(TOPIC, b"2")])  # the broker sends it into the dead link, and again later
    proxy.heal()
    eventually(lambda: lost_connections(daemon), 30)
    records = await_records(servers.kafka_bootstrap_servers, settings.kafka_topic, 2)
    assert [(record.value, record.dup) for record in records] == [(b"1", False), (b"2", True)]
