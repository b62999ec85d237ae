"""`iot metrics`: the platform's own /metrics."""

import threading

import typer

from iot_platform.signals import stop_on_signals


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
    with stop_on_signals(stop):
        exporter.run(stop)
    server.shutdown()
