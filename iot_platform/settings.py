"""Settings of every process but the ingest daemon: read once from environment and `.env`, validated, frozen."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv import dotenv_values
from pydantic import Field, JsonValue, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableError

from ingest_daemon import home
from ingest_daemon.errors import SettingsError as SettingsError  # noqa: PLC0414  ours, too
from ingest_daemon.server_settings import ServerSettings
from ingest_daemon.variables import is_service_address, misspelt, secrets_dir
from iot_platform import logs

RISKS = ("cleanup", "retention", "unclean_election", "insync", "timestamp", "size")
"""What a user may accept of a Kafka topic, by name; docs/kafka-topics.md says what each means."""


class Settings(ServerSettings, BaseSettings):
    """Everything that can be set from outside; each field is the variable `IOT_<FIELD>` in upper case."""

    model_config = SettingsConfigDict(env_prefix="IOT_", extra="ignore", frozen=True, env_ignore_empty=True)

    secrets_dir: Path | None = Field(
        None,
        description="Folder of files that hold settings, each named as its variable in lower case (iot_database_url): mounted secrets. "
        "Environment and .env beat them.",
    )

    # -- servers; the defaults are the local stack's -----------------------------------------------------------
    mqtt_url: SecretStr = Field(
        SecretStr("mqtt://127.0.0.1:1883"),
        description="MQTT broker, mqtt://[user:password@]host[:port] or mqtts:// for TLS. Set it and no local Mosquitto starts.",
    )
    mqtt_tls_ca_file: Path | None = Field(
        None, description="CA certificates (PEM) that sign the broker's certificate; system CAs unless set."
    )
    mqtt_tls_cert_file: Path | None = Field(None, description="Client certificate (PEM) for the broker.")
    mqtt_tls_key_file: Path | None = Field(None, description="Private key (PEM) of the client certificate.")
    mqtt_password_file: Path | None = Field(
        None, description="File that holds the broker's password, instead of one in IOT_MQTT_URL; when it changes, the new one is used."
    )

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="Kafka brokers, host:port[,host:port]. Set it and no local Kafka starts."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How Kafka connections are secured and authenticated."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="SASL mechanism, with a SASL_* security protocol."
    )
    kafka_sasl_username: str | None = Field(None, description="SASL user name.")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password.")
    kafka_sasl_password_file: Path | None = Field(
        None, description="File that holds the SASL password, instead of IOT_KAFKA_SASL_PASSWORD; when it changes, the new one is used."
    )
    kafka_ssl_ca_file: Path | None = Field(None, description="CA certificates (PEM) for Kafka; system CAs unless set.")
    kafka_ssl_cert_file: Path | None = Field(None, description="Client certificate (PEM) for Kafka.")
    kafka_ssl_key_file: Path | None = Field(None, description="Private key (PEM) of the Kafka client certificate.")
    kafka_topic: str = Field("iot-messages", description="Kafka topic that holds every received message.")
    kafka_dead_letter_topic: str = Field("iot-dead-letter", description="Kafka topic for messages that Kafka refused.")
    kafka_partitions: int = Field(6, ge=1, le=1000, description="Partitions of a topic that we create; an existing topic keeps its own.")
    kafka_replication_factor: int = Field(1, ge=1, le=9, description="Replication factor of a topic that we create.")
    kafka_flush: bool = Field(
        True,
        description="With one or two replicas, Kafka syncs its disk before it confirms a batch (flush.messages=1 on our topics). "
        "false is faster on slow disks, and a power cut may lose acknowledged messages.",
    )
    kafka_outage_budget_hours: float = Field(
        168.0,
        gt=0,
        description="Kafka has to keep messages for so long, because the database may be away for so long; topics that keep them shorter "
        "are refused.",
    )
    kafka_accept_risks: str = Field(
        "",
        description="Risks of existing topics that are only warned of, with commas between: cleanup, retention, unclean_election, insync, "
        "timestamp, size (docs/kafka-topics.md). Unless named, such a topic is refused.",
    )
    kafka_drain_group: str = Field(
        "iot-drain",
        min_length=1,
        description="Consumer group into which the drained offsets are copied once a minute, for Kafka's tools to show lag. off: none.",
    )
    ingest_max_record_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        le=90_000_000,
        description="A larger message goes to the dead-letter topic in parts without asking Kafka first.",
    )

    database_url: SecretStr = Field(
        SecretStr("postgresql://iot_writer@127.0.0.1:5432/iot"),
        description="PostgreSQL with TimescaleDB >= 2.19.1, as a role that may write. Set it "
        "and no local PostgreSQL starts. TLS: ?sslmode=verify-full&sslrootcert=…",
    )
    database_admin_url: SecretStr | None = Field(
        None, description="The same database as its owner, for migrations; IOT_DATABASE_URL unless set."
    )
    database_reader_url: SecretStr | None = Field(
        None,
        description="The same database as a read-only role, for `iot sql` and Grafana; "
        "IOT_DATABASE_URL with SET ROLE iot_reader unless set.",
    )
    read_database_url: SecretStr | None = Field(
        None,
        description="A tenant's own login to the same database, for iot_platform.read (docs/read.md); no other program uses it.",
    )
    dagster_storage_url: SecretStr | None = Field(
        None, description="PostgreSQL for Dagster's runs and events; schema `dagster` of IOT_DATABASE_URL unless set."
    )
    dagster_url: str = Field("http://127.0.0.1:3000", description="Dagster's web UI. Its port is the one the local webserver listens on.")
    ingest_http_url: str = Field(
        "http://127.0.0.1:9108",
        description="The ingest daemon's health, metrics and accounting endpoint; several daemons: their URLs with commas between, or "
        "dns+http://name:port: one at each IPv4 address that the name has.",
    )
    metrics_host: str = Field(
        "127.0.0.1", description="Address that the platform's own /metrics (`iot metrics`) listens on; 0.0.0.0 for all."
    )
    metrics_port: int = Field(9109, ge=1, le=65535, description="Port of the platform's own /metrics (`iot metrics`) and its /healthz.")
    metrics_mqtt_url: SecretStr | None = Field(
        None,
        description="MQTT broker whose $SYS topics (Mosquitto's) `iot metrics` shows, in the form of IOT_MQTT_URL, with a user of its own "
        "that may read $SYS/# and nothing else; TLS by IOT_MQTT_TLS_*. Unset: the broker is not looked at. The local stack sets it.",
    )

    log_format: Literal["auto", "json", "text"] = Field(
        "auto",
        description="Log lines of our own programs: json (one object a line), text, or auto: text on a terminal, else json. "
        "`iot logs` reads both.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line that is written; debug has a line for each batch that the drain commits."
    )

    # -- notifications: `iot alert-bridge` -----------------------------------------------------------------------
    alert_bridge_host: str = Field("127.0.0.1", description="Address that `iot alert-bridge` listens on; 0.0.0.0 for all.")
    alert_bridge_port: int = Field(9110, ge=1, le=65535, description="Port of `iot alert-bridge`.")
    alert_wecom_url_file: Path | None = Field(
        None, description="File with the address of a WeCom (企业微信) group robot, its key included; read for each message."
    )
    alert_dingtalk_url_file: Path | None = Field(
        None, description="File with the address of a DingTalk (钉钉) robot, its access_token included; read for each message."
    )
    alert_dingtalk_secret_file: Path | None = Field(
        None, description="File with that robot's secret (加签), if it has one: messages are signed."
    )
    alert_feishu_url_file: Path | None = Field(None, description="File with the address of a Feishu (飞书) robot; read for each message.")
    alert_feishu_secret_file: Path | None = Field(
        None, description="File with that robot's secret (签名校验), if it has one: messages are signed."
    )

    # -- console and read API: `iot console serve` (docs/console.md) -----------------------------------------------
    console_host: str = Field("127.0.0.1", description="Address that the console listens on; 0.0.0.0 for all.")
    console_port: int = Field(8000, ge=1, le=65535, description="Port of the console.")
    console_database_url: SecretStr | None = Field(
        None,
        description="The same database as iot_console, a role that reads nothing but the console's users, sessions and keys. `iot console` "
        "needs it.",
    )
    console_key_file: Path | None = Field(
        None,
        description="File with a random key of 32 bytes or more (one line), from which the passwords of the console's logins for tenants "
        "are derived: they are stored nowhere. Who has it and reaches the database reads every tenant that a user was granted.",
    )
    console_proxies: str = Field(
        "127.0.0.1",
        description="Addresses of proxies in front of the console, with commas between, or *: X-Forwarded-For and -Proto of theirs are "
        "believed.",
    )
    console_session_idle_minutes: float = Field(
        720.0, ge=1, le=44640, description="A session of the console ends when nothing was asked in it for so long."
    )
    console_url: str = Field(
        "",
        description="The console's address as browsers see it, such as https://console.example.com: where an OpenID provider sends them "
        "back. Unless set, the one that they asked.",
    )
    oidc_issuer: str = Field(
        "",
        description="An OpenID provider through which users may log in, as it calls itself: https://id.example.com. Unless set, there is "
        "none.",
    )
    oidc_client_id: str = Field("", description="The console's id at the provider.")
    oidc_client_secret_file: Path | None = Field(
        None, description="File with the console's secret at the provider; unless set, it is a public client (PKCE is used in any case)."
    )
    oidc_scope: str = Field("openid profile email", description="What the provider is asked for; has openid.")
    oidc_name_claim: str = Field(
        "email",
        description="Which claim is the user's name here at his first login; later ones go by the subject. An email must be verified.",
    )
    oidc_label: str = Field("", description="What the button says, such as the company's name.")
    console_session_hours: float = Field(168.0, gt=0, le=8760, description="A session of the console ends so long after the login.")

    # -- message contract --------------------------------------------------------------------------------------
    mqtt_protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto",
        description="MQTT version: 5, 3.1.1, or auto: 5, and 3.1.1 with a broker that does not speak it, which is remembered.",
    )
    mqtt_topic_filter: str = Field(
        "mtic/msg/client/realtime/#",
        description='MQTT topic filter that the ingest daemon subscribes to, or a JSON list: ["plant/+/line/#", "lab/#"].',
    )
    topic_pattern: str = Field(
        "mtic/msg/client/realtime/{tenant}/{project}/{device...}",
        description="Where a topic names tenant, project and device. {device...} takes all remaining levels, "
        "and may be absent from the topic. + matches one level that names nothing.",
    )
    topic_codecs: tuple[dict[str, JsonValue], ...] = Field(
        (),
        description="Payload formats by topic, a JSON list such as "
        '[{"topic": "plant/{tenant}/{project}/{device...}", "codec": "cbor", "compression": "auto"}]; the first that matches counts, '
        "all other topics are JSON. docs/payloads.md lists codecs and options.",
    )
    max_decompressed_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        le=256 * 1024 * 1024,
        description="A compressed payload that holds more bytes is quarantined (too_large).",
    )
    tenant_pointers: tuple[str, ...] = Field(
        (), description="JSON pointers for the tenant (JSON list), tried in order where the pattern has no {tenant}."
    )
    project_pointers: tuple[str, ...] = Field(
        (), description="JSON pointers for the project (JSON list), where the pattern has no {project}."
    )
    device_pointers: tuple[str, ...] = Field(
        ("/deviceId", "/device_id", "/clientId"), description="JSON pointers for the device (JSON list), where the topic names none."
    )
    time_pointers: tuple[str, ...] = Field(
        ("/ts", "/timestamp", "/time"), description="JSON pointers for the timestamp (JSON list), first non-null wins."
    )
    default_timezone: str = Field("UTC", description="Zone of ISO timestamps without one, such as Asia/Shanghai.")
    time_window_past_seconds: int = Field(
        90 * 86400, ge=0, le=10**10, description="An event time further before receive time is quarantined."
    )
    time_window_future_seconds: int = Field(3600, ge=0, le=10**10, description="An event time further after receive time is quarantined.")

    # -- drain -------------------------------------------------------------------------------------------------
    drain_shards: int = Field(1, ge=1, le=3, description="Concurrent drain runs; each takes an equal share of the Kafka partitions.")
    drain_lanes: int = Field(2, ge=1, le=8, description="Consume-decode-write lanes (threads with a connection each) in one drain run.")
    drain_shift_seconds: float = Field(120.0, ge=20, le=3600, description="How long one drain run works before its successor takes over.")
    drain_idle_seconds: float = Field(30.0, ge=1, description="A drain run ends early after this long without a message.")
    drain_commit_interval_seconds: float = Field(
        0.25, gt=0, le=10, description="Rows wait at most about this long for their commit while data flows slowly."
    )
    drain_batch_records: int = Field(20_000, ge=1, le=1_000_000, description="Most Kafka records in one database transaction of a lane.")
    drain_batch_bytes: int = Field(32 * 1024 * 1024, ge=65_536, description="Most payload bytes in one database transaction of a lane.")
    max_series_per_project: int = Field(
        100_000, ge=1, description="A message that would create series beyond this is quarantined (series_limit)."
    )

    # -- InfluxDB as a second store (docs/influxdb.md) ------------------------------------------------------------
    influx_url: SecretStr | None = Field(
        None,
        description="InfluxDB that follows the ledger, [name=]http[s]://[user:password@]host[:port]/database[?rp=policy]; a token: "
        ":token@. Several, with commas between, each with a name. Unset: there is none.",
    )
    influx_measurement: str = Field(
        "iot",
        min_length=1,
        max_length=200,
        description="InfluxDB's measurement that all points go to. Change it only together with the database.",
    )
    influx_max_series: int = Field(
        1_000_000, ge=1, description="Measurements of series beyond this number are not sent to an InfluxDB (sink_refused, series_limit)."
    )
    influx_delete_tenants: bool = Field(
        True, description="A tenant that is deleted here goes from InfluxDB 1.x, too; false: its points stay there."
    )

    # -- database size -----------------------------------------------------------------------------------------
    disk_limit_bytes: int | None = Field(
        None,
        ge=1,
        description="Bytes that the database may take: the disk forecast counts the days until then. "
        "Unless set, the free disk of a local database; of another one nothing is known.",
    )

    # -- backups (docs/backup.md) --------------------------------------------------------------------------------
    backup_repository: str = Field(
        "",
        description="Where the local stack's PostgreSQL keeps its backups and its WAL: a folder, or s3://bucket/prefix. Unless set, there "
        "are none. A folder on another disk than the database's.",
    )
    backup_cipher_file: Path | None = Field(
        None,
        description="File with the passphrase (one line) that backups are encrypted with; unless set, they are not. Whoever loses it has "
        "no backups: keep a copy elsewhere. It cannot be changed later.",
    )
    backup_keep_days: int = Field(14, ge=1, le=3650, description="How many days back the database can be restored.")
    backup_full_days: float = Field(
        7.0, gt=0, le=365, description="Days between full backups; the daily ones between them are differential."
    )
    backup_s3_endpoint: str = Field("", description="S3's address, host[:port], where IOT_BACKUP_REPOSITORY is in S3 or something like it.")
    backup_s3_region: str = Field("us-east-1", description="S3's region.")
    backup_s3_ca_file: Path | None = Field(None, description="CA certificates (PEM) that sign S3's certificate; system CAs unless set.")
    backup_s3_key_file: Path | None = Field(None, description="File with S3's access key, key:secret in one line.")
    backup_s3_reader_key_file: Path | None = Field(
        None, description="The same of an access key that may only read: restore drills of the local stack use it, and refuse without."
    )
    backup_exec: str = Field(
        "",
        description="What stands before `pgbackrest`, `pg_ctl` and `psql` so that they run on the database's machine, as its user, such as "
        "`ssh postgres@db.example` or `docker compose exec -T -u postgres timescaledb`. The local stack's is set by itself.",
    )
    backup_config: str = Field(
        "",
        description="The pgbackrest.conf on the database's machine; its stanza is `iot`. Set it, and there are backups of a database that "
        "is not the local stack's.",
    )
    backup_drill_days: float = Field(
        7.0, ge=0, le=365, description="Days between restore drills that Dagster makes, where backups are set up; 0: it makes none."
    )
    backup_drill_dir: Path | None = Field(
        None,
        description="Folder on the database's machine that drills restore into: absent or empty, with room for the whole database, which "
        "is there for as long as a drill takes. Unless set: below IOT_LOCAL_DIR.",
    )
    backup_drill_config: str = Field(
        "",
        description="The pgbackrest.conf of restore drills: the same repository with a login that may only read it. Unless set: "
        "IOT_BACKUP_CONFIG, and a drill refuses if that one can write.",
    )

    # -- Dagster -----------------------------------------------------------------------------------------------
    dagster_history_days: float = Field(
        7.0,
        gt=0,
        description="Finished Dagster runs older than this are purged daily; each asset partition keeps its newest materialization.",
    )
    ingest_in_flight_window: int = Field(
        10_000,
        ge=1,
        le=65535,
        description="The ingest daemon's in-flight window: a redelivered message's first copy is looked for that far back.",
    )

    # -- local stack -------------------------------------------------------------------------------------------
    mqtt_port: int = Field(1883, ge=1, le=65535, description="Port of the local Mosquitto.")
    kafka_port: int = Field(9092, ge=1, le=65535, description="Port of the local Kafka.")
    postgres_port: int = Field(5432, ge=1, le=65535, description="Port of the local PostgreSQL.")
    dagster_port: int = Field(3000, ge=1, le=65535, description="Port of the local Dagster web UI.")
    ingest_http_port: int = Field(9108, ge=1, le=65535, description="Port of the local ingest daemon's health and metrics.")
    prometheus_port: int = Field(9090, ge=1, le=65535, description="Port of the local Prometheus (MONITORING=1).")
    alertmanager_port: int = Field(
        9095, ge=1, le=65535, description="Port of the local Alertmanager (MONITORING=1); not 9093, where Kafka's controller may listen."
    )
    kafka_exporter_port: int = Field(9404, ge=1, le=65535, description="Port of the local Kafka's JMX exporter (MONITORING=1).")
    postgres_exporter_port: int = Field(9187, ge=1, le=65535, description="Port of the local PostgreSQL's exporter (MONITORING=1).")
    node_exporter_port: int = Field(9100, ge=1, le=65535, description="Port of this machine's exporter (MONITORING=1).")
    local_dir: Path = Field(
        default_factory=home.local_dir,
        description="Data, logs and secrets of the local stack. Installed without a checkout: ~/.local/share/iot-platform.",
    )
    cache_dir: Path = Field(
        Path("~/.cache/iot-platform"), description="Downloads of the local stack (Kafka, PostgreSQL), shared between checkouts."
    )

    # -- the rest of an installation, for `iot acceptance` ------------------------------------------------------
    harbor_url: str = Field("", description="Harbor, such as http://192.168.1.100:8080.")
    harbor_login_file: Path | None = Field(
        None, description="File with the robot account: as harbor.py writes it, or name:secret in one line."
    )
    prometheus_url: str = Field("", description="Prometheus, such as http://192.168.1.100:9090.")
    grafana_url: str = Field("", description="Grafana, such as https://grafana.example.com.")
    grafana_login_file: Path | None = Field(None, description="File with a service account's token, or name:password in one line.")
    kubernetes_namespace: str = Field("iot", description="Namespace of the platform in the cluster that KUBECONFIG names.")
    kubernetes_nodes: int = Field(3, ge=1, description="Nodes that the cluster has at least.")

    @field_validator(
        "mqtt_port",
        "kafka_port",
        "postgres_port",
        "dagster_port",
        "ingest_http_port",
        "metrics_port",
        "alert_bridge_port",
        "console_port",
        "prometheus_port",
        "alertmanager_port",
        "kafka_exporter_port",
        "postgres_exporter_port",
        "node_exporter_port",
        mode="before",
    )
    @classmethod
    def _no_service_address(cls, value: object, info: ValidationInfo) -> object:
        return cls.model_fields[info.field_name or ""].default if is_service_address(value) else value

    @field_validator("influx_measurement")
    @classmethod
    def _influx_measurement(cls, value: str) -> str:
        if value.startswith("#") or re.search(r"[\x00-\x1f\x7f\\]", value):
            raise ValueError("must not begin with # (InfluxDB takes such a line for a comment), nor hold backslashes or control characters")
        return value

    @field_validator("topic_pattern")
    @classmethod
    def _pattern_levels(cls, value: str) -> str:
        if not value or value.startswith("/") or "#" in value:
            raise ValueError("must be topic levels separated by /, without # and without a leading /")
        return value

    @field_validator("default_timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError("must be an IANA zone such as UTC or Asia/Shanghai") from error
        return value

    @field_validator("mqtt_url", "metrics_mqtt_url")
    @classmethod
    def _mqtt_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ValueError("must be mqtt://host[:port] or mqtts://host[:port]")
        _ = parts.port  # raises ValueError for a port that is none
        return value

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _brokers(cls, value: str) -> str:
        for broker in value.split(","):
            parts = urlsplit(f"//{broker.strip().rpartition('://')[2]}")
            if not parts.hostname or parts.port == 0:
                raise ValueError("must be host:port[,host:port]")
        return value

    @field_validator("kafka_topic", "kafka_dead_letter_topic")
    @classmethod
    def _topic_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", value) or value in (".", ".."):
            raise ValueError("must be a Kafka topic name: letters, digits and . _ -")
        return value

    @field_validator("kafka_accept_risks")
    @classmethod
    def _known_risks(cls, value: str) -> str:
        risks = [risk.strip() for risk in value.split(",") if risk.strip()]
        if unknown := [risk for risk in risks if risk not in RISKS]:
            also = "; flush is IOT_KAFKA_FLUSH=false" if "flush" in unknown else ""
            raise ValueError(f"must be words out of {', '.join(RISKS)}, with commas between{also}")
        return ",".join(risks)

    @field_validator("backup_repository")
    @classmethod
    def _folder_or_s3(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and not (Path(value).is_absolute() or (parts.scheme == "s3" and parts.netloc)):
            raise ValueError("must be an absolute path or s3://bucket/prefix")
        return value.rstrip("/")

    @field_validator("harbor_url", "prometheus_url", "grafana_url", "console_url", "oidc_issuer")
    @classmethod
    def _http_or_none(cls, value: str) -> str:
        parts = urlsplit(value.strip())
        if value.strip() and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("must be http://host[:port] or https://host[:port]")
        return value.strip().rstrip("/")

    @field_validator("dagster_url", "ingest_http_url")
    @classmethod
    def _http_scheme(cls, value: str, info: ValidationInfo) -> str:
        urls = [url.strip().rstrip("/") for url in (value.split(",") if info.field_name == "ingest_http_url" else [value])]
        for parts in map(urlsplit, urls):
            named = info.field_name == "ingest_http_url" and parts.scheme == "dns+http" and parts.port
            if not (parts.scheme in ("http", "https") or named) or not parts.hostname:
                raise ValueError("must be http://host[:port] or https://host[:port]")
        return ",".join(urls)

    @field_validator(
        "database_url", "database_admin_url", "database_reader_url", "read_database_url", "dagster_storage_url", "console_database_url"
    )
    @classmethod
    def _postgres_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and urlsplit(value.get_secret_value()).scheme.split("+")[0] not in ("postgresql", "postgres"):
            raise ValueError("must be postgresql://user:password@host[:port]/database")
        return value

    @field_validator("*")
    @classmethod
    def _absolute(cls, value: object) -> object:
        return home.absolute(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.kafka_sasl_password and self.kafka_sasl_password_file:
            raise ValueError("IOT_KAFKA_SASL_PASSWORD and IOT_KAFKA_SASL_PASSWORD_FILE exclude each other: set one of them")
        if self.mqtt_password_file and urlsplit(self.mqtt_url.get_secret_value()).password is not None:
            raise ValueError("IOT_MQTT_PASSWORD_FILE and a password in IOT_MQTT_URL exclude each other: leave one out")
        return self

    @model_validator(mode="after")
    def _identity_has_a_source(self) -> Self:
        for name in ("tenant", "project"):
            if f"{{{name}}}" not in self.topic_pattern and not getattr(self, f"{name}_pointers"):
                raise ValueError(f"IOT_TOPIC_PATTERN has no {{{name}}}, so IOT_{name.upper()}_POINTERS must name one")
        return self

    @model_validator(mode="after")
    def _provider_knows_us(self) -> Self:
        if self.oidc_issuer and not self.oidc_client_id:
            raise ValueError("IOT_OIDC_ISSUER needs IOT_OIDC_CLIENT_ID")
        if self.oidc_issuer and "openid" not in self.oidc_scope.split():
            raise ValueError("IOT_OIDC_SCOPE must have openid")
        return self

    @property
    def admin_url(self) -> str:
        """libpq URL of the database's owner."""
        return (self.database_admin_url or self.database_url).get_secret_value()

    @property
    def writer_url(self) -> str:
        """libpq URL of the writing role."""
        return self.database_url.get_secret_value()

    @property
    def dagster_database_url(self) -> str:
        """SQLAlchemy URL of Dagster's storage; names the driver, because SQLAlchemy 2.1 takes a bare postgresql:// as psycopg 3."""
        own = self.dagster_storage_url.get_secret_value() if self.dagster_storage_url else None
        parts = urlsplit(own or self.writer_url)
        query = parts.query if own else "&".join(filter(None, (parts.query, "options=-csearch_path%3Ddagster")))
        return parts._replace(scheme="postgresql+psycopg2", query=query).geturl()


