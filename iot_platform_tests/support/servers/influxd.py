"""A real InfluxDB 1.x for tests: Debian's, without its service, on a free port with data of its own."""

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3

from iot_platform.influx.client import InfluxClient, identifier
from iot_platform.influx.target import Target
from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.settings import Settings
from iot_platform_tests.support.waiting import eventually

PACKAGE = "influxdb"
_CONFIG = """reporting-disabled = true
bind-address = "{host}:{rpc}"
[meta]
  dir = "{data}/meta"
[data]
  dir = "{data}/data"
  wal-dir = "{data}/wal"
  index-version = "{index}"
  query-log-enabled = false
[http]
  bind-address = "{host}:{port}"
  log-enabled = false
[monitor]
  store-enabled = false
"""
_numbers = itertools.count(1)


def program(cache_dir: Path) -> Path:
    """influxd of Debian's package, unpacked into the cache the first time."""
    folder = cache_dir.expanduser() / "influxdb-debian"
    found = folder / "usr/bin/influxd"
    if not found.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=folder, check=True, capture_output=True)
        package = next(folder.glob(f"{PACKAGE}_*.deb"))
        subprocess.run(["dpkg", "-x", package.name, "."], cwd=folder, check=True)
        package.unlink()
    return found


@dataclass
class Influxd:
    """One server; `kill`, `stop` and `start` keep its data."""

    binary: Path
    folder: Path
    port: int
    rpc: int
    index: str = "inmem"
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> "Influxd":
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "influxdb.conf"
        config.write_text(_CONFIG.format(host=LOOPBACK, port=self.port, rpc=self.rpc, data=self.folder, index=self.index), "utf-8")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self.binary, "-config", config], stdout=log, stderr=log, start_new_session=True)
        eventually(self._answers, 60, lambda: (self.folder / "log").read_text("utf-8", "replace")[-2000:])
        return self

    def _answers(self) -> bool:
        try:
            return urllib3.request("GET", f"{self.url}/ping", retries=False, timeout=2).status == 204
        except urllib3.exceptions.HTTPError:
            return False

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None


@dataclass(frozen=True)
class InfluxDatabase:
    """A database of a server, for one test."""

    server: Influxd
    target: Target

    @property
    def url(self) -> str:
        """Value for IOT_INFLUX_URL."""
        return f"{self.target.address}/{self.target.database}"

    def ask(self, text: str) -> list[list[object]]:
        """Rows of a statement, of all series."""
        with InfluxClient(self.target) as client:
            return [values for series in client.query(text) for values in series.get("values", [])]


def new_server(folder: Path, cache_dir: Path, index: str = "inmem") -> Influxd:
    """One that is not started yet."""
    port, rpc = free_ports(2)
    return Influxd(program(cache_dir), folder, port, rpc, index)


def new_database(server: Influxd, more: str = "") -> InfluxDatabase:
    """A database that nobody has used; `more`: WITH DURATION …"""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with InfluxClient(Target("admin", server.url, "")) as client:
        client.query(f"CREATE DATABASE {identifier(name)} {more}")
    return InfluxDatabase(server, Target("influx", server.url, name))


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """One server for all tests that do not break it."""
    server = new_server(tmp_path_factory.mktemp("influxd"), Settings().cache_dir).start()
    yield server
    server.kill()


@pytest.fixture
def influx(influxd: Influxd) -> InfluxDatabase:
    """A database of its own for each test."""
    return new_database(influxd)
