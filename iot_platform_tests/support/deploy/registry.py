"""A container registry on loopback: Debian's docker-registry, its data in a folder of the test's own."""

import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from threading import Event

from iot_platform.local.errors import NotReadyError
from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.local.program import Program
from iot_platform.local.server import await_ready
from iot_platform.local.supervisor import Supervisor
from iot_platform_tests.support.brokers import debian

_CONFIG = """version: 0.1
storage:
  filesystem: {{rootdirectory: /srv}}
  delete: {{enabled: true}}
http: {{addr: "{host}:{port}"}}
"""


class Registry:
    """One that can be stopped and started again with what it holds."""

    def __init__(self, name: str, root: Path, folder: Path, supervisor: Supervisor) -> None:
        self.name, self.folder, self._supervisor = name, folder / name, supervisor
        (port,) = free_ports(1)
        self.host = f"{LOOPBACK}:{port}"
        self.folder.mkdir()
        (self.folder / "config.yml").write_text(_CONFIG.format(host=LOOPBACK, port=port), "ascii")
        command = debian.inside(root, self.folder, "/usr/bin/docker-registry", "serve", "/srv/config.yml")
        self._program = Program(name, command, folder, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, stop_seconds=5)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._supervisor.apply(self._program)
        await_ready(self.name, partial(_answers, self.host), self._supervisor, lambda _: None, abort=Event(), seconds=60)

    def stop(self) -> None:
        """End it."""
        self._supervisor.stop(self.name)


def _answers(host: str) -> None:
    try:
        with urllib.request.urlopen(f"http://{host}/v2/", timeout=5):
            pass
    except (urllib.error.URLError, OSError) as error:
        raise NotReadyError(str(error)) from error
