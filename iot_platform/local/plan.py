"""Which servers run locally and which are the user's, and the settings that follow."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from iot_platform.backup.repository import Repository
from iot_platform.local.kafka import KafkaServer
from iot_platform.local.mosquitto import MosquittoServer
from iot_platform.local.passwords import Passwords, console_key
from iot_platform.local.ports import LOOPBACK
from iot_platform.local.postgresql import PostgresqlServer
from iot_platform.local.server import Server
from iot_platform.settings import Settings, stack_notes


@dataclass(frozen=True)
class Plan:
    """What `iot up` is about to run.

    `settings` are those in force once the stack runs; `notes` (field → value) go to stack.env for every other process;
    a server that is None is the user's own.
    """

    settings: Settings
    notes: dict[str, str]
    mosquitto: MosquittoServer | None
    kafka: KafkaServer | None
    postgresql: PostgresqlServer | None
    local_dagster: bool
    local_ingest: bool
    """Whether IOT_INGEST_HTTP_URL means the daemon of this stack, which runs in any case: the user's own may be elsewhere."""
    local_console: bool
    """Whether the console runs here: its packages are installed, and its database is known."""

    @property
    def servers(self) -> list[Server]:
        """The servers that run here."""
        return [server for server in (self.mosquitto, self.kafka, self.postgresql) if server is not None]

    @property
    def ports(self) -> list[tuple[str, int, str, str]]:
        """Of everything that will listen here: program, port, the variable that chooses it, and the note that holds it."""
        settings = self.settings
        ports = [
            ("mosquitto", settings.mqtt_port, "IOT_MQTT_PORT", "mqtt_url"),
            ("kafka", settings.kafka_port, "IOT_KAFKA_PORT", "kafka_bootstrap_servers"),
            ("postgresql", settings.postgres_port, "IOT_POSTGRES_PORT", "database_url"),
            ("ingest", settings.ingest_http_port, "IOT_INGEST_HTTP_PORT", "ingest_http_url"),
            ("metrics", settings.metrics_port, "IOT_METRICS_PORT", "metrics_port"),
            ("console", settings.console_port, "IOT_CONSOLE_PORT", "console_port"),
            ("dagster-webserver", settings.dagster_port, "IOT_DAGSTER_PORT", "dagster_url"),
        ]
        return [item for item in ports if item[3] in self.notes]


def make_plan(user: Settings) -> Plan:
    """Decide from what the user set in environment and `.env`."""
    local_dir, cache_dir = user.local_dir, user.cache_dir
    mosquitto = None if _is_users("mqtt_url", user) else MosquittoServer(local_dir, user.mqtt_port)
    kafka = None if _is_users("kafka_bootstrap_servers", user) else KafkaServer(local_dir, cache_dir, user.kafka_port, user)
    postgresql = None
    if not _is_users("database_url", user):
        passwords = Passwords.load(local_dir / "data" / "passwords.json")
        postgresql = PostgresqlServer(local_dir, cache_dir, user.postgres_port, passwords, repository=Repository.of(user))
    local_dagster = not _is_users("dagster_url", user)
    notes: dict[str, str] = {}
    if mosquitto:
        notes["mqtt_url"] = mosquitto.url
        if not _is_users("metrics_mqtt_url", user):
            notes["metrics_mqtt_url"] = mosquitto.url
    if kafka:
        notes["kafka_bootstrap_servers"] = kafka.bootstrap_servers
    if postgresql:
        notes["database_url"] = postgresql.url("iot_writer")
        notes["database_admin_url"] = postgresql.url("iot_migrator")
        notes["database_reader_url"] = postgresql.url("iot_reader")
        notes["console_database_url"] = postgresql.url("iot_console")
        notes["console_key_file"] = str(console_key(local_dir / "data" / "console.key"))
        notes |= postgresql.backup_notes()
    if local_dagster:
        notes["dagster_url"] = f"http://{LOOPBACK}:{user.dagster_port}"
    notes["ingest_http_url"] = f"http://{LOOPBACK}:{user.ingest_http_port}"
    notes["metrics_port"] = str(user.metrics_port)
    local_console = (postgresql is not None or user.console_database_url is not None) and find_spec("fastapi") is not None
    if local_console:
        notes["console_port"] = str(user.console_port)
    local_ingest = not _is_users("ingest_http_url", user)
    said = user.model_dump(include=user.model_fields_set)
    own = {} if local_ingest else {"ingest_http_url": user.ingest_http_url}
    settings = Settings(**{**said, **notes, **own})
    return Plan(settings, notes, mosquitto, kafka, postgresql, local_dagster, local_ingest, local_console)


def write_notes(plan: Plan, path: Path) -> None:
    """Write stack.env for the other processes; readable by this user only."""
    lines = ["# written by `iot up`: the local servers and their passwords"]
    lines += [f"IOT_{name.upper()}={value}" for name, value in plan.notes.items()]
    lines.append(f"IOT_INGEST_HTTP_PORT={plan.settings.ingest_http_port}")
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    temporary.rename(path)


def _is_users(field: str, user: Settings) -> bool:
    """Whether the user named a server of their own (an exported copy of our own notes, as by `iot env`, is not one)."""
    if field not in user.model_fields_set:
        return False
    value = getattr(user, field)
    shown = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    return bool(shown != stack_notes().get(field))
