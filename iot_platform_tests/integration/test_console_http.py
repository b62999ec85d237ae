"""The console as an HTTP server: strict parameters, one form of errors, headers, and an end in time."""

import http.client
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from iot_platform.api.server import STOP_SECONDS
from iot_platform.settings import exports
from iot_platform_tests.integration.test_console_reads import span
from iot_platform_tests.support.feeds.tenants import OWN
from iot_platform_tests.support.servers.console import Console, path_of
from iot_platform_tests.support.waiting import eventually

HISTORY = {"project": "plant-0", "device": "pump-0", "metric": "flow"}
WRONG_TIMES = ("1700000000", "1700000000.5", "0.5", "2026-11-30", "2026-11-30T08:00:00", "2026-11-30 08:00:00Z",
               "2026-11-30T08:00:00.1234567Z", "2026-02-30T08:00:00Z", "NaN", "inf", "now", "",
               "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00")  # fmt: skip
WRONG_NUMBERS = ("0", "-1", "1_000", "1.0", "1e2", "NaN", "inf", "1e400", "٣", " 5", "1001", "99999999999999999999", "")


def test_parameters_are_taken_as_described_or_not_at_all(console: Console) -> None:
    reader = console.reader
    for time_text in WRONG_TIMES:
        answer = reader.ask(path_of(OWN, "/history"), **HISTORY, from_=time_text, to=span()["to"])
        assert answer.problem == "invalid-parameters", time_text
        assert [error["field"] for error in answer.document["errors"]] == ["from"], time_text
    for number in WRONG_NUMBERS:
        answer = reader.ask(path_of(OWN, "/series"), limit=number)
        assert (answer.problem, [error["field"] for error in answer.document["errors"]]) == ("invalid-parameters", ["limit"]), number
    raw = f"{path_of(OWN, '/history')}?project=a&device=b&metric=c&from=2026-11-30T08:00:00+08:00&to=2026-12-01T08:00:00Z"
    assert "%2B" in reader.ask(raw).document["detail"]
    wrong = {"from_": "x", "to": "y", "zone": "z"}
    for rest, parameters in (("/series", {"limti": "5"}), ("/projects", {}), ("/history", HISTORY), ("/balance", wrong)):
        answer = reader.ask(path_of(OWN, rest), **parameters)
        assert answer.status == (200 if rest == "/projects" else 422), rest
    twice = reader.ask(path_of(OWN, "/series") + "?limit=5&limit=6")
    assert (twice.problem, twice.document["errors"][0]["field"]) == ("invalid-parameters", "limit")
    backwards = {"from_": span()["to"], "to": span()["from_"]}
    assert reader.ask(path_of(OWN, "/history"), **HISTORY, **backwards).document["errors"][0]["field"] == "to"
    long = {"from_": "1980-01-01T00:00:00Z", "to": span()["to"]}
    assert "days at most" in reader.ask(path_of(OWN, "/messages"), **long).document["detail"]
    for text in ("a%00b", "%00"):
        assert reader.ask(path_of(OWN, "/series") + f"?search={text}").problem == "invalid-parameters"
    assert reader.ask(path_of(OWN, "/series") + "?search=%ff%fe").status == 200, "no UTF-8: nothing is found"


def test_bodies(console: Console) -> None:
    browser = console.browser("boss")
    for body in (
        b"{",
        b"",
        b"[]",
        b'"x"',
        b"NaN",
        b'{"name": NaN}',
        b'{"name":"a","password":"' + b"x" * 2000 + b'"}',
        b"\xff\xfe",
        b'{"name":"\\ud800"}',
    ):
        assert browser.ask("/session", "POST", body).status in (400, 422), body
        answer = browser.ask("/users", "POST", body)
        assert answer.status in (400, 422), body
        assert "xxxx" not in answer.body.decode(), "what was sent may be a password"
    for text in ("a\x00b", "\x00"):
        user = {"name": "nul", "password": "x" * 20, "display_name": text}
        assert browser.ask("/users", "POST", user).problem == "invalid-parameters"
        assert browser.ask("/users/own", "PATCH", {"display_name": text}).problem == "invalid-parameters"
        assert browser.ask(path_of(OWN, "/api-keys"), "POST", {"name": text}).problem == "invalid-parameters"
        assert browser.ask("/session", "POST", {"name": text, "password": text}).status in (401, 422)
    assert browser.ask("/users", "POST", b'{"a":"' + b"x" * 300_000 + b'"}').problem == "too-large"
    info = path_of(OWN, "/series-info")
    for text in (b'{"valid_min": NaN}', b'{"valid_min": 1e999}', b'{"valid_min": "nan"}', b'{"unit": "a", "more": 1}'):
        assert browser.ask(info, "PUT", text, **HISTORY).status == 422, text


