"""Real servers for tests: Mosquitto, Kafka and PostgreSQL on free ports with data of their own, and our programs on them.

Everything runs under a supervisor that stops it all when pytest ends, however it ends.
"""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event

import psycopg2
import pytest
from psycopg2 import sql

from iot_platform.database.migrate import migrate
from iot_platform.kafka.topics import ensure_topics
from iot_platform.local import applications, probes
from iot_platform.local.install import install_packages
from iot_platform.local.kafka import KafkaServer
from iot_platform.local.mosquitto import MosquittoServer
from iot_platform.local.passwords import Passwords, console_key
from iot_platform.local.ports import free_ports
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.local.postgresql_roles import create_database
from iot_platform.local.program import Program
from iot_platform.local.server import Server, await_ready, start
from iot_platform.local.supervisor import Supervisor
from iot_platform.orchestration.environment import dagster_environment
from iot_platform.settings import Settings, exports
from iot_platform_tests.support.servers.named_server import NamedServer, named_server
from iot_platform_tests.support.servers.previous_release import PreviousRelease
from iot_platform_tests.support.waiting import eventually

TEMPLATE = "iot_template"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Servers:
    """The running servers; `supervisor` restarts one that a test kills (`supervisor.state(name).pid`)."""

    mosquitto: MosquittoServer
    kafka: KafkaServer
    postgresql: PostgresqlServer | NamedServer
    supervisor: Supervisor

    @property
    def mqtt_url(self) -> str:
        """Value for IOT_MQTT_URL."""
        return self.mosquitto.url

    @property
    def kafka_bootstrap_servers(self) -> str:
        """Value for IOT_KAFKA_BOOTSTRAP_SERVERS."""
        return self.kafka.bootstrap_servers

    def superuser_url(self, database: str = "postgres") -> str:
        """A database as PostgreSQL's superuser."""
        return self.postgresql.url("postgres", database)