def explain(error: ValidationError) -> str:
    """One line per broken setting: the variable's name and the rule it breaks, never its value."""
    lines = []
    for item in error.errors(include_input=False, include_url=False):
        name = "IOT_" + "_".join(str(part) for part in item["loc"]).upper() if item["loc"] else ""
        lines.append(f"{name}: {item['msg'].removeprefix('Value error, ')}".lstrip(": "))
    return "\n".join(lines)


def explain_unreadable(error: UnreadableError) -> str:
    """The variable whose value is no JSON, and the rule."""
    name = re.search(r'field "(\w+)"', str(error))
    return f"IOT_{name[1].upper()}: must be JSON, as shown in .env.example" if name else str(error)


def exports(settings: BaseSettings) -> dict[str, str]:
    """Variable → value, secrets included, from which the same settings can be read again; what is None is left out."""
    values = settings.model_dump(mode="python", exclude_none=True)
    plain = {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()}
    return {f"IOT_{name.upper()}": json.dumps(value) if isinstance(value, (tuple, dict)) else str(value) for name, value in plain.items()}


_DATABASE_FIELDS = frozenset(
    {
        "database_url",
        "database_admin_url",
        "database_reader_url",
        "dagster_storage_url",
        "console_database_url",
        "console_key_file",
        "backup_exec",
        "backup_config",
        "backup_drill_config",
    }
)


