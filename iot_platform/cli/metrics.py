"""`iot metrics`: the platform's own /metrics."""

import signal
import threading

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(metrics)


def metrics() -> None:
    """Serve the audit's differences, the drain's lag and the stored messages to Prometheus, until stopped.

    /metrics and /healthz on IOT_METRICS_HOST:IOT_METRICS_PORT. The audit runs every 5 minutes. Servers that do not answer are told by the
    gauge iot_server_up.
    """
    from iot_platform.audit.exporter import Exporter, serve
    from iot_platform.settings import get_settings

    settings = get_settings()
    exporter = Exporter(settings)
    server = serve(exporter, settings.metrics_host, settings.metrics_port)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    exporter.run(stop)
    server.shutdown()