class Programs:
    """Our own programs under the servers' supervisor, for the length of one test."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._started: dict[str, tuple[Program, Callable[[], None]]] = {}
        self.release: PreviousRelease | None = None
        """Of which what is started next is; None: this one."""

    def start(self, program: Program, check: Callable[[], None] = lambda: None) -> None:
        """Run a program and wait until the check passes; a failure shows the end of its log."""
        if self.release is not None:
            environment = {**self.release.known(program.environment), **self.release.environment()}
            program = replace(program, directory=self.release.folder, environment=environment)
        self._started[program.name] = (program, check)
        self._supervisor.apply(program)
        self.await_ready(program.name)

    def await_ready(self, name: str) -> None:
        """Wait until the program is ready (again)."""
        await_ready(name, self._started[name][1], self._supervisor, lambda _: None, abort=Event(), seconds=60)

    def pid(self, name: str) -> int:
        """Process id, 0 when it does not run."""
        return self._supervisor.state(name).pid

    def kill(self, name: str) -> int:
        """kill -9; returns the process id that was. The supervisor restarts the program if it was started with restart=True."""
        # It may just be being restarted; and 0 would be our own process group.
        pid: int = eventually(lambda: self.pid(name), what=lambda: f"{name} does not run: {self._supervisor.state(name)}")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: self.pid(name) != pid)
        return pid

    def stop(self, name: str) -> None:
        """SIGTERM, and wait for the end."""
        self._supervisor.stop(name)

    def restart(self, name: str) -> None:
        """Start a stopped or killed program again and wait until it is ready."""
        self._supervisor.apply(self._started[name][0])
        self.await_ready(name)

    def log(self, name: str) -> str:
        """Everything it printed, of earlier tests too."""
        return self._supervisor.log_file(name).read_text("utf-8", "replace")

    def close(self) -> None:
        """Stop all of them together, and forget them."""
        self._supervisor.stop(*self._started)
        for name in self._started:
            self._supervisor.remove(name)


class Ingest:
    """The ingest daemon on the test's settings."""

    NAME = "ingest"

    def __init__(self, programs: Programs, settings: Settings) -> None:
        self._programs = programs
        self.settings = settings
        self.client_id = f"test-ingest-{settings.kafka_topic}"
        self.url = f"http://127.0.0.1:{settings.ingest_http_port}"

    def start(self, *, restart: bool = True, **environment: str) -> "Ingest":
        """Start and wait for readiness; more IOT_* variables by keyword. `restart`: after a kill, as the local stack does."""
        program = applications.ingest(self.settings)
        own = exports(self.settings) | {"IOT_INGEST_CLIENT_ID": self.client_id} | environment
        program = replace(program, environment={**program.environment, **own}, restart=restart)
        self._programs.start(program, partial(probes.http, f"{self.url}/readyz"))
        return self

    def kill(self) -> int:
        """See Programs.kill."""
        return self._programs.kill(self.NAME)

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self._programs.stop(self.NAME)

    def resume(self) -> None:
        """Start again after `stop` or `kill`, and wait for readiness."""
        self._programs.restart(self.NAME)

    def await_ready(self) -> None:
        """After a kill: until the supervisor's new one is ready."""
        self._programs.await_ready(self.NAME)

    def forget_session(self) -> None:
        """Delete the daemon's session at the broker, which would keep collecting messages of later tests."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        port = int(self.settings.mqtt_url.get_secret_value().rsplit(":", 1)[1])
        client = Client(CallbackAPIVersion.VERSION2, self.client_id, protocol=MQTTProtocolVersion.MQTTv5)
        client.connect("127.0.0.1", port, clean_start=True)
        deadline = time.monotonic() + 5
        while not client.is_connected() and time.monotonic() < deadline:
            client.loop(0.1)
        client.disconnect()


class Dagster:
    """Dagster's three processes on the test's settings; names: dagster-code, dagster-daemon, dagster-webserver."""

    def __init__(self, programs: Programs, settings: Settings) -> None:
        self._programs = programs
        self.settings = settings
        self.url = settings.dagster_url

    def start(self, *, restart: bool = True, concurrent_runs: int | None = None, instance_settings: str | None = None) -> "Dagster":
        """Create the storage, start all three and wait until the location is loaded and the daemons beat. `instance_settings`: another
        dagster.yaml than the local stack's."""
        settings = self.settings
        instance = applications.write_dagster_home(settings) / "dagster.yaml"
        if instance_settings is not None:
            instance.write_text(instance_settings, "utf-8")
        if concurrent_runs is not None:
            text, count = re.subn(r"(max_concurrent_runs:) \d+", rf"\1 {concurrent_runs}", instance.read_text("utf-8"))
            assert count == 1
            instance.write_text(text, "utf-8")
        run = partial(self._run, restart=restart)
        environment = {**os.environ, **exports(settings), **dagster_environment(settings)}
        subprocess.run([sys.executable, "-m", "dagster", "instance", "migrate"], check=True, capture_output=True, env=environment)
        run(applications.dagster_code(settings), partial(probes.code_server, str(applications.code_socket(settings))))
        run(applications.dagster_daemon(settings), lambda: None)
        run(applications.dagster_webserver(settings), partial(probes.dagster, settings.dagster_url))
        return self

    def exchange(self) -> None:
        """Stop all three, and start those of the programs' release."""
        for name in ("dagster-daemon", "dagster-code", "dagster-webserver"):
            self.stop(name)
        self.start()

    def kill(self, name: str) -> int:
        """See Programs.kill."""
        return self._programs.kill(name)

    def stop(self, name: str) -> None:
        """SIGTERM, and wait for the end."""
        self._programs.stop(name)

    def await_ready(self, name: str) -> None:
        """After a kill: until the supervisor's new one is ready."""
        self._programs.await_ready(name)

    def log(self, name: str) -> str:
        """Everything it printed, of earlier tests too."""
        return self._programs.log(name)

    def _run(self, program: Program, check: Callable[[], None], *, restart: bool) -> None:
        environment = {**program.environment, **exports(self.settings), **dagster_environment(self.settings)}
        self._programs.start(replace(program, environment=environment, restart=restart), check)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Mosquitto, Kafka and PostgreSQL, started once, together."""
    folder = tmp_path_factory.mktemp("servers")
    cache = Settings().cache_dir
    mqtt_port, kafka_port, postgres_port = free_ports(3)
    supervisor = Supervisor(folder, die_with_parent=True)
    passwords = Passwords.load(folder / "data" / "passwords.json")
    mosquitto, kafka = MosquittoServer(folder, mqtt_port), KafkaServer(folder, cache, kafka_port, Settings())
    several: list[Server] = [mosquitto, kafka]
    postgresql: PostgresqlServer | NamedServer | None = named_server()
    if postgresql is None:
        newest = os.environ.get("IOT_TEST_NEWEST_TIMESCALEDB") == "1"
        postgresql = PostgresqlServer(folder, cache, postgres_port, passwords, durable=False, newest=newest)
        several.append(postgresql)
    found = Servers(mosquitto, kafka, postgresql, supervisor)
    install_packages({k: v for server in several for k, v in server.missing_packages().items()}, folder / "install.log", lambda _: None)
    supervisor.ensure_running()
    try:
        with ThreadPoolExecutor(3) as pool:
            jobs = [pool.submit(start, server, supervisor, lambda _: None, abort=Event()) for server in several]
        for job in jobs:
            job.result()
        yield found
    finally:
        supervisor.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template_database(servers: Servers) -> str:
    """A migrated database that tests copy."""
    create_database(servers.superuser_url(), TEMPLATE)
    migrate(_settings(servers, TEMPLATE, Path(tempfile.gettempdir()) / "iot-test-template", {}))
    with psycopg2.connect(servers.superuser_url()) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE pg_database SET datallowconn = false WHERE datname = %s", (TEMPLATE,))
        connection.commit()
        cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (TEMPLATE,))
    connection.close()
    return TEMPLATE


@pytest.fixture
def settings(servers: Servers, edition: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a platform of the test's own: a fresh migrated database, fresh topics (2 partitions), free ports. The database is of
    the Apache edition, and once more of the Community edition in tests marked `both_editions`."""
    number = next(_numbers)
    database = f"test_{number}"
    own = {"kafka_topic": f"messages-{number}", "kafka_dead_letter_topic": f"dead-letter-{number}", "kafka_partitions": 2}
    made = _settings(servers, database, tmp_path / "local", own)
    ensure_topics(made)
    if edition == "community" and named_server() is None:
        yield made.model_copy(update=request.getfixturevalue("community_database").emptied())
        return
    with _database(servers, database, request.getfixturevalue("template_database")):
        yield made


