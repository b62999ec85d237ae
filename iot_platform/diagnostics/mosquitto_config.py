"""The configuration of a Mosquitto on this machine, read as Mosquitto reads it: only who runs beside it can see its queue limits."""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT_PORT: Final = 1883
_PROGRAM: Final = "mosquitto"
_PROC: Final = Path("/proc")


@dataclass(frozen=True)
class MosquittoConfig:
    """The global options that count (of an option that stands there twice, the last), and the ports of its listeners."""

    file: Path
    options: Mapping[str, str]
    ports: frozenset[int]

    def number(self, option: str, default: int) -> int:
        """An option's value; the default where it is not there, or is no number."""
        try:
            return int(self.options.get(option, default))
        except ValueError:
            return default

    def is_on(self, option: str) -> bool:
        """Whether a switch that is off by default is on."""
        return self.options.get(option) == "true"


def read_config(file: Path) -> MosquittoConfig:
    """Raises OSError."""
    options: dict[str, str] = {}
    ports: set[int] = set()
    for name, value in _lines(file):
        if name in ("listener", "port") and value.split():
            port = value.split()[0]
            ports |= {int(port)} if port.isdigit() else set()
        options[name] = value
    return MosquittoConfig(file, options, frozenset(ports) or frozenset({DEFAULT_PORT}))


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    for line in file.read_text("utf-8", "replace").splitlines():
        name, _, value = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        if name == "include_dir":
            for more in sorted(Path(value.strip()).glob("*.conf")):
                yield from _lines(more)
        else:
            yield name, value.strip()


def local_config(host: str, port: int) -> MosquittoConfig | None:
    """That of the Mosquitto which serves this port of this machine; None where it is another broker, runs elsewhere, or can't be read."""
    if not _is_here(host):
        return None
    for file in _running():
        try:
            config = read_config(file)
        except OSError:
            continue
        if port in config.ports:
            return config
    return None


def _is_here(host: str) -> bool:
    return host in ("localhost", "::1", socket.gethostname(), socket.getfqdn()) or host.startswith("127.")


def _running() -> Iterator[Path]:
    """The files that running Mosquittos were started with."""
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            folder = (entry / "cwd").readlink() if "-c" in words else Path()
        except OSError:
            continue
        if words[0].rpartition("/")[2] == _PROGRAM and "-c" in words[:-1]:
            yield folder / words[words.index("-c") + 1]
