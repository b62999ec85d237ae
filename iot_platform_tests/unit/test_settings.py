"""A setting that breaks its rule is refused at the start, by a sentence that names the variable."""

import pytest

from ingest_daemon import settings as ingest_settings
from ingest_daemon.errors import SettingsError as IngestSettingsError
from iot_platform.settings import Settings, SettingsError, user_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IOT_MQTT_URL", "http://broker"),
        ("IOT_MQTT_URL", "mqtt://broker:99999"),
        ("IOT_KAFKA_BOOTSTRAP_SERVERS", "a:9092,,b:9092"),
        ("IOT_KAFKA_BOOTSTRAP_SERVERS", "broker:99999"),
        ("IOT_KAFKA_TOPIC", "two words"),
        ("IOT_KAFKA_PARTITIONS", "zero"),
        ("IOT_DATABASE_URL", "mysql://host/iot"),
        ("IOT_DAGSTER_URL", "127.0.0.1:3000"),
        ("IOT_DEVICE_POINTERS", "deviceId"),
        ("IOT_TOPIC_PATTERN", "a/b"),
        ("IOT_DEFAULT_TIMEZONE", "Mars/Base"),
    ],
)
def test_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        user_settings()
    assert str(caught.value).startswith(name)
    assert "Value error" not in str(caught.value)


def test_daemon_names_the_setting_that_is_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_INGEST_KAFKA_OPTIONS", "{compression")
    with pytest.raises(IngestSettingsError, match=r"^IOT_INGEST_KAFKA_OPTIONS"):
        ingest_settings.load()


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IOT_DATABASE_ADMIN_URL", "IOT_MQTT_TLS_CA_FILE", "IOT_KAFKA_SASL_MECHANISM", "IOT_KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.setenv(name, "")
    assert not user_settings().model_fields_set & {"database_admin_url", "mqtt_tls_ca_file", "kafka_bootstrap_servers"}
    assert ingest_settings.Settings().mqtt_tls_ca_file is None


def test_several_brokers_and_ipv6() -> None:
    assert Settings(kafka_bootstrap_servers="kafka-1:9092, [::1]:9092,kafka-3").kafka_bootstrap_servers
