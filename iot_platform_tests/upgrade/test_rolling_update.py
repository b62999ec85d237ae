"""A rolling update of the whole platform from the release before to this one, and back, while devices publish."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.audit import run_audit
from iot_platform.database import migrate, pending
from iot_platform.local import applications, probes
from iot_platform.local.ports import free_ports
from iot_platform.local.postgresql_roles import create_database
from iot_platform.settings import Settings, exports
from iot_platform.simulator.comparison import Scope, compare, read
from iot_platform_tests.support.feeds.community import PROJECT, TENANT
from iot_platform_tests.support.feeds.drain import check_books, drain, query
from iot_platform_tests.support.feeds.simulation import Simulation, await_everything_stored, stored_messages
from iot_platform_tests.support.servers.ingest import forget, publish
from iot_platform_tests.support.servers.previous_release import PreviousRelease
from iot_platform_tests.support.servers.stack import Dagster, Programs, Servers
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.upgrade, pytest.mark.timeout(1800)]
DATABASE = "rolling_update"
MIX = ("--tenants=2", "--projects=2", "--devices=20", "--late=0.03", "--duplicate=0.03", "--malformed=0.03", "--conflict=0.01")
MESSAGES = 2000
RATE = 100


@dataclass
class Daemon:
    """One of several ingest daemons that share the topics; what it keeps, and its name at the broker, outlive its release."""

    programs: Programs
    settings: Settings
    name: str
    port: int

    @property
    def client_id(self) -> str:
        """Its name at the broker."""
        return f"{self.settings.kafka_topic}-{self.name}"

    @property
    def state(self) -> Path:
        """Its spool and its books."""
        return self.settings.local_dir / self.name

    def start(self) -> None:
        """As the programs' release, and wait until it is ready."""
        program = applications.ingest(self.settings)
        environment = {
            **program.environment,
            **exports(self.settings),
            "IOT_INGEST_CLIENT_ID": self.client_id,
            "IOT_INGEST_STATE_DIR": str(self.state),
            "IOT_INGEST_HTTP_PORT": str(self.port),
            "IOT_INGEST_SHARED_GROUP": "update",
            "IOT_INGEST_SPOOL_AFTER_SECONDS": "0.5",
        }
        self.programs.start(
            replace(program, name=self.name, environment=environment), partial(probes.http, f"http://127.0.0.1:{self.port}/readyz")
        )

    def spooled(self) -> int:
        """Messages in its spool."""
        (file,) = self.state.glob("spool-*.sqlite")
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM entry").fetchone()[0])


@pytest.fixture
def settings(settings: Settings, servers: Servers, previous_release: PreviousRelease) -> Iterator[Settings]:
    """On a database that the release before migrated, and topics of the test's own; two daemons."""
    create_database(servers.superuser_url(), DATABASE)
    root = f"mtic/{settings.kafka_topic}/client/realtime"
    url = partial(servers.postgresql.url, database=DATABASE)
    made = settings.model_validate(
        settings.model_dump(exclude_unset=True)
        | {
            "database_url": url("iot_writer"),
            "database_admin_url": url("iot_migrator"),
            "database_reader_url": url("iot_reader"),
            "mqtt_topic_filter": f"{root}/#",
            "topic_pattern": root + "/{tenant}/{project}/{device...}",
            "ingest_http_url": ",".join(f"http://127.0.0.1:{port}" for port in free_ports(2)),
            "drain_batch_records": 250,
        }
    )
    previous_release.iot(made, "migrate")
    assert pending(made), "the release before must lack migrations"
    yield made
    with closing(psycopg2.connect(servers.superuser_url())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(DATABASE)))


@pytest.fixture
def daemons(programs: Programs, settings: Settings) -> Iterator[list[Daemon]]:
    """Not started yet."""
    ports = [int(url.rsplit(":", 1)[1]) for url in settings.ingest_http_url.split(",")]
    made = [Daemon(programs, settings, f"ingest-{number}", port) for number, port in enumerate(ports, 1)]
    yield made
    programs.close()
    for daemon in made:
        forget(settings.mqtt_url.get_secret_value(), daemon.client_id)


