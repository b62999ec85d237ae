"""The console's pages in Chromium, on the whole running platform; the tests are in console/browser."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from iot_platform.accounts import tenants, users
from iot_platform.database import connect
from iot_platform.local import applications, probes
from iot_platform.settings import Settings, exports
from iot_platform.tenants import console_login
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.plant import DEVICE, PROJECT, TENANT, TOPIC, publish_past, publisher, readings
from iot_platform_tests.support.servers.stack import Dagster, Ingest, Programs
from iot_platform_tests.support.waiting import eventually

CONSOLE = Path(__file__).parents[2] / "console"
PASSWORD = "correct horse battery"
ROLES: tuple[users.Role, ...] = ("viewer", "operator", "admin")
INCIDENT = """
INSERT INTO quality_incident (opened_at, last_seen_at, told_at, clear_seconds, hold_seconds, rule, tenant_id, project_id, device_id, metric,
    severity, message)
VALUES (now(), now(), now(), 0, 0, 'range', %s, %s, %s, 'temperature', 'WARN', '99 is above 85, and 3 more values are outside')"""
pytestmark = [
    pytest.mark.console,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed (Debian: apt-get install nodejs npm)"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]


@pytest.fixture
def running(settings: Settings, ingest: Ingest, dagster: Dagster, programs: Programs) -> Iterator[dict[str, str]]:
    """The platform with a day of data and a value a second; the environment of the browser's tests."""
    ingest.start()
    dagster.start()
    with closing(connect(settings, "admin")) as owner:
        secret = console_login.read_key(settings)
        for role in ROLES:
            users.add(owner, role, PASSWORD, administrator=role == "admin", by="test")
    count = publish_past(settings)
    eventually(
        lambda: query(settings, "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM quarantine)") == [(count,)], seconds=300
    )
    with closing(connect(settings, "admin")) as owner:
        query(settings, INCIDENT, TENANT, PROJECT, DEVICE)
        for role in ROLES:
            tenants.grant(owner, secret, role, TENANT, role, by="test")
    program = applications.console(settings)
    program = replace(program, environment={**program.environment, **exports(settings)}, restart=True)
    url = f"http://127.0.0.1:{settings.console_port}"
    programs.start(program, partial(probes.http, f"{url}/readyz"))
    stop = threading.Event()
    feed = threading.Thread(target=_feed, args=(settings, stop))
    feed.start()
    control = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Control, programs))
    threading.Thread(target=control.serve_forever).start()
    yield {
        "CONSOLE_URL": url, "CONSOLE_TENANT": TENANT, "CONSOLE_PROJECT": PROJECT, "CONSOLE_DEVICE": DEVICE, "CONSOLE_PASSWORD": PASSWORD,
        "CONSOLE_CONTROL": f"http://127.0.0.1:{control.server_port}",
    }  # fmt: skip
    control.shutdown()
    control.server_close()
    stop.set()
    feed.join()


class _Control(BaseHTTPRequestHandler):
    """POST /kill: kill -9 of the console, which the supervisor does not bring back; POST /start: until it is ready again."""

    def __init__(self, programs: Programs, *arguments: Any) -> None:
        self._programs = programs
        super().__init__(*arguments)

    def do_POST(self) -> None:
        """The name is http.server's."""
        if self.path == "/kill":
            self._programs.kill("console")
            self._programs.stop("console")
        else:
            self._programs.restart("console")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the browser's tests say what they asked for."""


def _feed(settings: Settings, stop: threading.Event) -> None:
    """A value a second, until told to stop."""
    with publisher(settings) as client:
        while not stop.wait(1):
            client.publish(TOPIC, json.dumps(readings(time.time())), qos=1)


def test_pages(running: dict[str, str]) -> None:
    command = ["node", "node_modules/vitest/vitest.mjs", "run", "--config", "vitest.browser.config.ts"]
    done = subprocess.run(command, cwd=CONSOLE, env={**os.environ, **running}, check=False, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
