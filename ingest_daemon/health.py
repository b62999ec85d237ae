"""/healthz (the loop makes progress), /readyz (messages can flow, or why not), /metrics, /accounting (where every message is), /probe."""

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ingest_daemon.errors import SettingsError

# Problems, empty when all is well.
Check = Callable[[], list[str]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    healthy: Check
    ready: Check
    notices: Check
    registry: CollectorRegistry
    pages: Mapping[str, Callable[[], bytes]]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.server.registry))
        elif path in self.server.pages:
            self._answer(200, "application/json", self.server.pages[path]())
        elif path in ("/healthz", "/readyz"):
            problems = self.server.healthy() if path == "/healthz" else self.server.ready()
            notices = {"notices": self.server.notices()} if path == "/readyz" else {}
            body = json.dumps({"ok": not problems, "problems": problems, **notices}).encode() + b"\n"
            self._answer(503 if problems else 200, "application/json", body)
        else:
            self._answer(404, "text/plain; charset=utf-8", " ".join(["/healthz /readyz /metrics", *self.server.pages]).encode() + b"\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's signature
        """Quiet: probes come every few seconds."""


def start(  # noqa: PLR0917  one caller
    host: str,
    port: int,
    healthy: Check,
    ready: Check,
    notices: Check,
    registry: CollectorRegistry,
    pages: Mapping[str, Callable[[], bytes]],
) -> tuple[ThreadingHTTPServer, int]:
    """Serve from a thread; the server and the port it listens on. `notices` are said where all is well, too; `pages`: path → JSON.

    Raises:
        SettingsError: the port is taken.
    """
    try:
        server = _Server((host, port), _Handler)
    except OSError as error:
        raise SettingsError(f"IOT_INGEST_HTTP_PORT: can't listen on {host}:{port}: {error.strerror}") from error
    server.healthy, server.ready, server.notices, server.registry, server.pages = healthy, ready, notices, registry, pages
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, name="http", daemon=True).start()
    return server, int(server.server_address[1])
