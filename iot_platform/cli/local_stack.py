"""`iot up`, `iot down`, `iot clean-data`: the local stack."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError

_OFF: Final = ("0", "no", "false", "off", "")


def up() -> None:
    """Start everything on this machine and wait until it is ready; SIMULATOR=0 leaves the device simulator out, MONITORING=1 adds
    Prometheus and Alertmanager, which must be installed, and exporters of Kafka, PostgreSQL and this machine where they can be had.

    Servers that you name (IOT_MQTT_URL, IOT_KAFKA_BOOTSTRAP_SERVERS, IOT_DATABASE_URL, IOT_DAGSTER_URL) are used instead of local ones.
    """
    from iot_platform.database import DatabaseError
    from iot_platform.kafka.topics import TopicError
    from iot_platform.local.errors import LocalStackError
    from iot_platform.local.plan import make_plan
    from iot_platform.local.ports import LOOPBACK
    from iot_platform.local.stack import Stack
    from iot_platform.local.step_report import Report
    from iot_platform.local.supervisor import Supervisor
    from iot_platform.settings import user_settings
    from iot_platform.telemetry.decode import DecodeRules

    console = terminal.console()
    simulator, monitoring = (os.environ.get(*said).lower() not in _OFF for said in (("SIMULATOR", "1"), ("MONITORING", "0")))
    plan = make_plan(user_settings())
    DecodeRules.from_settings(plan.settings)  # a pattern, pointer or codec that means nothing: now, not in each drain
    try:
        with Report(console) as report:
            stack = Stack(plan, report)
            stack.up(simulator=simulator, monitoring=monitoring)
        for warning in stack.warnings():
            console.print(f"  [yellow]![/yellow] {terminal.escape(warning)}", highlight=False, soft_wrap=True)
    except (LocalStackError, TopicError, DatabaseError) as error:
        goes_on = Supervisor(plan.settings.local_dir).alive()
        hint = "\n(what did start goes on running: `iot status`, `iot logs`, `iot down`)" if goes_on else ""
        raise CliError(f"{error}{hint}") from error
    except KeyboardInterrupt as error:
        raise CliError("interrupted; what did start goes on running: `iot down` stops it") from error
    page = f"http://{LOOPBACK}:{plan.settings.console_port}" if plan.local_console else ""
    text = _what_next(page, plan.settings.dagster_url, plan.settings.mqtt_url.get_secret_value(), plan.settings.local_dir / "logs")
    console.print(text, highlight=False, soft_wrap=True)


def down() -> None:
    """Stop everything that `iot up` started; data stays."""
    from iot_platform.local.stack import down as stop
    from iot_platform.settings import user_settings

    console = terminal.console()
    with console.status("stopping") as status:
        ran = stop(user_settings(), status.update)
    console.print("stopped; the data is kept (`iot clean-data` removes it)" if ran else "nothing was running")


def clean_data(
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Stop everything, ask, then remove the local stack's data, logs and passwords. Downloads stay in the cache."""
    import shutil

    from iot_platform.local.stack import down as stop
    from iot_platform.settings import user_settings

    console = terminal.console(soft_wrap=True)
    settings = user_settings()
    folders = [settings.local_dir / name for name in ("data", "logs", "run", "dagster", "ingest", "monitoring", "stack.env")]
    there = [path for path in folders if path.exists()]
    if not there:
        console.print(f"nothing to remove in {settings.local_dir}", highlight=False)
        return
    if not yes and not typer.confirm(f"Remove all messages, measurements and logs of the local stack in {settings.local_dir}?"):
        raise CliError("nothing was removed")
    with console.status("stopping") as status:
        stop(settings, status.update)
    for path in there:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    console.print("removed; `iot up` starts afresh", highlight=False)


def _what_next(console_url: str, dagster_url: str, mqtt_url: str, logs_folder: Path) -> str:
    from ingest_daemon.home import checkout

    iot = ".venv/bin/iot" if checkout() else "iot"
    host = mqtt_url.rsplit("@", 1)[-1].removeprefix("mqtt://").removeprefix("mqtts://")
    name, _, port = host.partition(":")
    users = f"(`{iot} console user add NAME`, then `{iot} console user grant NAME TENANT`)"
    console = f"  console     {console_url}   {users}\n" if console_url else ""
    return f"""
[bold green]Everything is ready.[/bold green]
{console}  Dagster     {dagster_url}   (Assets → message: partitions and their materializations)
  MQTT        {terminal.escape(host)}
  logs        {logs_folder}

Try next:
  mosquitto_pub -h {name} -p {port or 1883} -q 1 -t mtic/msg/client/realtime/1968193631353446400/1968193691042586624 \\
      -m '{{"deviceId":"sensor-001","temp":25.3,"ok":true}}'
  {iot} sql "SELECT * FROM measurement_by_series WHERE device_id = 'sensor-001' ORDER BY time DESC LIMIT 5"
  {iot} status    one screen: health, rates, lag, freshness
  {iot} down      stop everything, keep the data"""  # noqa: S608 - a text to show, not a query to run


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("clean-data")(clean_data)
