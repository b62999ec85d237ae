"""`iot acceptance` and servers that are not what they should be: never a traceback, never green, and nothing is sent to strangers."""

import json
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iot_platform.acceptance import cluster, http
from iot_platform.acceptance.check import Check, FailedError, Verdict
from iot_platform.acceptance.plan import WEEKS
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.certificates import Authority

CHECKS = {check.name: check for week in WEEKS for check in week.checks}
BY_HTTP = ("harbor", "images", "dagster", "targets", "alerts", "dashboards")
OF_CLUSTER = ("nodes", "workloads", "registry", "reach", "argocd", "autoscaler")


def answer(status: str, body: bytes, kind: str = "application/json", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


PAGE = b"<!doctype html><title>Log in</title><form action=/login></form> Pong"
ODD: dict[str, bytes | None] = {
    "a login page": answer("200 OK", PAGE, "text/html"),
    "on to a login page": answer("302 Found", b"", "text/html", "Location: /login"),
    "on and on": answer("302 Found", b"", "text/html", "Location: /a"),
    "a proxy's error": answer("502 Bad Gateway", PAGE, "text/html"),
    "half an error": answer("500 Oops", b"{", length=1000),
    "an error in another encoding": answer("403 Verboten", b"\xff\xfe", "text/plain"),
    "half an answer": answer("200 OK", b'{"da', length=1000),
    "nothing": answer("200 OK", b""),
    "null": answer("200 OK", b"null"),
    "a list": answer("200 OK", b"[1]"),
    "an object": answer("200 OK", b"{}"),
    "a text": answer("200 OK", b'"text"'),
    "null within": answer("200 OK", b'{"data":null,"items":null,"kind":"List","database":"ok","tags":null}'),
    "other things within": answer("200 OK", b'{"data":{"activeTargets":[{}],"groups":[{}]},"items":[{}],"database":"ok","tags":[]}'),
    "another protocol": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "a closed connection": b"",
    "silence": None,
}


@contextmanager
def serving(respond: Callable[[str], bytes | None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that gives these bytes for a request (None: none at all) and closes; its port."""
    over = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                connection = tls.wrap_socket(self.request, server_side=True) if tls else self.request
                request = b""
                while b"\r\n\r\n" not in request:
                    if not (part := connection.recv(65536)):
                        return
                    request += part
                said = respond(request.decode("latin-1"))
                if said is None:
                    over.wait()
                else:
                    connection.sendall(said)
            except OSError:
                pass  # it is the other side that is asked here

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            over.set()
            server.shutdown()


def kubeconfig(file: Path, url: str, **user: object) -> Path:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": user}],
        "current-context": "c",
    }
    file.write_text(json.dumps(document))
    return file


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Settings]:
    """Settings by which everything is at one address."""
    for module in (http, cluster):
        monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr("iot_platform.local.probes._TIMEOUT_SECONDS", 0.3)
    (tmp_path / "login").write_text("robot$rke2-puller:secret")

    def settings(url: str) -> Settings:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", url)))
        login = tmp_path / "login"
        return Settings(
            local_dir=tmp_path, harbor_url=url, prometheus_url=url, grafana_url=url, dagster_url=url, harbor_login_file=login,
            grafana_login_file=login,
        )  # fmt: skip

    return settings


def verdicts(settings: Settings, *names: str) -> dict[str, Verdict]:
    return {name: CHECKS[name].run(settings) for name in names}


@pytest.mark.parametrize("odd", ODD)
def test_nothing_is_green_and_nothing_breaks(world: Callable[[str], Settings], odd: str) -> None:
    with serving(lambda _: ODD[odd]) as port:
        found = verdicts(world(f"http://127.0.0.1:{port}"), *BY_HTTP, *OF_CLUSTER)
    assert {name: verdict for name, verdict in found.items() if verdict.state != "failed"} == {}
    assert all(verdict.text and verdict.remedy for verdict in found.values())


def test_a_login_is_sent_nowhere_else(world: Callable[[str], Settings]) -> None:
    """A redirect is named, and not followed: neither with the login, nor to a page that looks well."""
    asked: list[str] = []

    def stranger(request: str) -> bytes:
        asked.append(request)
        return answer("200 OK", PAGE, "text/html")

    with (
        serving(stranger) as other,
        serving(lambda _: answer("302 Found", b"", "text/html", f"Location: http://127.0.0.1:{other}/x")) as port,
    ):
        found = verdicts(world(f"http://127.0.0.1:{port}"), "harbor", "images", "targets", "alerts", "dashboards")
    assert asked == []
    assert all(f"sends on to http://127.0.0.1:{other}/x" in verdict.text for verdict in found.values())


def test_a_certificate_that_nobody_trusts(world: Callable[[str], Settings], tmp_path: Path) -> None:
    pair = Authority(tmp_path / "authority").issue(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    with serving(lambda _: answer("200 OK", b"{}"), context) as port:
        found = verdicts(world(f"https://127.0.0.1:{port}"), *BY_HTTP, *OF_CLUSTER)
    assert {verdict.state for verdict in found.values()} == {"failed"}
    assert all("certificate verify failed" in verdict.text for verdict in found.values()), found


@pytest.mark.parametrize("content", [b"", b"[1]", b"a: [", b"\xff\xfe\x00", b"clusters: null\ncurrent-context: c", b"current-context: c"])
def test_a_kubeconfig_that_is_none(
    world: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    settings = world("http://127.0.0.1:1")
    (tmp_path / "odd").write_bytes(content)
    for file in (tmp_path / "odd", tmp_path):
        monkeypatch.setenv("KUBECONFIG", str(file))
        assert CHECKS["nodes"].run(settings).state == "not checked"


@pytest.mark.parametrize(
    "user", [{"exec": {"command": "no-such-program", "apiVersion": "client.authentication.k8s.io/v1"}}, {"tokenFile": "/no/such"}]
)
def test_a_kubeconfig_whose_login_is_not_here(world: Callable[[str], Settings], tmp_path: Path, user: dict[str, object]) -> None:
    settings = world("http://127.0.0.1:1")
    kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1", **user)
    assert CHECKS["nodes"].run(settings).state in ("failed", "not checked")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"a\nb", b"{}", b'{"name": "n"}', b"[]\x00"])
def test_a_login_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "login").write_bytes(content)
    with pytest.raises(FailedError, match="login"):
        http.login(tmp_path / "login", "IOT_GRAFANA_LOGIN_FILE")


def test_a_check_that_breaks_ends_itself_only() -> None:
    def breaks(_: Settings) -> str:
        raise RuntimeError("odd\nthing")

    assert Check("odd", "", breaks).run(Settings()).text == "an answer that nobody expected (RuntimeError: odd thing)"
