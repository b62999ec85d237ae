"""One supervisord per local stack: its files, its life and its XML-RPC interface."""

import contextlib
import ctypes
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xmlrpc.client
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iot_platform.local.errors import LocalStackError
from iot_platform.local.program import MARKER, Program

_PR_SET_PDEATHSIG = 1
_RESTART_SECONDS = 2.5  # the time of death is in whole seconds
_UNIX_PATH_LIMIT = 100  # sun_path holds 108 bytes; servers append a few characters of their own


@dataclass(frozen=True)
class State:
    """What supervisord says of a program; `stopped_at` (epoch seconds) moves with every death of its process.

    `exit_status` is only known of programs that lived for a second.
    """

    name: str
    pid: int
    started_at: int
    stopped_at: int
    exit_status: int
    spawn_error: str

    @property
    def at_rest(self) -> bool:
        """Whether it has ended and stays so: a program that has just died is started again within about a second."""
        return self.name in ("STOPPED", "FATAL") or (self.name == "EXITED" and time.time() - self.stopped_at > _RESTART_SECONDS)


def socket_path(local_dir: Path, name: str) -> Path:
    """A Unix socket in the run folder, or in a private temporary folder where that path would be too long."""
    path = local_dir / "run" / name
    if len(str(path)) <= _UNIX_PATH_LIMIT:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
    digest = hashlib.sha256(str(local_dir).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"iot-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise LocalStackError(f"{folder} belongs to somebody else; set IOT_LOCAL_DIR to a shorter path")
    return folder / name


class Supervisor:
    """Starts supervisord on demand and keeps programs running in it. Thread-safe; calls block for at most a few seconds."""

    def __init__(self, local_dir: Path, *, die_with_parent: bool = False) -> None:
        """With `die_with_parent`, supervisord stops everything when the calling process ends, however it ends."""
        self.local_dir = local_dir
        self.run_dir = local_dir / "run"
        self.log_dir = local_dir / "logs"
        self._die_with_parent = die_with_parent
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    # -- life ------------------------------------------------------------------------------------------------
    def ensure_running(self) -> None:
        """Start supervisord unless it answers already."""
        for folder in (self.local_dir, self.run_dir, self.log_dir, self.run_dir / "programs"):
            folder.mkdir(parents=True, exist_ok=True)
        if self.alive():
            return
        for stale in (self.run_dir / "programs").iterdir():
            stale.unlink()
        config = self.run_dir / "supervisord.conf"
        config.write_text(self._config(), "utf-8")
        with (self.log_dir / "supervisord.out").open("ab") as out:
            process = self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-n", "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.run_dir,
                start_new_session=True,
                env={**os.environ, MARKER: str(self.local_dir)},
                preexec_fn=_die_with_parent if self._die_with_parent else None,  # noqa: PLW1509 - sets one flag, touches no lock
            )
        deadline = time.monotonic() + 20
        while not self.alive():
            if process.poll() is not None or time.monotonic() > deadline:
                raise LocalStackError(f"the supervisor did not start; see {self.log_dir}/supervisord.out")
            time.sleep(0.05)

    def alive(self) -> bool:
        """Whether supervisord answers."""
        try:
            return bool(self._call("getState")["statename"] == "RUNNING")
        except (OSError, xmlrpc.client.Error, ConnectionError):
            return False

    @property
    def pid(self) -> int:
        """Process id of supervisord, which runs."""
        return int(self._call("getPID"))

    def shutdown(self, waves: Sequence[Sequence[str]] = ()) -> None:
        """Stop the programs wave by wave, then the rest, then supervisord; returns when it has gone."""
        if not self.alive():
            return
        for wave in waves:
            self.stop(*wave)
        pid = self.pid
        with contextlib.suppress(xmlrpc.client.Fault, OSError):
            self._call("shutdown")
        while _exists(pid, self._process):
            time.sleep(0.05)

    # -- programs --------------------------------------------------------------------------------------------
    def apply(self, program: Program) -> None:
        """Run the program as described: start it, restart it if it changed, leave it alone otherwise."""
        spec = self.run_dir / f"{program.name}.json"
        with self._lock:
            _write_private(spec, program.spec())
            (self.run_dir / "programs" / f"{program.name}.conf").write_text(self._section(program, spec), "utf-8")
            added, changed, _ = self._call("reloadConfig")[0]
        if program.name in changed:
            self.stop(program.name)
            self._call("removeProcessGroup", program.name)
        if program.name in changed or program.name in added:
            self._call("addProcessGroup", program.name)
        if self.state(program.name).name in ("STOPPED", "EXITED", "FATAL"):
            with contextlib.suppress(xmlrpc.client.Fault):  # another call started it meanwhile
                self._call("startProcess", program.name, False)

    def remove(self, name: str) -> None:
        """Stop a program and forget it; nothing happens when there is none."""
        (self.run_dir / "programs" / f"{name}.conf").unlink(missing_ok=True)
        (self.run_dir / f"{name}.json").unlink(missing_ok=True)
        if name in self.states():
            self.stop(name)
            with self._lock:
                self._call("reloadConfig")
            self._call("removeProcessGroup", name)

    def stop(self, *names: str) -> None:
        """Stop programs together and wait until they have ended; nothing happens without supervisord."""
        while waiting := {name: state for name, state in self.states().items() if name in names and not state.at_rest}:
            for name, state in waiting.items():
                if state.name != "STOPPING":
                    with contextlib.suppress(xmlrpc.client.Fault, OSError):  # it has just ended; no supervisord
                        self._call("stopProcess", name, False)
            time.sleep(0.05)

    def states(self) -> dict[str, State]:
        """All programs that supervisord knows; empty when it does not run."""
        try:
            rows: list[dict[str, Any]] = self._call("getAllProcessInfo")
        except (OSError, xmlrpc.client.Error):
            return {}
        return {
            row["name"]: State(row["statename"], row["pid"], row["start"], row["stop"], row["exitstatus"], row["spawnerr"]) for row in rows
        }

    def state(self, name: str) -> State:
        """One program's state; STOPPED when it is unknown."""
        return self.states().get(name, State("STOPPED", 0, 0, 0, 0, ""))

    def log_file(self, name: str) -> Path:
        """Where the program's output goes."""
        return self.log_dir / f"{name}.log"

    # -- private ---------------------------------------------------------------------------------------------
    def _call(self, method: str, *arguments: object) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{socket_path(self.local_dir, 'supervisor.sock')}")
        try:
            return getattr(xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor, method)(*arguments)
        finally:
            transport.close()

    def _config(self) -> str:
        def text(value: object) -> str:
            return str(value).replace("%", "%%")

        return f"""[supervisord]
logfile={text(self.log_dir)}/supervisord.log
logfile_maxbytes=5MB
logfile_backups=1
pidfile={text(self.run_dir)}/supervisord.pid
childlogdir={text(self.log_dir)}
umask=077
silent=true
{"user=root" if os.geteuid() == 0 else ""}

[unix_http_server]
file={text(socket_path(self.local_dir, "supervisor.sock"))}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[include]
files={text(self.run_dir)}/programs/*.conf
"""

    def _section(self, program: Program, spec: Path) -> str:
        def text(value: object) -> str:
            return str(value).replace("%", "%%")

        return f"""[program:{program.name}]
command="{text(sys.executable)}" -m iot_platform.local.launch "{text(spec)}"
directory={text(program.directory)}
environment=IOT_PROGRAM_DIGEST="{program.digest()}",PYTHONPATH="{text(Path(__file__).resolve().parents[2])}"
autostart=false
autorestart={str(program.restart).lower()}
startsecs=1
startretries=1000
stopsignal={program.stop_signal}
stopwaitsecs={program.stop_seconds}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={text(self.log_file(program.name))}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _write_private(path: Path, content: str) -> None:
    temporary = path.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
    temporary.rename(path)


def _exists(pid: int, child: "subprocess.Popen[bytes] | None") -> bool:
    if child is not None and child.pid == pid:
        return child.poll() is None  # collects it: a zombie would look alive
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
