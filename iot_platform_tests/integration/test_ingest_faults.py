"""The daemon when its servers stop, hang or refuse, on a Mosquitto and a Kafka that these tests own."""

import subprocess
import time
from pathlib import Path

from iot_platform.local.ports import free_ports
from iot_platform_tests.support.servers.ingest import Daemon, await_records, publish
from iot_platform_tests.support.servers.own_servers import Broker, OwnKafka
from iot_platform_tests.support.waiting import eventually


def numbered(count: int, start: int = 0) -> list[tuple[str, bytes]]:
    return [(f"f/{number % 3}", b"%d" % number) for number in range(start, start + count)]


def values(kafka: OwnKafka, daemon: Daemon, count: int) -> list[bytes]:
    """The topic's values, once there are so many."""
    return [record.value for record in await_records(kafka.bootstrap_servers, daemon.environment["IOT_KAFKA_TOPIC"], count)]


def test_a_hanging_kafka_holds_the_window_and_the_mqtt_connection_stays(
    own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon
) -> None:
    own_daemon.environment["IOT_INGEST_SPOOL_AFTER_SECONDS"] = "3600"
    own_daemon.start()
    publish(own_broker.url, numbered(10))
    eventually(lambda: own_daemon.metric("messages_delivered_total") == 10)
    own_kafka.pause()
    publish(own_broker.url, numbered(500, 10))
    publish(own_broker.url, [("f/qos0", b"%d" % number) for number in range(50)], qos=0)  # not subject to the window
    eventually(lambda: own_daemon.metric("messages_in_flight") == 100)
    until = time.monotonic() + 9  # a keepalive and a half, and more: a loop that doesn't serve MQTT would be thrown out
    while time.monotonic() < until:
        assert own_daemon.metric("messages_in_flight") == 100
        assert own_daemon.probe("healthz")[0] == 200
        time.sleep(0.5)
    assert own_daemon.probe("readyz")[0] == 503
    assert "IOT_KAFKA_BOOTSTRAP_SERVERS" in own_daemon.probe("readyz")[1]
    assert own_daemon.metric("messages_delivered_total") == 10
    own_kafka.resume()
    found = values(own_kafka, own_daemon, 560)
    assert sorted(found) == sorted([b"%d" % number for number in range(510)] + [b"%d" % number for number in range(50)])
    assert own_daemon.metric("mqtt_connections_total") == 1
    eventually(lambda: own_daemon.probe("readyz")[0] == 200)
    assert own_daemon.stop() == 0


