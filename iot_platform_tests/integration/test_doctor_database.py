"""`iot doctor` on a real PostgreSQL with settings under which a commit does not outlive a power cut; each finding names the setting.

The tests' own server runs with fsync and full_page_writes off."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from iot_platform.database import connect
from iot_platform.diagnostics.doctor_clocks import clock_findings, database_offset
from iot_platform.diagnostics.doctor_database import database_findings
from iot_platform.diagnostics.finding import Finding
from iot_platform.drills.rig.fake_clock import FakeClock
from iot_platform.local.errors import NotReadyError
from iot_platform.local.passwords import Passwords
from iot_platform.local.ports import free_ports
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.ingest import Daemon, forget, publish
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually

Superuser = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def superuser(servers: Servers, settings: Settings) -> Iterator[Superuser]:
    """Runs a statement as PostgreSQL's superuser in the test's database."""
    database = settings.writer_url.rsplit("/", 1)[1]
    with closing(psycopg2.connect(servers.superuser_url(database))) as connection:
        connection.autocommit = True

        def run(statement: str) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

        yield run


def found(settings: Settings) -> dict[str, Finding]:
    """By what stands before the first colon or equals sign of the text."""
    with closing(connect(settings, "writer", "test")) as connection:
        return {finding.text.split("=")[0].split(":")[0]: finding for finding in database_findings(connection)}


def test_a_server_that_does_not_sync_is_a_risk_and_its_setting_is_named(settings: Settings) -> None:
    told = found(settings)
    for name in ("fsync", "full_page_writes"):
        assert (told[name].state, name in told[name].remedy) == ("risk", True), told[name]
    assert not any(finding.state == "ok" and finding.what == "database settings" for finding in told.values())
    assert (told["archive_mode"].state, "archive_command" in told["archive_mode"].remedy) == ("note", True)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("synchronous_commit", "off"),
        ("zero_damaged_pages", "on"),
        ("ignore_checksum_failure", "on"),
        ("default_transaction_read_only", "on"),
    ],
)
def test_a_setting_of_the_database_is_found_where_it_was_made(settings: Settings, superuser: Superuser, setting: str, value: str) -> None:
    assert setting not in found(settings)
    ((database,),) = superuser("SELECT current_database()")
    superuser(f"ALTER DATABASE {database} SET {setting} = {value}")  # goes with the database
    finding = found(settings)[setting]
    assert finding.state == ("bad" if setting == "default_transaction_read_only" else "risk")
    assert f"ALTER DATABASE {database}" in finding.remedy
    assert setting in finding.remedy


@pytest.fixture(scope="module")
def archiving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own with archive_mode=on and no command; its superuser's URL."""
    folder = tmp_path_factory.mktemp("archiving")
    passwords = Passwords.load(folder / "data" / "passwords.json")
    server = PostgresqlServer(folder, Settings().cache_dir, free_ports(1)[0], passwords, durable=False)
    for name in ("logs", "run"):
        (folder / name).mkdir()
    server.prepare(lambda _: None)
    program = server.program()
    command = (*program.command, "-c", "archive_mode=on")
    with (server.log_dir / "postgresql.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=program.directory, env=dict(program.environment), stdout=log, stderr=log)
    eventually(lambda: not _fails(server.check), 60)
    yield server.url("postgres", "postgres")
    process.send_signal(signal.SIGINT)
    process.wait(30)


def _fails(check: Callable[[], None]) -> bool:
    try:
        check()
    except NotReadyError:
        return True
    return False


def test_an_archive_that_fails_or_has_no_command_is_told(archiving: str) -> None:
    with closing(psycopg2.connect(archiving)) as connection, connection.cursor() as cursor:
        connection.autocommit = True

        def told() -> Finding:
            return next(finding for finding in database_findings(connection) if finding.what == "WAL archive")

        def command(text: str) -> None:
            cursor.execute("ALTER SYSTEM SET archive_command = %s", (text,))
            cursor.execute("SELECT pg_reload_conf()")
            cursor.execute("CREATE TABLE IF NOT EXISTS something (); SELECT txid_current(), pg_switch_wal()")

        assert (told().state, "archive_command is empty" in told().text) == ("risk", True)
        command("false")
        eventually(lambda: "fails" in told().text, 30, told)
        assert (told().state, "archive_command" in told().remedy) == ("risk", True)
        command("true")
        eventually(lambda: told().state == "ok", 70, told)


def test_connections_that_run_out_are_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from iot_platform.diagnostics import doctor_database

    assert next(finding for finding in found(settings).values() if finding.what == "connections").state == "ok"
    monkeypatch.setattr(doctor_database, "FULL_SHARE", 0.0)
    finding = next(finding for finding in found(settings).values() if finding.what == "connections")
    assert (finding.state, "max_connections" in finding.remedy) == ("risk", True)


def test_the_clocks_of_two_programs_of_one_machine_agree(settings: Settings) -> None:
    with closing(connect(settings, "writer", "test")) as connection:
        assert abs(database_offset(connection)) < 0.1
    (finding,) = clock_findings(settings, database=True, kafka=True, ingest=False)
    assert (finding.what, finding.state) == ("clock", "ok")


def test_records_from_the_future_tell_that_kafkas_clock_is_ahead(settings: Settings) -> None:
    name, where = f"{settings.kafka_topic}-ahead", {"bootstrap.servers": settings.kafka_bootstrap_servers}
    with AdminClient(where) as admin:
        admin.create_topics([NewTopic(name, 2, 1, config={"message.timestamp.type": "CreateTime"})])[name].result(30)
        producer = Producer(where)
        producer.produce(name, b"1", partition=1, timestamp=int((time.time() + 600) * 1000))
        assert producer.flush(30) == 0
        (finding,) = clock_findings(settings.model_copy(update={"kafka_topic": name}), database=False, kafka=True, ingest=False)
        admin.delete_topics([name])[name].result(30)
    assert finding.state == "risk"
    assert "Kafka's clock is" in finding.text
    assert "ahead of" in finding.text


def test_a_daemon_whose_clock_is_wrong_is_told(settings: Settings, tmp_path: Path) -> None:
    """By the time that its host sends, and by what it has found out about Kafka's."""
    with FakeClock(tmp_path / "clock") as clock:
        clock.set(-300)
        daemon = Daemon.on(settings, tmp_path, mqtt_topic_filter="clock/#")
        daemon.environment |= clock.environment
        try:
            daemon.start()
            publish(settings.mqtt_url.get_secret_value(), [("clock/1", b"{}")])
            eventually(lambda: daemon.metric("clock_offset_seconds") < -200)
            asked = settings.model_copy(update={"ingest_http_url": f"http://127.0.0.1:{daemon.port}"})
            found = [*clock_findings(asked, database=False, kafka=False, ingest=True)]
        finally:
            daemon.close()
            forget(settings.mqtt_url.get_secret_value(), daemon.environment["IOT_INGEST_CLIENT_ID"])
    assert [(finding.state, "300.0 s behind" in finding.text or "299" in finding.text) for finding in found] == [("risk", True)] * 2, found
    assert "Kafka's" in found[1].text
