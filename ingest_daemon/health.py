"""/healthz (the loop makes progress), /readyz (messages can flow, or why not), /metrics, /accounting (where every message is), /probe."""

import json
from collections.abc import Callable, Mapping
from http.server import ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ingest_daemon.http_page import JSON, TEXT, Page, serve

# Problems, empty when all is well.
Check = Callable[[], list[str]]


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

    class Health(Page):
        def do_GET(self) -> None:  # noqa: N802  http.server looks for it
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self.answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path in pages:
                self.answer(200, JSON, pages[path]())
            elif path in ("/healthz", "/readyz"):
                problems = healthy() if path == "/healthz" else ready()
                said = {"notices": notices()} if path == "/readyz" else {}
                body = json.dumps({"ok": not problems, "problems": problems, **said}).encode() + b"\n"
                self.answer(503 if problems else 200, JSON, body)
            else:
                self.answer(404, TEXT, " ".join(["/healthz /readyz /metrics", *pages]).encode() + b"\n")

    server = serve(Health, host, port, variable="IOT_INGEST_HTTP_PORT")
    return server, int(server.server_address[1])
