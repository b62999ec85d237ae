"""What every HTTP page of ours has in common: answers of known length and exact type, given by threads, and a port that may be taken."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from ingest_daemon.errors import SettingsError

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"


class Page(BaseHTTPRequestHandler):
    """Subclasses have do_GET, do_POST, and end them with `answer`."""

    timeout = 10

    def answer(self, status: int, content_type: str, body: bytes) -> None:
        """The whole answer. Prometheus 3 refuses a page without the right type."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's signature
        """Quiet: probes and scrapes come every few seconds."""


def serve(page: type[Page], host: str, port: int, *, variable: str) -> ThreadingHTTPServer:
    """Answer from threads until `shutdown`, which waits for nobody who is still asking. `variable`: the setting of the port.

    Raises:
        SettingsError: the port is taken.
    """
    try:
        server = ThreadingHTTPServer((host, port), page)
    except OSError as error:
        raise SettingsError(f"{variable}: can't listen on {host}:{port}: {error.strerror}") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, name="http", daemon=True).start()
    return server
