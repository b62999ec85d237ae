"""`iot alert-bridge`: Alertmanager's notifications in WeCom, DingTalk and Feishu."""

import threading

import typer

from iot_platform.signals import stop_on_signals


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("alert-bridge")(alert_bridge)


def alert_bridge() -> None:
    """Post Alertmanager's notifications to group robots of WeCom, DingTalk and Feishu, until stopped.

    A web hook of Alertmanager sends to http://IOT_ALERT_BRIDGE_HOST:IOT_ALERT_BRIDGE_PORT/wecom, /dingtalk or /feishu; the robots'
    addresses and secrets stand in the files of IOT_ALERT_WECOM_URL_FILE and so on.
    """
    from iot_platform.notifications.bridge import Bridge, serve
    from iot_platform.settings import get_settings

    settings = get_settings()
    server = serve(Bridge(settings), settings.alert_bridge_host, settings.alert_bridge_port)
    stop = threading.Event()
    with stop_on_signals(stop):
        stop.wait()
    server.shutdown()
