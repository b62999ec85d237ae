"""`iot metrics`: the platform's own /metrics."""

import threading

import typer

from iot_platform.signals import stop_on_signals


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(metrics)


def metrics() -> None:
    """Serve the platform's own metrics to Prometheus until stopped: audit, drain, freshness, upkeep, database, Dagster, backups.

    /metrics and /healthz on IOT_METRICS_HOST:IOT_METRICS_PORT. It looks every 15 seconds, and at the audit and the storage every 5 minutes.
    Servers that do not answer are told by the gauge iot_server_up; what they said last stays, with its age.
    """
    from iot_platform.metrics.exporter import Exporter
    from iot_platform.metrics.page import serve
    from iot_platform.settings import get_settings

    settings = get_settings()
    exporter = Exporter(settings)
    server = serve(exporter, settings.metrics_host, settings.metrics_port)
    stop = threading.Event()
    with stop_on_signals(stop):
        exporter.run(stop)
    server.shutdown()
