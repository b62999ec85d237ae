"""Which commands `iot` has: a module is imported when its command is run or asked for its help, so that `iot --help` imports none."""

import importlib
from collections.abc import Mapping
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

# Name: the module of iot_platform.cli whose register(app) adds the command, and how its help begins (a test compares).
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "acceptance": (
        "acceptance",
        "Check an installation on its real servers: registry, cluster, end-to-end row, upkeep, dashboards, delivery, drills.",
    ),
    "alert-bridge": ("alert_bridge", "Post Alertmanager's notifications to group robots of WeCom, DingTalk and Feishu, until stopped."),
    "audit": ("audit", "Prove that no message is lost or stored twice, and name every difference by its place."),
    "decode": ("decode", "Decode messages from standard input through the drain's own decoder."),
    "env": ("environment", "Print the settings in force as shell exports"),
    "exec": ("environment", "Become a program of Dagster's, in the environment it needs"),
    "doctor": (
        "environment",
        "Check this machine, the servers and the settings that the promise rests on: one page within a minute, what to fix first and how.",
    ),
    "import": (
        "imports",
        "Import history, by the contract of live messages: each row becomes a message with measurements, or is in quarantine with the "
        "reason.",
    ),
    "metrics": (
        "metrics",
        "Serve the platform's own metrics to Prometheus until stopped: audit, drain, freshness, upkeep, database, Dagster, backups.",
    ),
    "migrate": ("migrate", "Apply the migrations of sql/ to the database (IOT_DATABASE_ADMIN_URL), safely and repeatably."),
    "replay": ("replay", "Send stored messages through the decoder again, under the rules and settings of today."),
    "simulate": ("simulate", "Publish a seeded fleet of devices with QoS 1, at an exact rate, and wait for every acknowledgement."),
    "size": ("size", "Say what a load needs: cores, memory, disk, Kafka partitions, shards; with the figures that it is computed from."),
    "sql": ("sql", "Run a query, read-only: a table on a terminal, tab-separated lines without a header in a pipe."),
    "status": (
        "status",
        "Show what to fix first, then health, rates, lag, freshness, quarantine and the last runs; within about 10 seconds, "
        "whatever is down.",
    ),
    "support-bundle": (
        "support_bundle",
        "Write one archive for somebody who helps: versions, settings, logs, metrics, audit, status, doctor, what servers say of "
        "themselves.",
    ),
    "trace": ("trace", "Follow one message: Kafka record → row → measurements → batch → Dagster run."),
    "up": ("local_stack", "Start everything on this machine and wait until it is ready"),
    "down": ("local_stack", "Stop everything that `iot up` started; data stays."),
    "clean-data": ("local_stack", "Stop everything, ask, then remove the local stack's data, logs and passwords."),
    "logs": ("logs", "Show the programs' logs in order of time."),
    "backup": ("backup", "Backups of the database: make, list, verify, restore them (pgBackRest)."),
    "compression": ("compression", "Compression of old chunks (Community edition), and the disk forecast (both editions)."),
    "console": ("console", "The console and its read API: serve it; users and API keys."),
    "drill": (
        "drill",
        "Failure drills: break the platform on purpose, on servers of its own, and prove that no message was lost or doubled.",
    ),
    "influx": ("influx", "InfluxDB as a second store: status, backfill, compare, schema."),
    "offsets": ("offsets", "Where each Kafka partition is drained to; what to do when Kafka lost data."),
    "project": ("project", "Options of how messages become measurements, by project."),
    "quality": ("quality", "Quality of the data: incidents, rules, and evaluating them now."),
    "retention": ("retention", "How long rows are kept; removing those that are older."),
    "rollup": ("rollup", "Hourly and daily rollups: run, rebuild, status."),
    "series": ("series", "Display names, units, valid ranges and descriptions of series."),
    "tenant": ("tenant", "What each tenant has, exporting and deleting it; logins that read one tenant only."),
    "topics": ("topics", "The Kafka topics: how they are configured, and whether that keeps every message."),
}


class LazyGroup(TyperGroup):
    """`iot` itself: lists COMMANDS by what stands there, and imports the one that is wanted."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()}
        self._loaded: dict[str, Any] = {}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is to run, imported. Raises UsageError: there is none of this name."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, self.load(name) if name else command, rest

    def load(self, name: str) -> Any:
        """The command of this name, imported. Raises KeyError: there is none."""
        if name not in self._loaded:
            apart = typer.Typer(name="iot", pretty_exceptions_show_locals=False, rich_markup_mode=self.rich_markup_mode)
            apart.callback()(lambda: None)  # a group, whatever the number of its commands
            importlib.import_module(f"iot_platform.cli.{COMMANDS[name][0]}").register(apart)
            group: Any = typer.main.get_command(apart)
            self._loaded |= group.commands
        return self._loaded[name]
