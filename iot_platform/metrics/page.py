"""/metrics and /healthz of `iot metrics`. The content type is exact: Prometheus 3 refuses a page without."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from iot_platform.metrics.exporter import Exporter
from iot_platform.settings import SettingsError


def serve(exporter: Exporter, host: str, port: int) -> ThreadingHTTPServer:
    """Answer /metrics and /healthz from threads. Raises SettingsError when the port is taken."""
    registry = CollectorRegistry()
    registry.register(exporter)

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path == "/healthz":
                ok = exporter.healthy()
                self._answer(200 if ok else 503, "application/json", json.dumps({"ok": ok}).encode() + b"\n")
            else:
                self._answer(404, "text/plain; charset=utf-8", b"/metrics /healthz\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's signature
            """Quiet: scrapes come every few seconds."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise SettingsError(f"IOT_METRICS_PORT: can't listen on {host}:{port}: {error.strerror}") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, name="http", daemon=True).start()
    return server