def test_every_error_is_a_problem(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = console.browser("own")
    for path, method, slug in (
        ("/nothing", "GET", "not-found"),
        ("/session", "PUT", "method-not-allowed"),
        (path_of(OWN, "/series"), "POST", "method-not-allowed"),
        ("//api/", "GET", "not-found"),
        ("//api/v2/x", "GET", "not-found"),
        ("//healthz/x", "GET", "not-found"),
        ("//assets/none.js", "GET", "not-found"),
        ("//index.html", "POST", "method-not-allowed"),
        (path_of(OWN, "/series/"), "GET", "not-found"),
    ):
        answer = browser.ask(path, method)
        assert answer.problem == slug, path
        assert set(answer.document) >= {"type", "title", "status", "detail"}
    monkeypatch.setattr(console.state.measures, "logins", None)
    broken = console.browser().ask("/session", "POST", {"name": "own", "password": "x" * 20})
    assert (broken.problem, "NoneType" in broken.body.decode()) == ("internal-error", False)


def test_headers_of_every_answer(console: Console) -> None:
    browser = console.browser("own")
    for path in ("/session", "/nothing", path_of(OWN, "/rules"), "//", "//t/x", "//healthz", "//metrics", "/openapi.json"):
        headers = browser.ask(path).headers
        policy = headers["content-security-policy"]
        assert "unsafe" not in policy
        assert {"default-src 'self'", "frame-ancestors 'none'", "object-src 'none'", "base-uri 'none'"} <= set(policy.split("; "))
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers
    assert "no-store" in browser.ask("/nothing").headers["cache-control"]
    assert "private" in browser.ask("/session").headers["cache-control"]


def test_head_is_get_without_a_body(console: Console) -> None:
    for path in (path_of(OWN, "/rules"), "//healthz", "/nothing"):
        get, head = console.reader.ask(path), console.reader.ask(path, "HEAD")
        assert (head.status, head.body, head.headers["content-type"]) == (get.status, b"", get.headers["content-type"])


def test_no_file_outside_the_front_end_is_served(console: Console) -> None:
    browser = console.browser()
    for path in (
        "/../settings.py",
        "/..%2fsettings.py",
        "/%2e%2e/%2e%2e/pyproject.toml",
        "//etc/passwd",
        "/a%00b.js",
        "/" + "x" * 5000,
        "/./app.py",
        "/static.py",
    ):
        with closing(http.client.HTTPConnection("127.0.0.1", console.port, timeout=30)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status in (200, 404, 503), path
            assert b"import " not in body
            assert b"root:" not in body
            assert b"[project]" not in body
    assert browser.ask("//t/" + quote(OWN)).headers["content-type"].startswith("text/html")


def test_health_readiness_and_metrics(console: Console) -> None:
    browser = console.browser("own")
    assert (browser.ask("//healthz").status, browser.ask("//readyz").status) == (200, 200)
    assert browser.ask(path_of(OWN, "/rules")).status == 200
    text = browser.ask("//metrics").body.decode()
    for sample in (
        'iot_console_requests_total{route="/tenants/{tenant}/rules",status="200"}',
        'iot_console_request_seconds_count{route="/tenants/{tenant}/rules"}',
        'iot_console_logins_total{result="ok"}',
        'iot_console_connections{whose="tenants"}',
    ):
        assert float(text.partition(sample)[2].split()[0]) >= 1, sample
    assert OWN not in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_time_with_an_answer_half_read(console: Console, tmp_path: Path, number: signal.Signals) -> None:
    """Somebody downloads and does not read on, somebody uploads and does not go on: told to stop, the process is gone, with status 0. It
    would wait for them for ever."""
    environment = {**os.environ, **exports(console.settings), "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-m", "iot_platform.api"], env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
    port = console.settings.console_port
    try:
        eventually(lambda: _answers(port), seconds=120)
        with (
            closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as slow,
            closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as held,
        ):
            slow.request("GET", "/api/v1/openapi.json")
            held.putrequest("POST", "/api/v1/session")
            held.putheader("Content-Type", "application/json")
            held.putheader("Content-Length", "100")
            held.endheaders(b'{"name":')  # the rest never comes
            process.send_signal(number)
            assert process.wait(STOP_SECONDS + 20) == 0
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
    except OSError:
        return False
