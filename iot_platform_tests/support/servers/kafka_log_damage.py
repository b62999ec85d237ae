"""What power cuts and restored backups do to the test's Kafka: its log is cut, or an older copy put back, while it is down."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from iot_platform.drills.rig.kafka_log import cut_log
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.local.server import start
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.stack import Servers


@dataclass(frozen=True)
class KafkaDisk:
    """The disk of the test's Kafka, as far as the test's topic is on it."""

    servers: Servers
    settings: Settings

    @property
    def _data_dir(self) -> Path:
        return self.servers.kafka.local_dir / "data" / "kafka"

    def folder(self, partition: int = 0) -> Path:
        """Where the log of a partition is."""
        return self._data_dir / f"{self.settings.kafka_topic}-{partition}"

    @contextmanager
    def down(self) -> Iterator[None]:
        """Kafka is stopped inside the block, and serves again after it."""
        self.servers.supervisor.stop("kafka")
        try:
            yield
        finally:
            start(self.servers.kafka, self.servers.supervisor, lambda _: None, abort=Event())
            self._await_leaders()

    def cut(self, *partitions: int, at: int) -> dict[int, int]:
        """Lose the ends of logs from the batch that holds offset `at` on; partition → where the log ends now."""
        with self.down():
            return {partition: cut_log(self.folder(partition), at) for partition in partitions}

    def copy(self, to: Path, *partitions: int) -> None:
        """A copy of the logs, as a backup would have it."""
        with self.down():
            for partition in partitions:
                shutil.copytree(self.folder(partition), to / str(partition))

    def restore(self, copy: Path, *partitions: int) -> None:
        """Put the copy back."""
        with self.down():
            for partition in partitions:
                shutil.rmtree(self.folder(partition))
                shutil.copytree(copy / str(partition), self.folder(partition))
            (self._data_dir / ".kafka_cleanshutdown").unlink(missing_ok=True)

    def _await_leaders(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with TopicOffsets(self.settings) as topic:
                    topic.look()
            except KafkaUnavailableError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError("the leaders of the test's topic do not answer")
