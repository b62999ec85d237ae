"""What `iot metrics` shows of Mosquitto's $SYS topics: from 0 on, through a restart of the broker, and said once where there are none."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from structlog.testing import capture_logs

from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.metrics import broker_look
from iot_platform.metrics.broker_look import TOPICS, BrokerLook, BrokerUnavailableError
from iot_platform.metrics.look import Look, take
from iot_platform.metrics.values import Values
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.own_servers import Broker
from iot_platform_tests.support.waiting import eventually

QUEUE = 3


@contextmanager
def mosquitto(folder: Path, *lines: str) -> Iterator[Broker]:
    port = free_ports(1)[0]
    broker = Broker(folder, port, f"listener {port} {LOOPBACK}", *(lines or ("allow_anonymous true", "sys_interval 1")))
    text = broker.config.read_text("utf-8")
    broker.config.write_text(text.replace("max_queued_messages 100000", f"max_queued_messages {QUEUE}"), "utf-8")
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def looking(broker: Broker, clock: list[float] | None = None) -> Iterator[BrokerLook]:
    settings = Settings(metrics_mqtt_url=broker.url)  # type: ignore[arg-type]
    look = BrokerLook(settings, clock=lambda: clock[0]) if clock else BrokerLook(settings)
    try:
        yield look
    finally:
        look.close()


def leave_session(broker: Broker, messages: int) -> None:
    """A subscriber with a session that is away, and messages published for it."""
    for name, clean in (("absent", False), ("publisher", True)):
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=clean, protocol=mqtt.MQTTv311)
        client.connect(LOOPBACK, broker.port)
        client.loop_start()
        eventually(client.is_connected, 20)
        if name == "absent":
            subscribed = threading.Event()
            client.on_subscribe = lambda *_, done=subscribed: done.set()
            client.subscribe("t", qos=1)
            assert subscribed.wait(20)
        else:
            for _ in range(messages):
                client.publish("t", b"x", qos=1).wait_for_publish(20)
        client.disconnect()
        client.loop_stop()


def test_what_the_broker_drops_is_counted_from_0_and_stays_while_it_is_down(tmp_path: Path) -> None:
    values = Values()

    def dropped() -> float | None:
        take(values, "mqtt", Look("mqtt", lambda: look.look(values), 15))
        return values.get("iot_broker_dropped_messages").get(())

    with mosquitto(tmp_path) as broker, looking(broker) as look:
        eventually(lambda: dropped() is not None, 30, "the broker's figures", pause=0.1)
        assert dropped() == 0, "a counter that begins with 1 raises no alert"
        assert {len(values.get(name)) for name in TOPICS.values()} == {1}
        leave_session(broker, 10)
        eventually(lambda: dropped() == 10 - QUEUE, 30, lambda: values.get("iot_broker_dropped_messages"), pause=0.1)
        assert values.get("iot_broker_disconnected_clients")[()] == 1
        assert values.get("iot_server_up")["mqtt",] == 1
        broker.stop()
        eventually(lambda: dropped() is not None and values.get("iot_server_up")["mqtt",] == 0, 30, "the broker is missed", pause=0.1)
        seen = values.get("iot_look_timestamp_seconds")["mqtt",]
        assert dropped() == 10 - QUEUE
        assert values.get("iot_look_timestamp_seconds")["mqtt",] == seen
        broker.start()
        eventually(lambda: dropped() == 0 and values.get("iot_server_up")["mqtt",] == 1, 60, "the broker again", pause=0.1)


def test_a_broker_without_these_topics_is_told_once(tmp_path: Path) -> None:
    values, clock = Values(), [1.0]
    with mosquitto(tmp_path, "allow_anonymous true", "sys_interval 0") as broker, looking(broker, clock) as look, capture_logs() as lines:
        look.look(values)
        clock[0] += broker_look.QUIET_SECONDS + 1
        for _ in range(3):
            look.look(values)
    assert [line["event"] for line in lines] == ["the MQTT broker publishes no $SYS topics for us, so it has no metrics"]
    assert values.get("iot_broker_dropped_messages") == {}


def test_a_broker_that_refuses_the_user_is_told_with_the_setting(tmp_path: Path) -> None:
    def cause() -> str:
        with pytest.raises(BrokerUnavailableError) as raised:
            look.look(Values())
        return str(raised.value)

    with mosquitto(tmp_path) as broker, looking(broker) as look:
        broker.stop()
        broker.config.write_text(broker.config.read_text("utf-8").replace("allow_anonymous true", "allow_anonymous false"), "utf-8")
        assert cause().endswith("no connection (IOT_METRICS_MQTT_URL)")
        broker._listens = lambda: True  # type: ignore[method-assign]  # it lets nobody in
        broker.start()
        eventually(lambda: "refuses the connection: " in cause(), 30, cause)
