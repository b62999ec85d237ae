"""A program under the supervisor: what is run, with which environment, and when a change means a restart."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MARKER = "IOT_LOCAL_STACK"
_PASSED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
    *("JAVA_HOME", "JAVA_TOOL_OPTIONS", "KAFKA_HOME"),
)
_PASSED_ON_PREFIXES = ("IOT_", "LC_", "DAGSTER_", "SSL_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Program:
    """One supervised process.

    `fingerprint` stands for everything else that the process reads at its start (settings files, code): when it
    differs from that of the running process, the process is restarted.
    """

    name: str
    command: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_seconds: int = 20
    fingerprint: str = ""
    restart: bool = True  # after a death that nobody asked for

    def spec(self) -> str:
        """The JSON that `iot_platform.local.launch` executes."""
        parts = {"command": self.command, "environment": dict(self.environment), "fingerprint": self.fingerprint}
        return json.dumps(parts, sort_keys=True)

    def digest(self) -> str:
        """Equal for two programs that need no restart between them."""
        return hashlib.sha256(self.spec().encode()).hexdigest()[:16]


def base_environment(local_dir: Path) -> dict[str, str]:
    """What every program inherits: the user's paths, locale, proxies and `IOT_*`, and a mark by which leftovers are found."""
    passed = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)}
    return passed | {MARKER: str(local_dir), "IOT_LOCAL_DIR": str(local_dir), "PYTHONUNBUFFERED": "1"}


def newest_change(*folders: Path) -> str:
    """Changes whenever a source file below the folders does."""
    files = (path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".sql", ".yaml", ".graphql"))
    return str(max((path.stat().st_mtime_ns for path in files), default=0))
