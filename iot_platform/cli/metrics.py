"""`iot metrics`: the platform's own /metrics."""

import threading

import typer

from iot_platform.signals import stop_on_signals


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(metrics)


def metrics() -> None:
    """Serve the audit's differences, the drain's lag, the stored messages and the backups to Prometheus, until stopped.

    /metrics and /healthz on IOT_METRICS_HOST:IOT_METRICS_PORT. The audit runs every 5 minutes. Servers that do not answer are told by the
    gauge iot_server_up.
    """
    from iot_platform.audit.exporter import Exporter, serve
    from iot_platform.backup.metrics import BackupCollector
    from iot_platform.settings import get_settings

    settings = get_settings()
    exporter, backups = Exporter(settings), BackupCollector(settings)
    server = serve(exporter, settings.metrics_host, settings.metrics_port, backups)
    stop = threading.Event()
    threading.Thread(target=backups.run, args=(stop,), name="backups", daemon=True).start()
    with stop_on_signals(stop):
        exporter.run(stop)
    server.shutdown()
