"""A broker under a supervisor of its own, for a test or from the command line."""

import os
import signal
from pathlib import Path
from threading import Event
from typing import Self

from iot_platform.local import leftovers
from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import Note, install_packages
from iot_platform.local.ports import free_ports, is_free
from iot_platform.local.server import await_ready, start
from iot_platform.local.supervisor import Supervisor
from iot_platform.settings import Settings
from iot_platform_tests.support.brokers.server import BrokerServer
from iot_platform_tests.support.waiting import eventually


class RunningBroker:
    """A broker that can be stopped, killed and started again; its data and port stay."""

    def __init__(self, kind: type[BrokerServer], folder: Path, note: Note = lambda _: None, port: int = 0) -> None:
        self.server = kind(folder, Settings().cache_dir, port or _three_ports())
        self.url = self.server.url
        self._note = note
        self._supervisor = Supervisor(folder, die_with_parent=True)

    def open(self) -> Self:
        """Install and start it, and wait until it answers.

        Raises:
            LocalStackError: it can't be installed or does not start here; the message says why.
        """
        self._supervisor.ensure_running()
        try:
            install_packages(self.server.missing_packages(), self.server.install_log, self._note)
            start(self.server, self._supervisor, self._note, abort=Event())
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End every process of it."""
        self._supervisor.shutdown()
        leftovers.end(self._supervisor.local_dir)

    @property
    def pid(self) -> int:
        """Of its main process; 0 when it does not run."""
        return self._supervisor.state(self.server.name).pid

    @property
    def log(self) -> Path:
        """Its output."""
        return self._supervisor.log_file(self.server.name)

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        self._supervisor.stop(self.server.name)

    def kill(self) -> None:
        """kill -9 of all its processes; it stays down until `start`."""
        pid = self.pid
        if not pid:
            raise LocalStackError(f"{self.server.name} does not run, so it cannot be killed")
        os.killpg(pid, signal.SIGKILL)
        eventually(lambda: self.pid != pid, what=f"{self.server.name} outlives SIGKILL")

    def start(self) -> None:
        """Start it again and wait until it answers."""
        self._supervisor.apply(self.server.program())
        await_ready(self.server.name, self.server.check, self._supervisor, self._note, abort=Event())


def _three_ports() -> int:
    """The first of three free ports in a row."""
    while True:
        first = free_ports(1)[0]
        if all(is_free(port) for port in (first + 1, first + 2)):
            return first