@contextmanager
def kafka_hangs(servers: Servers) -> Iterator[None]:
    """So that the daemons spool."""
    pid = servers.supervisor.state("kafka").pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_daemons_of_both_releases_share_the_topics(
    settings: Settings, servers: Servers, programs: Programs, daemons: list[Daemon], previous_release: PreviousRelease
) -> None:
    """One after the other is exchanged and goes back, each time with messages in its spool; the drain is this release's."""
    migrate(settings)
    sent = list[tuple[str, bytes]]()
    base = settings.mqtt_topic_filter.removesuffix("#") + f"{TENANT}/{PROJECT}"

    def send(count: int) -> None:
        messages = [(f"{base}/d{len(sent) + n}", b'{"n":%d}' % (len(sent) + n)) for n in range(count)]
        sent.extend(messages)
        publish(settings.mqtt_url.get_secret_value(), messages)

    def exchange(daemon: Daemon) -> None:
        with kafka_hangs(servers):
            send(200)
            eventually(lambda: daemon.spooled() >= 20, 60, "messages in the spool")
            programs.stop(daemon.name)
            left = daemon.spooled()
        assert left >= 20
        daemon.start()
        send(200)
        eventually(lambda: daemon.spooled() == 0, 60, "the spool is handed over")

    programs.release = previous_release
    for daemon in daemons:
        daemon.start()
    for release in (None, previous_release):
        programs.release = release
        for daemon in daemons:
            exchange(daemon)

    def stored() -> int:
        drain(settings)
        return int(query(settings, "SELECT count(*) FROM message WHERE duplicate_of IS NULL")[0][0])

    eventually(lambda: stored() >= len(sent), 60, lambda: f"{stored()} of {len(sent)}")
    rows = query(settings, "SELECT payload FROM message WHERE duplicate_of IS NULL")
    assert sorted(payload for (payload,) in rows) == sorted(payload for _, payload in sent)
    check_books(settings)
    found = run_audit(settings, since=datetime.fromtimestamp(0, UTC), wait_seconds=10)
    assert (found.differences, found.doubts, len(found.daemons)) == ([], [], 2)


def test_update_and_way_back(  # noqa: PLR0917  fixtures
    settings: Settings,
    servers: Servers,
    programs: Programs,
    daemons: list[Daemon],
    dagster: Dagster,
    simulation: Simulation,
    database: Connection,
    previous_release: PreviousRelease,
) -> None:
    total = 0

    def publish() -> None:
        nonlocal total
        simulation.start(*MIX, f"--count={MESSAGES}", f"--rate={RATE}", f"--seed={total}")
        total += MESSAGES

    def flows() -> None:
        """What is published now is stored."""
        before = stored_messages(database)
        eventually(lambda: stored_messages(database) >= before + 100 or not simulation.running, 120, "the drain gets on", pause=0.1)
        simulation.finish()
        await_everything_stored(settings, database, total, 120)

    def exchange(daemon: Daemon) -> None:
        """With messages in its spool, as the one release wrote them and the other one reads them."""
        with kafka_hangs(servers):
            eventually(lambda: daemon.spooled() >= 20, 60, "messages in the spool")
            programs.stop(daemon.name)
            left = daemon.spooled()
        assert left >= 20
        daemon.start()
        eventually(lambda: daemon.spooled() == 0, 60, "the spool is handed over")

    programs.release = previous_release
    for daemon in daemons:
        daemon.start()
    dagster.start()
    publish()
    flows()

    publish()  # the schema first, under all programs of the release before
    assert "migrations/0018_post_store_rollups_in_tables.sql" in migrate(settings)
    flows()

    programs.release = None  # Dagster before the daemons; for a while the platform of this release and the daemons of the one before
    publish()
    dagster.exchange()
    flows()
    publish()
    exchange(daemons[0])
    flows()
    publish()
    exchange(daemons[1])
    flows()

    programs.release = previous_release  # and back: on this release's schema, the daemons of this release beside it at first
    publish()
    dagster.exchange()
    flows()
    publish()
    for daemon in daemons:
        exchange(daemon)
    flows()

    stored = read(database, Scope(settings.kafka_topic))
    assert compare(simulation.published, stored) == []
    assert len(stored.rows) == total + stored.ledger_sums["duplicates"]
    check_books(settings)
    found = run_audit(settings, since=datetime.fromtimestamp(0, UTC), wait_seconds=10)
    assert (found.differences, found.doubts) == ([], [])
    assert len(found.daemons) == 2
    assert query(settings, "SELECT count(*) FROM mqtt_connection") >= [(6,)]