def user_settings() -> Settings:
    """What the user said in environment and `.env` (`model_fields_set`), without what `iot up` noted of the local stack."""
    return _load({})


def stack_notes() -> dict[str, str]:
    """Field name → value, as `iot up` noted them; empty without a local stack."""
    return {name.removeprefix("IOT_").lower(): value for name, value in dotenv_values(home.stack_notes_file()).items() if value is not None}


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read at the first call: environment over `.env` over the secrets' folder over the notes of
    `iot up` over defaults.

    Raises:
        SettingsError: a variable breaks its rule, or is no setting. Never retry.
    """
    said = set(user_settings().model_fields_set)
    if "database_url" in said:  # never mix the user's database with roles of the local one
        said |= _DATABASE_FIELDS
    if "mqtt_url" in said:  # nor the user's broker with figures of the local one
        said.add("metrics_mqtt_url")
    settings = _load({name: value for name, value in stack_notes().items() if name not in said})
    logs.follow(settings.log_format, settings.log_level)
    return settings


def _load(notes: dict[str, str]) -> Settings:
    files = home.env_files()
    if lines := misspelt(files):
        raise SettingsError("\n".join(lines))
    try:
        return Settings(_env_file=files, _secrets_dir=secrets_dir(files), **notes)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(explain(error)) from error
    except UnreadableError as error:  # says which field only in its text
        raise SettingsError(explain_unreadable(error)) from error