def test_leaving_while_kafka_hangs_spools_what_is_in_flight(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    own_daemon.environment["IOT_INGEST_SHUTDOWN_SECONDS"] = "1"
    own_daemon.environment["IOT_INGEST_SPOOL_AFTER_SECONDS"] = "3600"
    own_daemon.start()
    own_kafka.pause()
    publish(own_broker.url, numbered(50))
    eventually(lambda: own_daemon.metric("messages_in_flight") == 50)
    begun = time.monotonic()
    assert own_daemon.stop() == 0
    assert time.monotonic() - begun < 8
    assert own_daemon.events()[-1]["spooled"] == 50
    own_kafka.resume()
    own_daemon.start()
    assert sorted(values(own_kafka, own_daemon, 50)) == sorted(value for _, value in numbered(50))
    assert own_daemon.metric("messages_redelivered_total") == 0


def test_leaving_at_once_leaves_what_is_in_flight_to_redelivery(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    own_daemon.environment["IOT_INGEST_SHUTDOWN_SECONDS"] = "100"
    own_daemon.environment["IOT_INGEST_SPOOL_AFTER_SECONDS"] = "3600"
    own_daemon.start()
    own_kafka.pause()
    publish(own_broker.url, numbered(50))
    eventually(lambda: own_daemon.metric("messages_in_flight") == 50)
    assert own_daemon.stop(signals=2) == 4
    own_kafka.resume()
    own_daemon.start()
    assert set(values(own_kafka, own_daemon, 50)) == {value for _, value in numbered(50)}
    assert own_daemon.metric("messages_redelivered_total") == 50


def test_a_restarted_broker_is_found_again_with_its_messages(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    own_daemon.start()
    publish(own_broker.url, numbered(10))
    values(own_kafka, own_daemon, 10)
    own_broker.stop()
    eventually(lambda: "IOT_MQTT_URL" in own_daemon.log.read_text() and own_daemon.probe("readyz")[0] == 503)
    own_broker.start()
    publish(own_broker.url, numbered(10, 10))
    assert set(values(own_kafka, own_daemon, 20)) == {value for _, value in numbered(20)}
    assert own_daemon.metric("mqtt_sessions_lost_total") == 0
    assert own_daemon.probe("readyz")[0] == 200


def test_kafka_hanging_across_reconnections_keeps_the_window(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    """Messages of dead connections count against the window: a flapping broker can't pile up redeliveries in memory."""
    own_daemon.environment["IOT_INGEST_SPOOL_AFTER_SECONDS"] = "3600"
    own_daemon.start()
    own_kafka.pause()
    publish(own_broker.url, numbered(300))
    eventually(lambda: own_daemon.metric("messages_in_flight") == 100)
    for connections in (2, 3):
        own_broker.stop()
        own_broker.start()
        eventually(lambda expected=connections: own_daemon.metric("mqtt_connections_total") == expected)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert own_daemon.metric("messages_in_flight") == 100
        time.sleep(0.2)
    own_kafka.resume()
    assert set(values(own_kafka, own_daemon, 300)) == {value for _, value in numbered(300)}
    eventually(lambda: own_daemon.metric("messages_in_flight") == 0)
    assert own_daemon.stop() == 0


def test_a_lost_session_is_told(own_broker: Broker, own_daemon: Daemon) -> None:
    own_daemon.start()
    own_broker.stop()
    for file in (own_broker.config.parent / "mosquitto").iterdir():
        file.unlink()
    own_broker.start()
    eventually(lambda: own_daemon.metric("mqtt_sessions_lost_total") == 1)


def test_qos_0_is_refused(own_daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "qos0").mkdir()
    port = free_ports(1)[0]
    broker = Broker(tmp_path / "qos0", port, f"listener {port} 127.0.0.1", "max_qos 0", "allow_anonymous true")
    try:
        broker.start()
        own_daemon.environment["IOT_MQTT_URL"] = broker.url
        own_daemon.start(ready=False)
        assert own_daemon.process is not None
        assert own_daemon.process.wait(20) == 3
        assert "IOT_MQTT_URL" in own_daemon.log.read_text()
    finally:
        broker.stop()


def test_tls_and_password(own_kafka: OwnKafka, own_daemon: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(folder / "passwords"), "us er", "p@ss/w"], check=True, capture_output=True)
    plain, tls = free_ports(2)
    broker = Broker(
        folder, plain, "per_listener_settings true", f"listener {plain} 127.0.0.1", "allow_anonymous true", f"listener {tls} 127.0.0.1",
        f"cafile {folder}/cert.pem", f"certfile {folder}/cert.pem", f"keyfile {folder}/key.pem", "allow_anonymous false",
        f"password_file {folder}/passwords",
    )  # fmt: skip
    try:
        broker.start()
        own_daemon.environment["IOT_MQTT_URL"] = f"mqtts://localhost:{tls}"
        own_daemon.start(ready=False)
        eventually(lambda: "the broker's certificate is not accepted" in own_daemon.probe("readyz")[1])
        own_daemon.kill()
        own_daemon.environment["IOT_MQTT_TLS_CA_FILE"] = str(folder / "cert.pem")
        own_daemon.start(ready=False)
        eventually(lambda: "refuses the connection" in own_daemon.probe("readyz")[1])
        own_daemon.kill()
        own_daemon.environment["IOT_MQTT_URL"] = f"mqtts://us%20er:p%40ss%2Fw@localhost:{tls}"
        own_daemon.start()
        messages = [(f"f/{number}", b"x" * number * 40) for number in range(2000)]
        publish(broker.url, messages)
        assert len(values(own_kafka, own_daemon, 2000)) == 2000
        assert own_daemon.stop() == 0
        assert "p@ss" not in own_daemon.log.read_text()
    finally:
        broker.stop()
