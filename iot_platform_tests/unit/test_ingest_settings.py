"""Unsafe or contradictory settings are refused, and the message names the variable but never a secret."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ingest_daemon.kafka import producer_config
from ingest_daemon.settings import GUARANTEED_BY_US, Settings, explain
from iot_platform.settings import Settings as PlatformSettings


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    return explain(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IOT_MQTT_URL", "http://broker"),
        ("IOT_MQTT_URL", "mqtt://user:hunter2@broker/?clean_session=true"),
        ("IOT_MQTT_URL", "mqtt://broker:99999"),
        ("IOT_MQTT_PROTOCOL", "3.1"),
        ("IOT_MQTT_TOPIC_FILTER", "a/#/b"),
        ("IOT_MQTT_TOPIC_FILTER", "a/b+"),
        ("IOT_MQTT_TOPIC_FILTER", "$share/group/a/#"),
        ("IOT_INGEST_CLIENT_ID", " x"),
        ("IOT_INGEST_CLIENT_ID", "é" * 513),
        ("IOT_INGEST_SESSION_EXPIRY_SECONDS", "0"),
        ("IOT_INGEST_SESSION_EXPIRY_SECONDS", "3600"),
        ("IOT_INGEST_IN_FLIGHT_WINDOW", "0"),
        ("IOT_INGEST_IN_FLIGHT_WINDOW", "65536"),
        ("IOT_INGEST_SHARED_GROUP", "a/b"),
        ("IOT_INGEST_SPARKPLUG_PARTITIONS", "-1"),
        ("IOT_INGEST_SPARKPLUG_PARTITIONS", "1001"),
        ("IOT_KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("IOT_INGEST_KAFKA_OPTIONS", '{"acks": "1"}'),
        ("IOT_INGEST_KAFKA_OPTIONS", '{"enable.idempotence": false}'),
        ("IOT_INGEST_KAFKA_OPTIONS", '{"message.timeout.ms": 1000}'),
        ("IOT_KAFKA_DEAD_LETTER_TOPIC", "iot-messages"),
        ("IOT_MQTT_TLS_CA_FILE", "/does/not/exist"),
        ("IOT_KAFKA_SSL_CA_FILE", "/does/not/exist"),
    ],
)
def test_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    message = refusal(monkeypatch, **{name: value})
    assert name in message or "IOT_MQTT_TLS_*" in message
    assert "hunter2" not in message


def test_settings_that_belong_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("")
    assert "IOT_MQTT_TLS_KEY_FILE" in refusal(monkeypatch, IOT_MQTT_URL="mqtts://broker", IOT_MQTT_TLS_CERT_FILE=str(pem))
    monkeypatch.delenv("IOT_MQTT_TLS_CERT_FILE")
    assert "IOT_KAFKA_SASL_MECHANISM" in refusal(monkeypatch, IOT_KAFKA_SECURITY_PROTOCOL="SASL_SSL")
    monkeypatch.delenv("IOT_KAFKA_SECURITY_PROTOCOL")
    assert "IOT_INGEST_SHARED_GROUP needs MQTT 5" in refusal(monkeypatch, IOT_MQTT_PROTOCOL="3.1.1", IOT_INGEST_SHARED_GROUP="g")


def test_url_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_MQTT_URL", "mqtts://us%40er:p%2Fw@broker.example")
    monkeypatch.setenv("IOT_INGEST_SHARED_GROUP", "fleet")
    settings = Settings()
    assert settings.mqtt_address == ("broker.example", 8883)
    assert (settings.mqtt_user, settings.mqtt_password()) == ("us@er", "p/w")
    assert [settings.subscription(one) for one in settings.topic_filters()] == ["$share/fleet/mtic/msg/client/realtime/#"]
    assert "p%2Fw" not in repr(settings)


def test_the_guarantee_can_not_be_configured_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_INGEST_KAFKA_OPTIONS", '{"linger.ms": 20, "compression.type": "zstd"}')
    config = producer_config(Settings())
    assert (config["linger.ms"], config["compression.type"]) == (20, "zstd")
    assert (config["acks"], config["enable.idempotence"], config["delivery.timeout.ms"]) == ("all", True, 0)
    assert {"acks", "enable.idempotence", "delivery.timeout.ms", "message.max.bytes", "partitioner"} <= GUARANTEED_BY_US & set(config)


def test_shared_variables_mean_the_same_as_for_the_platform() -> None:
    ours, theirs = Settings(), PlatformSettings()
    for name in type(ours).model_fields:
        if name in type(theirs).model_fields:
            assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.kafka_config() == theirs.kafka_config()


def test_the_password_is_read_from_its_file_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("one\n")
    secured = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "PLAIN", "kafka_sasl_password_file": file}
    for settings in (Settings(**secured), PlatformSettings(**secured)):
        file.write_text("one\n")
        assert settings.kafka_config()["sasl.password"] == "one"
        file.write_text(" two-7e1c \r\n")
        assert settings.kafka_config()["sasl.password"] == " two-7e1c "
        assert "two-7e1c" not in repr(settings)
    for kind in (Settings, PlatformSettings):
        with pytest.raises(ValueError, match="exclude each other"):
            kind(**secured, kafka_sasl_password="three")
