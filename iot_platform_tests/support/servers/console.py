"""The console on the test's platform: the real server, in a thread, with a user and a key for one of two tenants."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from iot_platform.accounts import keys, tenants, users
from iot_platform.api.limits import Buckets
from iot_platform.api.server import make_server
from iot_platform.api.state import State
from iot_platform.database import connect
from iot_platform.settings import Settings
from iot_platform.tenants import access, console_login
from iot_platform_tests.support.feeds.tenants import OTHER, OWN, send_directly
from iot_platform_tests.support.servers.stack import Servers, own_database
from iot_platform_tests.support.waiting import eventually

PASSWORD = "correct horse battery"
ROOT = "/api/v1"
USERS: tuple[tuple[str, str, users.Role], ...] = (
    ("own", OWN, "viewer"),
    ("operator", OWN, "operator"),
    ("boss", OWN, "admin"),
    ("other", OTHER, "admin"),
)


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The slug of a problem."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.document["status"] == self.status
        return str(self.document["type"]).removeprefix("/problems/")


@dataclass
class Browser:
    """One who keeps cookies and sends the CSRF token; `key`: an API key instead."""

    port: int
    key: str = ""
    cookies: dict[str, str] = field(default_factory=dict)
    csrf: str = ""

    def ask(self, path: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None, **parameters: str) -> Answer:
        """One request; the path is below /api/v1 unless it is absolute (//healthz)."""
        target = path[1:] if path.startswith("//") else ROOT + path
        if parameters:
            target += "?" + urlencode({name.rstrip("_"): value for name, value in parameters.items()})
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}
        sent |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        sent |= {"X-CSRF-Token": self.csrf} if self.csrf else {}
        sent |= {"Content-Type": "application/json"} if body is not None else {}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, target, data, sent | (headers or {}))
            response = connection.getresponse()
            for name, value in response.getheaders():
                if name.lower() == "set-cookie":
                    cookie, _, content = value.partition(";")[0].partition("=")
                    self.cookies[cookie] = content
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    def log_in(self, name: str, password: str = PASSWORD) -> "Browser":
        """Begin a session."""
        answer = self.ask("/session", "POST", {"name": name, "password": password})
        assert answer.status == 204, answer
        self.csrf = self.ask("/session").document["csrf_token"]
        return self


@dataclass
class Console:
    """A served console."""

    settings: Settings
    state: State
    port: int
    loop: asyncio.AbstractEventLoop
    key: str

    def browser(self, name: str = "") -> Browser:
        """Somebody new; with a name, logged in."""
        browser = Browser(self.port)
        return browser.log_in(name) if name else browser

    def user(self, name: str, role: users.Role = "viewer") -> Browser:
        """A new user of OWN, logged in, for a test that changes what he is."""
        with closing(connect(self.settings, "admin")) as owner:
            users.add(owner, name, PASSWORD, tenants=[(OWN, role)], by="test")
        return self.browser(name)

    @property
    def reader(self) -> Browser:
        """A program with the API key of OWN."""
        return Browser(self.port, self.key)

    def run(self, work: Any) -> Any:
        """A coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


@pytest.fixture(scope="module")
def console(servers: Servers, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A platform with two tenants whose messages were decoded and written without Kafka, once for all tests of a module: users own
    (viewer), operator and boss (admin, manages users) of OWN, other of OTHER; a key of OWN. Tests that change users make their own."""
    with own_database(servers, template_database, tmp_path_factory.mktemp("console")) as settings:
        send_directly(settings)
        with closing(connect(settings, "admin")) as owner:
            secret = console_login.read_key(settings)
            for name, tenant, role in USERS:
                users.add(owner, name, PASSWORD, administrator=name == "boss", by="test")
                tenants.grant(owner, secret, name, tenant, role, by="test")
            _, key = keys.add(owner, OWN, "reports", by="test")
        try:
            yield from _served(settings, key)
        finally:
            with closing(connect(settings, "admin")) as owner:  # roles belong to the server, which later tests use, too
                for tenant in (OWN, OTHER):
                    access.revoke(owner, tenant, console=True)


def _served(settings: Settings, key: str) -> Iterator[Console]:
    state = State(settings)
    state.prepare()
    state.requests = Buckets(1e6, 1e6)  # tests ask more quickly than people
    state.logins = Buckets(1e6, 1e6)
    server = make_server(state)
    listening = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve([listening]),), daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield Console(settings, state, listening.getsockname()[1], loop, key)
    finally:
        loop.call_soon_threadsafe(state.stopping.set)
        server.should_exit = True
        thread.join(30)
        loop.close()


def path_of(tenant: str, rest: str) -> str:
    """The address of something of a tenant."""
    return f"/tenants/{quote(tenant, safe='')}{rest}"
