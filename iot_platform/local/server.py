"""What the local MQTT broker, Kafka and PostgreSQL have in common."""

import contextlib
import os
import time
from collections.abc import Callable
from threading import Event
from typing import Protocol

from iot_platform.local.errors import GivenUpError, LocalStackError, NotReadyError
from iot_platform.local.install import Note
from iot_platform.local.program import Program
from iot_platform.local.supervisor import Supervisor

_DEATHS_BEFORE_GIVING_UP = 2


class Server(Protocol):
    """A server that the local stack installs, configures and runs."""

    @property
    def name(self) -> str:
        """Name of its program."""

    def missing_packages(self) -> dict[str, str]:
        """Debian packages that the machine lacks → why they are needed. LocalStackError when packages can't help."""

    def prepare(self, note: Note) -> None:
        """Download and configure; may take minutes the first time, repeating it is harmless."""

    def program(self) -> Program:
        """What the supervisor runs; after `prepare`."""

    def check(self) -> None:
        """Raise NotReadyError unless the server serves."""

    def provision(self, note: Note) -> None:
        """Create what must exist inside the running server; repeating it is harmless."""


def start(server: Server, supervisor: Supervisor, note: Note, *, abort: Event, seconds: float = 90) -> None:
    """Prepare, run, await and provision a server."""
    server.prepare(note)
    supervisor.apply(server.program())
    await_ready(server.name, server.check, supervisor, note, abort=abort, seconds=seconds)
    server.provision(note)


def await_ready(name: str, check: Callable[[], None], supervisor: Supervisor, note: Note, *, abort: Event, seconds: float = 90) -> None:
    """Wait until the check passes.

    Raises:
        LocalStackError: the program keeps dying, or is not ready in time; the message has the last lines of its log.
    """
    deadline = time.monotonic() + seconds
    deaths: set[int] = set()
    while not abort.wait(0.1):
        state = supervisor.state(name)
        if state.stopped_at > state.started_at or state.name in ("BACKOFF", "EXITED", "FATAL"):
            deaths.add(state.stopped_at)
        if len(deaths) >= _DEATHS_BEFORE_GIVING_UP or state.name == "FATAL":
            raise LocalStackError(died(name, supervisor, "does not stay up"))
        try:
            check()
        except NotReadyError as error:
            note(f"waiting: {error}")
            if time.monotonic() > deadline:
                raise LocalStackError(died(name, supervisor, f"is not ready after {seconds:.0f} s: {error}")) from error
        else:
            if state.name in ("RUNNING", "STARTING"):
                return
    raise GivenUpError(f"{name}: given up because another component failed")


def died(name: str, supervisor: Supervisor, what: str, lines: int = 8) -> str:
    """The sentence about a component that does not work, with the end of its log."""
    log = supervisor.log_file(name)
    tail = ""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
        tail = "\n  ".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    return f"{name} {what}. The end of {log}:\n  {tail}"
