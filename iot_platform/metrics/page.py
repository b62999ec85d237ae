"""/metrics and /healthz of `iot metrics`."""

import json
from http.server import ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ingest_daemon import http_page
from ingest_daemon.http_page import JSON, TEXT, Page
from iot_platform.metrics.exporter import Exporter


def serve(exporter: Exporter, host: str, port: int) -> ThreadingHTTPServer:
    """Answer /metrics and /healthz from threads. Raises SettingsError when the port is taken."""
    registry = CollectorRegistry()
    registry.register(exporter)

    class Metrics(Page):
        def do_GET(self) -> None:  # noqa: N802  http.server looks for it
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self.answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path == "/healthz":
                ok = exporter.healthy()
                self.answer(200 if ok else 503, JSON, json.dumps({"ok": ok}).encode() + b"\n")
            else:
                self.answer(404, TEXT, b"/metrics /healthz\n")

    return http_page.serve(Metrics, host, port, variable="IOT_METRICS_PORT")
