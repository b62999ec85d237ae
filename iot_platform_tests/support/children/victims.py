"""Retention, deletion, export and rollups in forks of one process, which are killed (SIGKILL) at a point or while they wait."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress

import psycopg2
import pytest

from iot_platform.drills.rig.wire import Point
from iot_platform.settings import Settings
from iot_platform_tests.support.children.killer import SECONDS, Killer
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.waiting import eventually

BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^(iot-|rollup)'"


class Victims:
    """Runs work of children.lifecycle in processes that are killed."""

    def __init__(self, process: "subprocess.Popen[str]", settings: Settings, killer: Killer) -> None:
        self._process, self._settings, self._killer = process, settings, killer
        self._running = 0

    def die(self, work: str, point: Point, text: str, number: int, *arguments: str) -> None:
        """Killed at a point of the n-th statement that contains the text, or of its transaction."""
        fault = self._killer.arm(point, text, number)
        process = self._start(work, arguments)
        assert fault.reached.wait(SECONDS), f"'{point}' of '{text}' was never reached"
        os.kill(process, signal.SIGKILL)
        fault.cut()
        self._ended()

    def die_at_rename(self, work: str, point: str, text: str, number: int, *arguments: str) -> None:
        """It kills itself; see children.lifecycle."""
        self._start(work, arguments, (point, text, number))
        self._ended()

    def die_within(self, work: str, table: str, *arguments: str) -> None:
        """Killed while its statement waits, halfway, to change this table; the server then ends the statement and finds nobody there."""
        with closing(psycopg2.connect(self._settings.admin_url)) as blocker:
            blocker.cursor().execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            process = self._start(work, arguments)
            eventually(lambda: query(self._settings, BLOCKED) == [(1,)])
            os.kill(process, signal.SIGKILL)
            self._ended()
        eventually(lambda: query(self._settings, SESSIONS) == [(0,)])

    def _start(self, work: str, arguments: tuple[str, ...], rename: tuple[str, str, int] | None = None) -> int:
        order = {"work": work, "rename": rename, "arguments": arguments, "environment": self._killer.environment(self._settings)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._running = self._read()
        return self._running

    def _ended(self) -> None:
        status, self._running = self._read(), 0
        assert status == -signal.SIGKILL, f"exit status {status}: it was not killed, the point was never reached"

    def close(self) -> None:
        """End one that a failed test left."""
        if self._running:
            with suppress(ProcessLookupError):
                os.kill(self._running, signal.SIGKILL)
            self._read()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def lifecycle_process() -> "Iterator[subprocess.Popen[str]]":
    """The one that forks: it has imported everything."""
    command = [sys.executable, "-W", "ignore", "-m", "iot_platform_tests.support.children.lifecycle"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
        yield made
        assert made.stdin is not None
        made.stdin.close()


@pytest.fixture
def victims(lifecycle_process: "subprocess.Popen[str]", settings: Settings, killer: Killer) -> Iterator[Victims]:
    """On the test's database."""
    made = Victims(lifecycle_process, settings, killer)
    yield made
    made.close()