@contextmanager
def own_database(servers: Servers, template: str, folder: Path) -> Iterator[Settings]:
    """Settings with a fresh migrated database (Apache edition), for tests that share one and need no Kafka."""
    number = next(_numbers)
    with _database(servers, f"test_{number}", template):
        yield _settings(servers, f"test_{number}", folder, {"kafka_topic": f"messages-{number}"})


@contextmanager
def _database(servers: Servers, database: str, template: str) -> Iterator[None]:
    create_database(servers.superuser_url(), database, template=template)
    yield
    connection = psycopg2.connect(servers.superuser_url())
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))
    finally:
        connection.close()


@pytest.fixture
def programs(servers: Servers) -> Iterator[Programs]:
    """Starts programs under the supervisor, and stops them after the test."""
    made = Programs(servers.supervisor)
    yield made
    made.close()


@pytest.fixture
def ingest(programs: Programs, settings: Settings) -> Iterator[Ingest]:
    """The ingest daemon, not started yet: `ingest.start()`."""
    made = Ingest(programs, settings)
    yield made
    programs.close()
    made.forget_session()


@pytest.fixture
def dagster(programs: Programs, settings: Settings) -> Iterator[Dagster]:
    """Dagster, not started yet: `dagster.start()`."""
    yield Dagster(programs, settings)
    programs.close()  # before the database goes


def _settings(servers: Servers, database: str, local_dir: Path, own: dict[str, object]) -> Settings:
    http_port, dagster_port, metrics_port, console_port = free_ports(4)
    url = partial(servers.postgresql.url, database=database)
    values: dict[str, object] = {
        "mqtt_url": servers.mqtt_url,
        "kafka_bootstrap_servers": servers.kafka_bootstrap_servers,
        "database_url": url("iot_writer"),
        "database_admin_url": url("iot_migrator"),
        "database_reader_url": url("iot_reader"),
        "ingest_http_port": http_port,
        "ingest_http_url": f"http://127.0.0.1:{http_port}",
        "metrics_port": metrics_port,
        "console_database_url": url("iot_console"),
        "console_key_file": console_key(local_dir / "console.key"),
        "console_port": console_port,
        "dagster_port": dagster_port,
        "dagster_url": f"http://127.0.0.1:{dagster_port}",
        "local_dir": local_dir,
        **own,
    }
    return Settings(**values)  # type: ignore[arg-type]
