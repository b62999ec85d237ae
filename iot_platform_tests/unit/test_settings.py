"""A setting that breaks its rule is refused at the start, by a sentence that names the variable."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from ingest_daemon import settings as ingest_settings
from ingest_daemon.errors import SettingsError as IngestSettingsError
from ingest_daemon.variables import known
from iot_platform.settings import Settings, SettingsError, user_settings

LOADERS = pytest.mark.parametrize("load", [user_settings, ingest_settings.load], ids=["platform", "daemon"])


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
        ("IOT_BACKUP_REPOSITORY", "backups"),
        ("IOT_BACKUP_REPOSITORY", "s3://"),
        ("IOT_BACKUP_KEEP_DAYS", "0"),
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


@LOADERS
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_every_file_and_folder_may_begin_with_the_home_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: Callable[[], BaseSettings], place: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fields = [name for name, field in type(load()).model_fields.items() if "Path" in str(field.annotation)]
    lines = {f"IOT_{name.upper()}": f"~/{name}" for name in fields if not name.startswith("mqtt_")}
    for value in lines.values():
        (tmp_path / value[2:]).mkdir() if value.endswith("_dir") else (tmp_path / value[2:]).touch()
    if place == ".env":
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    for name, value in lines.items() if place == "environment" else ():
        monkeypatch.setenv(name, value)
    loaded = load()
    assert len(lines) > 4
    assert {getattr(loaded, name[4:].lower()) for name in lines} == {tmp_path / value[2:] for value in lines.values()}


def test_several_brokers_and_ipv6() -> None:
    assert Settings(kafka_bootstrap_servers="kafka-1:9092, [::1]:9092,kafka-3").kafka_bootstrap_servers


@LOADERS
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("IOT_KAFKA_BOOTSTRAP_SERVER", "IOT_KAFKA_BOOTSTRAP_SERVERS"),
        ("iot_kafka_topik", "IOT_KAFKA_TOPIC"),
        ("IOT_INJEST_SPOOL_BYTES", "IOT_INGEST_SPOOL_BYTES"),
        ("IOT_DRAIN_SHARD", "IOT_DRAIN_SHARDS"),
        ("IOT_GRAFANA_LOGIN_FIL", "IOT_GRAFANA_LOGIN_FILE"),
    ],
)
def test_a_misspelt_name_is_refused_and_the_nearest_named(
    monkeypatch: pytest.MonkeyPatch, load: Callable[[], object], name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "hush")
    with pytest.raises((SettingsError, IngestSettingsError)) as caught:
        load()
    assert str(caught.value) == f"{name} is not a setting; did you mean {meant}?"


@LOADERS
def test_a_misspelt_name_in_an_env_file_is_refused_with_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: Callable[[], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("SOMETHING=else\nIOT_MQTT_ULR=mqtt://broker\nIOT_XYZZY=1\n")
    with pytest.raises((SettingsError, IngestSettingsError)) as caught:
        load()
    first, second = str(caught.value).splitlines()
    assert first == f"IOT_MQTT_ULR in {tmp_path / '.env'} is not a setting; did you mean IOT_MQTT_URL?"
    assert second.startswith(f"IOT_XYZZY in {tmp_path / '.env'} is not a setting; ")
    assert second.endswith("env.example lists all of them")


@LOADERS
def test_a_mounted_secret_is_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: Callable[[], Settings]) -> None:
    """A password with $, a line's end, somebody else's secret beside it; the environment is stronger."""
    (tmp_path / "iot_mqtt_url").write_text("mqtt://iot:pa$$word@broker:1884\n")
    (tmp_path / "iot_kafka_topic").write_text("from-a-file\n")
    (tmp_path / "kafka_admin_password").write_text("of another program\n")
    monkeypatch.setenv("IOT_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("IOT_LOCAL_DIR", str(tmp_path / "local"))  # what a local stack of this checkout noted is stronger, too
    monkeypatch.setenv("IOT_KAFKA_TOPIC", "from-the-environment")
    loaded = load()
    assert loaded.mqtt_url.get_secret_value() == "mqtt://iot:pa$$word@broker:1884"
    assert loaded.kafka_topic == "from-the-environment"


@LOADERS
def test_a_secret_of_a_misspelt_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: Callable[[], object]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / ".env").write_text(f"IOT_SECRETS_DIR={tmp_path}/secrets\n")
    (tmp_path / "secrets" / "iot_database_ulr").write_text("postgresql://db/iot")
    with pytest.raises((SettingsError, IngestSettingsError)) as caught:
        load()
    assert str(caught.value) == f"iot_database_ulr in {tmp_path}/secrets is not a setting; did you mean IOT_DATABASE_URL?"


@LOADERS
def test_secrets_that_are_not_there_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, load: Callable[[], object]) -> None:
    monkeypatch.setenv("IOT_SECRETS_DIR", str(tmp_path / "absent"))
    with pytest.raises((SettingsError, IngestSettingsError), match=r"^IOT_SECRETS_DIR: .*absent is no folder$"):
        load()


@LOADERS
def test_names_that_others_set_stop_nobody(monkeypatch: pytest.MonkeyPatch, load: Callable[[], object]) -> None:
    """The other process's settings, tests, Grafana's files, and what Kubernetes adds for services iot-mqtt and iot-ingest-http."""
    for name in known():
        monkeypatch.setenv(name, "")
    for name in ("IOT_TEST_EXAMPLES", "IOT_DRILL_SEED", "IOT_GRAFANA_DATABASE_HOST", "IOT_LOCAL_STACK", "IOT_FAKE_CLOCK"):
        monkeypatch.setenv(name, "1")
    for service, port in (("IOT_MQTT", 1883), ("IOT_INGEST_HTTP", 9200), ("IOT_SOMETHING_ELSE", 80)):
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.7")
        monkeypatch.setenv(f"{service}_SERVICE_PORT", str(port))
        monkeypatch.setenv(f"{service}_SERVICE_PORT_WEB", str(port))
        monkeypatch.setenv(f"{service}_PORT", f"tcp://10.0.0.7:{port}")
        monkeypatch.setenv(f"{service}_PORT_{port}_TCP", f"tcp://10.0.0.7:{port}")
        for what in ("ADDR", "PORT", "PROTO"):
            monkeypatch.setenv(f"{service}_PORT_{port}_TCP_{what}", "1")
    loaded = load()
    assert getattr(loaded, "ingest_http_port") == 9108  # noqa: B009  of either class
    assert getattr(loaded, "mqtt_port", 1883) == 1883
