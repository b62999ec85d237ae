"""Two consoles on one database, behind one address: a login, its lock and its streams are at home at both."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from iot_platform.api.limits import FREE_FAILURES
from iot_platform.local.ports import free_ports
from iot_platform.settings import exports
from iot_platform_tests.integration.test_live_process import Stream, send
from iot_platform_tests.support.feeds.tenants import OWN
from iot_platform_tests.support.servers.console import PASSWORD, Browser, Console, path_of
from iot_platform_tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def replicas(console: Console) -> Iterator[tuple[int, int]]:
    """Ports of two `iot console serve`."""
    first, second = free_ports(2)
    with ExitStack() as stack:
        for port in (first, second):
            environment = {**os.environ, **exports(console.settings.model_copy(update={"console_port": port}))}
            process = stack.enter_context(subprocess.Popen([sys.executable, "-m", "iot_platform.api"], env=environment))
            stack.callback(process.kill)
        for port in (first, second):
            eventually(lambda port=port: _ready(port), 120)
        yield first, second


def _ready(port: int) -> bool:
    try:
        return Browser(port).ask("//readyz").status == 200
    except OSError:
        return False


def test_a_session_of_one_is_one_of_the_other_until_it_ends(replicas: tuple[int, int]) -> None:
    first, second = replicas
    browser = Browser(first).log_in("boss")
    other = Browser(second, cookies=browser.cookies, csrf=browser.csrf)
    assert other.ask("/session").document["csrf_token"] == browser.csrf
    assert other.ask(path_of(OWN, "/api-keys"), "POST", {"name": "replica"}).status == 201
    assert "replica" in {key["name"] for key in browser.ask(path_of(OWN, "/api-keys")).document["keys"]}
    assert other.ask("/session", "DELETE").status == 204
    assert browser.ask("/session").problem == "not-logged-in"


@pytest.mark.parametrize("name", ["own", "nobody"])
def test_wrong_passwords_at_one_lock_a_name_at_the_other(replicas: tuple[int, int], name: str) -> None:
    """Of a user, and of a name that nobody has: it must not be told from a user's by asking another console."""
    browsers = [Browser(port) for port in replicas]
    wrong = {"name": name, "password": "wrong"}
    for number in range(FREE_FAILURES):
        assert browsers[number % 2].ask("/session", "POST", wrong).problem == "wrong-password"
    for browser in browsers:
        answer = browser.ask("/session", "POST", wrong | {"password": PASSWORD})
        assert (answer.problem, 50 < int(answer.headers["retry-after"]) <= 61) == ("locked", True)


def test_who_comes_through_a_proxy_finds_no_metrics(replicas: tuple[int, int]) -> None:
    for path in ("//metrics", "//healthz", "//readyz"):
        assert Browser(replicas[0]).ask(path).status == 200
        assert Browser(replicas[0]).ask(path, headers={"X-Forwarded-For": "192.0.2.1"}).problem == "not-found"


def test_a_stream_that_comes_back_to_the_other_begins_with_what_there_is(replicas: tuple[int, int], console: Console) -> None:
    """Its id is the first one's: the second says to load the series, after which nothing is missing."""
    stream = Stream(replicas[0], console.key)
    stream.follow("state")
    at_first, stream.port = stream.last, replicas[1]
    assert at_first
    send(console.settings, 1.5)
    stream.follow("resync")
    assert (stream.resyncs, stream.last != at_first, stream.ended) == (2, True, False)
    send(console.settings, 2.5)
    stream.follow("values", 2.5)
    assert ("pump-0", 2.5) in stream.shown
