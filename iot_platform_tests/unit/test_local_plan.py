"""Which servers run locally follows from what the user set, and notes of the local stack never mix with the user's own servers."""

import os
from pathlib import Path

import pytest

from ingest_daemon.home import stack_notes_file
from iot_platform.local.passwords import ROLES, Passwords
from iot_platform.local.plan import make_plan, write_notes
from iot_platform.settings import Settings, exports, get_settings, user_settings


@pytest.fixture(autouse=True)
def _own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IOT_LOCAL_DIR", str(tmp_path / "local"))
    monkeypatch.setattr("ingest_daemon.home.PACKAGES", tmp_path)  # no .env of the developer
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()


def _user(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return user_settings()


def test_everything_is_local_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(_user(monkeypatch, IOT_MQTT_PORT="2883"))
    assert [server.name for server in plan.servers] == ["mosquitto", "kafka", "postgresql"]
    assert plan.settings.mqtt_url.get_secret_value() == "mqtt://127.0.0.1:2883"
    assert plan.settings.admin_url.startswith("postgresql://iot_migrator:")


def test_named_servers_do_not_start_here(monkeypatch: pytest.MonkeyPatch) -> None:
    user = _user(
        monkeypatch,
        IOT_MQTT_URL="mqtts://broker.invalid",
        IOT_KAFKA_BOOTSTRAP_SERVERS="kafka.invalid:9092",
        IOT_DATABASE_URL="postgresql://me:secret@db.invalid/iot",
        IOT_DAGSTER_URL="http://dagster.invalid",
    )
    plan = make_plan(user)
    assert plan.servers == []
    assert not plan.local_dagster
    assert plan.settings.admin_url == "postgresql://me:secret@db.invalid/iot"
    assert [name for name, *_ in plan.ports] == ["ingest", "metrics"]


def test_backups_of_the_local_server_are_found_by_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "backup_config" not in make_plan(user_settings()).notes
    write_notes(make_plan(_user(monkeypatch, IOT_BACKUP_REPOSITORY="/backup")), stack_notes_file())
    settings = get_settings()
    assert settings.backup_exec.startswith(str(tmp_path / "local" / "run" / "database-exec"))
    assert settings.backup_config.endswith("pgbackrest/pgbackrest.conf")
    get_settings.cache_clear()
    monkeypatch.setenv("IOT_DATABASE_URL", "postgresql://me:secret@db.invalid/iot")
    assert (get_settings().backup_exec, get_settings().backup_config) == ("", ""), "of another database"


def test_env_file_counts_like_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("IOT_MQTT_URL=mqtt://broker.invalid\n")
    plan = make_plan(user_settings())
    assert [server.name for server in plan.servers] == ["kafka", "postgresql"]


def test_exported_notes_are_not_the_users_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """After eval "$(iot env --secrets)", `iot up` still runs its own servers."""
    plan = make_plan(user_settings())
    write_notes(plan, stack_notes_file())
    again = make_plan(_user(monkeypatch, **exports(plan.settings)))
    assert len(again.servers) == 3


def test_users_database_hides_all_roles_of_the_local_one(monkeypatch: pytest.MonkeyPatch) -> None:
    write_notes(make_plan(user_settings()), stack_notes_file())
    assert get_settings().admin_url.startswith("postgresql://iot_migrator:")
    get_settings.cache_clear()
    monkeypatch.setenv("IOT_DATABASE_URL", "postgresql://me:secret@db.invalid/iot")
    settings = get_settings()
    assert settings.admin_url == settings.writer_url == "postgresql://me:secret@db.invalid/iot"
    assert settings.database_reader_url is None
    assert settings.mqtt_url.get_secret_value() == "mqtt://127.0.0.1:1883"


def test_notes_are_private() -> None:
    write_notes(make_plan(user_settings()), stack_notes_file())
    assert stack_notes_file().stat().st_mode & 0o777 == 0o600
    assert (user_settings().local_dir / "data" / "passwords.json").stat().st_mode & 0o777 == 0o600


def test_dagster_storage_url_names_the_driver_and_the_schema() -> None:
    settings = Settings(database_url="postgresql://w:p@h:1/iot?sslmode=require")  # type: ignore[arg-type]
    assert settings.dagster_database_url == "postgresql+psycopg2://w:p@h:1/iot?sslmode=require&options=-csearch_path%3Ddagster"
    own = Settings(dagster_storage_url="postgresql://d:p@h:1/dagster")  # type: ignore[arg-type]
    assert own.dagster_database_url == "postgresql+psycopg2://d:p@h:1/dagster"


def test_exports_read_back_as_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Settings(device_pointers=("/a", "/b"), kafka_topic="t", drain_lanes=3)
    for name, value in exports(before).items():
        monkeypatch.setenv(name, value)
    assert Settings().model_dump() == before.model_dump()
    assert "IOT_KAFKA_SASL_PASSWORD" not in os.environ


def test_the_local_broker_is_looked_at_unless_the_user_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    write_notes(make_plan(_user(monkeypatch, IOT_MQTT_PORT="2883")), stack_notes_file())
    shown = get_settings().metrics_mqtt_url
    assert shown is not None
    assert shown.get_secret_value() == "mqtt://127.0.0.1:2883"
    get_settings.cache_clear()
    monkeypatch.setenv("IOT_MQTT_URL", "mqtts://broker.invalid")
    assert get_settings().metrics_mqtt_url is None, "figures of another broker than the platform's"


def test_passwords_of_an_earlier_version_get_those_that_they_lack(tmp_path: Path) -> None:
    file = tmp_path / "passwords.json"
    file.write_text('{"postgres": "old", "iot_writer": "kept"}', "utf-8")
    first = Passwords.load(file)
    assert (first.of("postgres"), first.of("iot_writer")) == ("old", "kept")
    assert {first.of(role) for role in ROLES} == {Passwords.load(file).of(role) for role in ROLES}
    assert file.stat().st_mode & 0o777 == 0o600
