"""The page of `iot metrics` in the test's own process, looking all the time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from iot_platform.metrics.exporter import Exporter
from iot_platform.metrics.page import serve
from iot_platform.settings import Settings


@contextmanager
def exporter(settings: Settings) -> Iterator[str]:
    """Its address, without a path."""
    made, stop = Exporter(settings, look_seconds=0.05, audit_seconds=0.05), threading.Event()
    server = serve(made, "127.0.0.1", 0)
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        stop.set()
        thread.join(60)
        server.shutdown()
        server.server_close()
