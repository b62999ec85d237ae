"""The wheel works without the checkout: settings, migrations, decoding and the drain, from files that the wheel brought."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql
from pydantic import SecretStr

from iot_platform.local.postgresql_roles import create_database
from iot_platform.settings import Settings, exports
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, check_books, query
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.servers.wheel import ROOT, Installation, build, install, tracked

DATABASE = "of_the_wheel"
DRAIN = """
import dagster as dg
from iot_platform.definitions import defs
with dg.DagsterInstance.ephemeral() as instance:
    instance.add_dynamic_partitions("kafka_partition", ["0", "1"])
    tags = {"dagster/asset_partition_range_start": "0", "dagster/asset_partition_range_end": "1"}
    assert defs().get_job_def("drain").execute_in_process(instance=instance, tags=tags).success
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = install(wheel, tmp_path_factory.mktemp("elsewhere"))
    yield made
    assert made.opened == []


@pytest.fixture
def empty(settings: Settings, servers: Servers) -> Iterator[Settings]:
    """A database that nobody has migrated."""
    create_database(servers.superuser_url(), DATABASE)
    roles = {"database_url": "iot_writer", "database_admin_url": "iot_migrator", "database_reader_url": "iot_reader"}
    urls = {name: SecretStr(servers.postgresql.url(role, DATABASE)) for name, role in roles.items()}
    yield settings.model_copy(update=urls)
    connection = psycopg2.connect(servers.superuser_url())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(DATABASE)))
    connection.close()


def test_it_holds_the_code_and_the_files_it_reads_and_nothing_else(wheel: Path) -> None:
    files = [path.relative_to(ROOT).as_posix() for path in tracked() if not path.is_symlink()]
    code = {name for name in files if name.startswith(("iot_platform/", "ingest_daemon/"))}
    code.add("ingest_daemon/env.example")
    beside = {
        f"iot_platform/{name}"
        for name in files
        if name.startswith(("sql/", "deploy/dagster/", "deploy/local/", "deploy/prometheus/rules/"))
        or name == "deploy/prometheus/kafka-jmx.yaml"
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == code | {name for name in beside if not name.endswith(".md")}


def test_what_is_read_of_the_checkout_is_noticed(wheel: Path, tmp_path: Path) -> None:
    watched = install(wheel, tmp_path)
    assert watched.run("python", "-c", f"open({str(ROOT / 'README.md')!r})").returncode == 0
    assert watched.opened == [str(ROOT.resolve() / "README.md")]


def test_it_migrates_and_drains(installed: Installation, empty: Settings) -> None:
    environment = exports(empty)
    migrated = installed.run("iot", "migrate", **environment)
    assert migrated.returncode == 0, migrated.stderr
    numbered = sorted(f"migrations/{path.name}" for path in (ROOT / "sql" / "migrations").glob("*.sql"))
    assert query(empty, "SELECT name FROM schema_migration WHERE name LIKE 'migrations/%%' ORDER BY name") == [(name,) for name in numbered]

    payloads = [b'{"deviceId":"d","n":%d,"ok":true}' % number for number in range(200)]
    feed = Feed(empty)
    for number, payload in enumerate((*payloads, b"not JSON")):
        feed.send(payload, partition=number % 2)
    feed.flush()
    drained = installed.run("python", "-c", DRAIN, **environment)
    assert drained.returncode == 0, drained.stderr
    check_books(empty)
    assert sorted(query(empty, "SELECT topic, payload FROM message_named")) == sorted((TOPIC, payload) for payload in payloads)
    assert query(empty, "SELECT payload FROM quarantine") == [(b"not JSON",)]
    assert query(empty, "SELECT value FROM measurement_named WHERE metric = 'n' ORDER BY 1") == [(float(n),) for n in range(200)]


def test_the_scripts_run(installed: Installation) -> None:
    assert installed.run("iot", "--version").stdout.startswith("iot ")
    asked = {"topic": TOPIC, "payload": '{"deviceId":"d","temp":25.5}'}
    decoded = installed.run("iot", "decode", stdin=json.dumps(asked).encode())
    assert '"temp"' in decoded.stdout, decoded.stderr
    assert "usage: iot-ingest" in installed.run("iot-ingest", "--help").stdout
    checked = installed.run("iot-ingest", "--check")
    assert checked.returncode == 0, checked.stderr
    assert f"{installed.folder}/home/.local/share/iot-platform/ingest can be written" in checked.stdout


def test_settings_come_from_the_env_file_of_the_current_directory(installed: Installation) -> None:
    file = installed.folder / "home" / ".env"
    file.parent.mkdir(exist_ok=True)
    file.write_text("IOT_KAFKA_TOPIC=from-the-env-file\n", "utf-8")
    try:
        assert "IOT_KAFKA_TOPIC=from-the-env-file" in installed.run("iot", "env").stdout
    finally:
        file.unlink()
