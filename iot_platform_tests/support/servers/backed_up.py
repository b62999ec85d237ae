"""A PostgreSQL of the test's own that is backed up, may be killed, and is restored; and a Kafka topic that is drained into it."""

import os
import shutil
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from threading import Event

import pytest

from iot_platform.backup import heartbeat
from iot_platform.backup.create import create
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.repository import Repository
from iot_platform.database import connect
from iot_platform.database.migrate import migrate
from iot_platform.kafka.group_offsets import write_noted
from iot_platform.local import probes
from iot_platform.local.install import install_packages
from iot_platform.local.passwords import Passwords
from iot_platform.local.ports import free_ports
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.local.server import start
from iot_platform.local.supervisor import Supervisor
from iot_platform.settings import Settings
from iot_platform.telemetry.drain import offsets
from iot_platform_tests.support.servers.own_servers import OwnKafka
from iot_platform_tests.support.servers.s3 import BUCKET, READER, REGION, WRITER, S3Server
from iot_platform_tests.support.waiting import eventually


class BackedUp:
    """`settings`: of a platform on this database and the test's own topic. Started."""

    def __init__(self, folder: Path, kafka: OwnKafka, topic: str, *, in_s3: bool = False) -> None:
        self.folder = folder
        cipher = folder / "cipher"
        cipher.write_text("a passphrase of the test's\n")
        self.repository = folder / "repository"
        self._supervisor = Supervisor(folder, die_with_parent=True)
        repository = Repository(str(self.repository), cipher, 14, "", "", None)
        if in_s3:
            self._supervisor.ensure_running()
            self.s3 = S3Server(folder, self._supervisor)
            self.s3.start()
            self.s3.make_bucket()
            self.repository = self.s3.objects
            keys = WRITER.write(folder), READER.write(folder)
            repository = Repository(f"s3://{BUCKET}/production", cipher, 14, self.s3.endpoint, REGION, keys[0], self.s3.ca_file, keys[1])
        passwords, cache = Passwords.load(folder / "data" / "passwords.json"), Settings().cache_dir
        self.server = PostgresqlServer(folder, cache, free_ports(1)[0], passwords, durable=False, repository=repository)
        self.settings = Settings(
            kafka_bootstrap_servers=kafka.bootstrap_servers,
            kafka_topic=topic,
            kafka_dead_letter_topic=f"{topic}-dead",
            kafka_partitions=2,
            kafka_drain_group=f"drain-{topic}",
            database_url=self.server.url("iot_writer"),  # type: ignore[arg-type]
            database_admin_url=self.server.url("iot_migrator"),  # type: ignore[arg-type]
            database_reader_url=self.server.url("iot_reader"),  # type: ignore[arg-type]
            local_dir=folder,
            **self.server.backup_notes(),  # type: ignore[arg-type]
        )
        install_packages(self.server.missing_packages(), folder / "install.log", lambda _: None)
        self._supervisor.ensure_running()
        self.start()
        migrate(self.settings)

    @property
    def host(self) -> DatabaseHost:
        """Where pgBackRest runs."""
        return DatabaseHost.of(self.settings)

    @property
    def data(self) -> Path:
        """The server's data folder."""
        return next(path for path in (self.folder / "data" / "postgresql").iterdir() if path.name.isdigit())

    def start(self) -> None:
        """As `iot up` does; after a restore, too."""
        start(self.server, self._supervisor, lambda _: None, abort=Event())

    def kill(self) -> Path:
        """kill -9 of the server, which stays down, and its disk is gone; returns where its data folder was."""
        pid = self._supervisor.state(self.server.name).pid
        os.kill(pid, signal.SIGKILL)
        self._supervisor.stop(self.server.name)
        eventually(lambda: not self._serves())
        data = self.data
        shutil.rmtree(data)
        return data

    def note_heartbeat(self) -> None:
        """What the sensor kafka_lag does once a minute."""
        connection = connect(self.settings)
        rows = offsets.read(connection, self.settings.kafka_topic)
        remark = heartbeat.remarks(connection, {partition: row.updated_at for partition, row in rows.items()})
        noted = {partition: (row.next_offset, remark(partition)) for partition, row in rows.items()}
        connection.close()
        assert write_noted(self.settings, noted)

    def now(self) -> datetime:
        """By the database's clock, which commits go by."""
        moment = datetime.fromisoformat(self.host.sql("SET timezone = 'UTC'; SELECT clock_timestamp()")[0][0])
        assert moment.tzinfo is not None
        return moment

    def back_up_fully(self) -> None:
        """And until the second is over in which the backup ended: what is asked for within it may lie before its end."""
        made = create(self.settings, "full")
        eventually(lambda: self.now().timestamp() >= made.stopped_at + 1)

    def switch_wal(self) -> None:
        """All that is committed so far is in the archive."""
        ((segment,),) = self.host.sql("SELECT pg_walfile_name(pg_switch_wal())")
        eventually(lambda: self.host.sql("SELECT last_archived_wal FROM pg_stat_archiver")[0][0] >= segment, 30)

    def close(self) -> None:
        """Stop everything."""
        self._supervisor.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _serves(self) -> bool:
        try:
            self.server.check()
        except probes.NotReadyError:
            return False
        return True


def quiet(_text: str) -> None:
    """No progress."""


@pytest.fixture
def backed_up(own_kafka: OwnKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BackedUp]:
    """See BackedUp. Parametrized indirectly with "s3": its repository is in a bucket."""
    name = request.node.name.replace("[", "-").replace("]", "")
    own_kafka.revive()
    own_kafka.create(name, f"{name}-dead")
    made = BackedUp(tmp_path, own_kafka, name, in_s3=getattr(request, "param", "") == "s3")
    yield made
    made.close()
