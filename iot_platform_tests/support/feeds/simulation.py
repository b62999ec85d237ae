"""A simulation as a process of its own, as `iot simulate` runs it, and waiting until the platform has taken everything in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.diagnostics.status import Status, collect
from iot_platform.settings import Settings, exports
from iot_platform.simulator.record import Published, read_record
from iot_platform_tests.support.waiting import eventually


class Simulation:
    """`iot simulate … --record` on the test's settings; one at a time, as often as wanted."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self.published: list[Published] = []

    def start(self, *options: str) -> "Simulation":
        """Begin to publish."""
        record = self._folder / "published.jsonl"
        command = [sys.executable, "-m", "iot_platform.cli.main", "simulate", *options, "--record", str(record)]
        environment = {**os.environ, **exports(self._settings)}
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return self

    def finish(self, seconds: float = 120) -> list[Published]:
        """Wait for its end, which must be a success: every message acknowledged. Returns all that was published, in order."""
        assert self._process is not None
        output, _ = self._process.communicate(timeout=seconds)
        assert self._process.returncode == 0, output
        self.published += sorted(read_record(self._folder / "published.jsonl"), key=lambda item: item.message.number)
        return self.published

    @property
    def running(self) -> bool:
        """Whether it still publishes."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End it, however far it is."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
def simulation(settings: Settings, tmp_path: Path) -> Iterator[Simulation]:
    """A simulation, not started yet."""
    made = Simulation(settings, tmp_path)
    yield made
    made.close()


@pytest.fixture
def database(settings: Settings) -> Iterator[Connection]:
    """A connection to the test's database as its owner, autocommit."""
    connection = psycopg2.connect(settings.admin_url)
    connection.autocommit = True
    yield connection
    connection.close()


def count(connection: Connection, query: str) -> int:
    """The one number that a query returns."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def stored_messages(connection: Connection) -> int:
    """Records in message ∪ quarantine, redeliveries aside."""
    return count(
        connection,
        "SELECT (SELECT count(*) FROM message WHERE duplicate_of IS NULL) + (SELECT count(*) FROM quarantine WHERE duplicate_of IS NULL)",
    )


def await_everything_stored(settings: Settings, connection: Connection, messages: int, seconds: float = 90) -> Status:
    """Until at least so many messages are stored, no lag is left and the daemon has nothing in flight."""
    eventually(
        lambda: stored_messages(connection) >= messages,
        seconds,
        lambda: (f"{messages} messages stored", f"stored: {stored_messages(connection)}"),
        pause=0.1,
    )
    found: list[Status] = []

    def quiet() -> bool:
        found[:] = [collect(settings)]
        return bool(found[0].lag) and not any((found[0].lag or {0: 1}).values()) and found[0].in_flight == 0

    eventually(quiet, 30, lambda: ("no lag and nothing in flight", found), pause=0.1)
    return found[0]
