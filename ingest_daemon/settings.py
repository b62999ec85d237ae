"""The ingest daemon's settings: read once from environment and `.env`, validated, frozen; unsafe ones are refused by name."""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableError

from ingest_daemon import topic_filters
from ingest_daemon.errors import SettingsError
from ingest_daemon.home import absolute, env_files, local_dir, stack_notes_file
from ingest_daemon.server_settings import ServerSettings, text
from ingest_daemon.variables import is_service_address, misspelt, secrets_dir

DAY_SECONDS = 86_400

# What makes a delivery report worth a PUBACK. A user who changes one of these loses messages without an error.
GUARANTEED_BY_US = frozenset(
    [
        "acks",
        "request.required.acks",
        "enable.idempotence",
        "enable.gapless.guarantee",
        "delivery.timeout.ms",
        "message.timeout.ms",
        "retries",
        "message.send.max.retries",
        "max.in.flight",
        "max.in.flight.requests.per.connection",
        "transactional.id",
        "delivery.report.only.error",
        "message.max.bytes",
        "queue.buffering.max.messages",
        "partitioner",
        "queuing.strategy",
        "bootstrap.servers",
    ]
)


class Settings(ServerSettings, BaseSettings):
    """Everything that can be set from outside; each field is the variable `IOT_<FIELD>` in upper case."""

    model_config = SettingsConfigDict(env_prefix="IOT_", extra="ignore", frozen=True, env_ignore_empty=True)

    secrets_dir: Path | None = Field(
        None,
        description="Folder of files that hold settings, each named as its variable in lower case (iot_database_url): mounted secrets. "
        "Environment and .env beat them.",
    )
    mqtt_url: SecretStr = Field(
        SecretStr("mqtt://127.0.0.1:1883"), description="MQTT broker, mqtt://[user:password@]host[:port] or mqtts:// for TLS."
    )
    mqtt_tls_ca_file: Path | None = Field(
        None, description="CA certificates (PEM) that sign the broker's certificate; system CAs unless set."
    )
    mqtt_tls_cert_file: Path | None = Field(None, description="Client certificate (PEM) for the broker.")
    mqtt_tls_key_file: Path | None = Field(None, description="Private key (PEM) of the client certificate.")
    mqtt_protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto",
        description="MQTT version: 5, 3.1.1, or auto: 5, and 3.1.1 with a broker that does not speak it, which is remembered.",
    )
    mqtt_password_file: Path | None = Field(
        None, description="File that holds the broker's password, instead of one in IOT_MQTT_URL; when it changes, the new one is used."
    )
    mqtt_topic_filter: str = Field(
        "mtic/msg/client/realtime/#",
        description='MQTT topic filter that the ingest daemon subscribes to, or a JSON list: ["plant/+/line/#", "lab/#"].',
    )
    mqtt_topic_filter_file: Path | None = Field(
        None,
        description="File with topic filters, one a line, instead of IOT_MQTT_TOPIC_FILTER; when it changes, the running daemon "
        "subscribes to the new ones, then unsubscribes from those that are gone.",
    )

    kafka_bootstrap_servers: str = Field("127.0.0.1:9092", min_length=1, description="Kafka brokers, host:port[,host:port].")
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
    kafka_topic: str = Field("iot-messages", min_length=1, description="Kafka topic that holds every received message.")
    kafka_dead_letter_topic: str = Field("iot-dead-letter", min_length=1, description="Kafka topic for messages that Kafka refused.")

    ingest_client_id: str = Field(
        "iot-ingest",
        min_length=1,
        max_length=1024,
        description="MQTT client id. The broker keeps unacknowledged messages under this name: keep it.",
    )
    ingest_shared_group: str | None = Field(
        None, description="Shared subscription group ($share/<group>/…) when several daemons divide the load; each needs its own client id."
    )
    ingest_session_expiry_seconds: int = Field(
        7 * DAY_SECONDS,
        ge=DAY_SECONDS,
        le=0xFFFFFFFF,
        description="How long the broker keeps messages for a daemon that is away; at least a day.",
    )
    ingest_in_flight_window: int = Field(
        10_000,
        ge=1,
        le=65535,
        description="Most messages received but not yet in Kafka. Full: the broker holds the rest (MQTT receive maximum). "
        "A disk that syncs slowly wants a large one: Kafka syncs once a batch.",
    )
    ingest_in_flight_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="Most payload bytes received but not yet in Kafka. Full: reading from the broker pauses."
    )
    ingest_keepalive_seconds: int = Field(
        30, ge=5, le=3600, description="MQTT keepalive: a silent connection is given up after about this long."
    )
    ingest_max_record_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        le=90_000_000,
        description="A larger message goes to the dead-letter topic in parts without asking Kafka first.",
    )
    ingest_silent_seconds: float | None = Field(
        None,
        ge=1,
        le=31_536_000,
        description="Not ready when connected and without any message for so long: longer than your devices ever pause. Unless set, it is "
        "learnt from the pauses of the past week, and only told (/readyz stays 200).",
    )
    ingest_shutdown_seconds: float = Field(
        10.0,
        ge=0,
        le=300,
        description="On SIGTERM, how long to wait: half of it for Kafka, then for the spool; the rest is left to redelivery.",
    )
    ingest_http_host: str = Field("127.0.0.1", description="Address that /healthz, /readyz and /metrics listen on; 0.0.0.0 for all.")
    ingest_http_port: int = Field(9108, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics; 0 takes a free one.")
    ingest_state_dir: Path = Field(
        default_factory=lambda: local_dir() / "ingest",
        description="Where the spool and the daemon's counters are kept; give each daemon a directory on a disk that survives restarts. "
        "Installed without a checkout: ~/.local/share/iot-platform/ingest.",
    )
    ingest_spool_bytes: int = Field(
        8 * 1024**3,
        ge=1024**2,
        description="Most bytes kept on disk while Kafka can't take messages. Full: no more are acknowledged, the broker holds the rest.",
    )
    ingest_spool_after_seconds: float = Field(
        2.0, gt=0, le=3600, description="When Kafka has not confirmed a message for so long, messages go to the spool on disk."
    )
    ingest_log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line that is written.")
    ingest_sparkplug_partitions: int = Field(
        1,
        ge=0,
        le=1000,
        description="Messages of Sparkplug B edge nodes go to the first so many Kafka partitions, each node's all to one: its births must "
        "come before its data. After a change, data waits in quarantine (no_birth) until its node is born again. 0: by topic, like others.",
    )
    ingest_kafka_options: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description='More librdkafka producer properties (JSON), such as {"compression.type": "zstd", "linger.ms": 20}.',
    )

    @field_validator("mqtt_url")
    @classmethod
    def _mqtt_parts(cls, value: SecretStr) -> SecretStr:
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ValueError("must be mqtt://host[:port] or mqtts://host[:port]")
        if parts.query or parts.fragment or parts.path not in ("", "/"):
            raise ValueError("takes no path or options: the session is always persistent, QoS 1; the MQTT version is IOT_MQTT_PROTOCOL")
        _ = parts.port  # raises ValueError for a port that is none
        return value

    @field_validator("mqtt_topic_filter")
    @classmethod
    def _topic_filter(cls, value: str) -> str:
        topic_filters.parse(value)
        return value

    @field_validator("ingest_client_id")
    @classmethod
    def _client_id(cls, value: str) -> str:
        if value != value.strip() or "\0" in value:
            raise ValueError("must be a stable name without surrounding blanks; a random one loses what the broker kept for the last")
        if len(value.encode("utf-8", "surrogatepass")) > 1024:
            raise ValueError("must have at most 1024 bytes: the drain takes no longer one")
        return value

    @field_validator("ingest_http_port", mode="before")
    @classmethod
    def _no_service_address(cls, value: object, info: ValidationInfo) -> object:
        return cls.model_fields[info.field_name or ""].default if is_service_address(value) else value

    @field_validator("ingest_shared_group", "kafka_sasl_mechanism", "kafka_sasl_username", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return value or None

    @field_validator("ingest_shared_group")
    @classmethod
    def _group(cls, value: str | None) -> str | None:
        if value is not None and (not value or any(sign in value for sign in "/+#\0")):
            raise ValueError("must be a name without / + #")
        return value

    @field_validator("ingest_kafka_options")
    @classmethod
    def _safe_options(cls, value: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
        for key in value:
            if key in GUARANTEED_BY_US or key.endswith("_cb"):
                raise ValueError(f"{key} can't be changed: PUBACK is sent on the strength of it")
        return value

    @field_validator("*")
    @classmethod
    def _absolute(cls, value: object) -> object:
        return absolute(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.mqtt_protocol == "3.1.1" and self.ingest_shared_group:
            raise ValueError(
                "IOT_INGEST_SHARED_GROUP needs MQTT 5 (IOT_MQTT_PROTOCOL): in 3.1.1 $share/… may be an ordinary topic, and nothing would "
                "come; give each daemon topics of its own by IOT_MQTT_TOPIC_FILTER"
            )
        if self.kafka_topic == self.kafka_dead_letter_topic:
            raise ValueError("IOT_KAFKA_DEAD_LETTER_TOPIC must differ from IOT_KAFKA_TOPIC")
        if bool(self.mqtt_tls_cert_file) != bool(self.mqtt_tls_key_file):
            raise ValueError("IOT_MQTT_TLS_CERT_FILE and IOT_MQTT_TLS_KEY_FILE belong together: set both or none")
        if not self.mqtt_tls and (self.mqtt_tls_ca_file or self.mqtt_tls_cert_file):
            raise ValueError("IOT_MQTT_TLS_* is set but IOT_MQTT_URL begins with mqtt://; write mqtts:// for TLS")
        if self.mqtt_password_file and urlsplit(self.mqtt_url.get_secret_value()).password is not None:
            raise ValueError("IOT_MQTT_PASSWORD_FILE and a password in IOT_MQTT_URL exclude each other: leave one out")
        if self.mqtt_password_file and not urlsplit(self.mqtt_url.get_secret_value()).username:
            raise ValueError("IOT_MQTT_PASSWORD_FILE needs a user in IOT_MQTT_URL: mqtt://user@host")
        if self.kafka_security_protocol.startswith("SASL") and not self.kafka_sasl_mechanism:
            raise ValueError(f"IOT_KAFKA_SASL_MECHANISM must be set with IOT_KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol}")
        if self.kafka_sasl_password and self.kafka_sasl_password_file:
            raise ValueError("IOT_KAFKA_SASL_PASSWORD and IOT_KAFKA_SASL_PASSWORD_FILE exclude each other: set one of them")
        for name in (
            "mqtt_tls_ca_file",
            "mqtt_tls_cert_file",
            "mqtt_tls_key_file",
            "mqtt_password_file",
            "mqtt_topic_filter_file",
            "kafka_ssl_ca_file",
            "kafka_ssl_cert_file",
            "kafka_ssl_key_file",
            "kafka_sasl_password_file",
        ):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"IOT_{name.upper()}: no such file")
        return self

    @property
    def mqtt_tls(self) -> bool:
        """Whether the broker is reached through TLS."""
        return self.mqtt_url.get_secret_value().startswith("mqtts:")

    @property
    def mqtt_address(self) -> tuple[str, int]:
        """Host and port of the broker."""
        parts = urlsplit(self.mqtt_url.get_secret_value())
        return parts.hostname or "", parts.port or (8883 if self.mqtt_tls else 1883)

    def topic_filters(self) -> tuple[str, ...]:
        """The topic filters as they are now, without the shared group: read from IOT_MQTT_TOPIC_FILTER_FILE at each call if that is set.

        Raises:
            SettingsError: the file can't be read, or holds something else. Retry: it may be being replaced.
        """
        file = self.mqtt_topic_filter_file
        if file is None:
            return topic_filters.parse(self.mqtt_topic_filter)
        try:
            return topic_filters.parse_lines(text(file, "IOT_MQTT_TOPIC_FILTER_FILE"))
        except ValueError as error:
            raise SettingsError(f"IOT_MQTT_TOPIC_FILTER_FILE: {file}: {error}") from error

    def subscription(self, topic_filter: str) -> str:
        """A topic filter as sent to the broker."""
        return f"$share/{self.ingest_shared_group}/{topic_filter}" if self.ingest_shared_group else topic_filter


def explain(error: ValidationError) -> str:
    """One line per broken setting: the variable's name and the rule it breaks, never its value."""
    lines = []
    for item in error.errors(include_input=False, include_url=False):
        name = f"IOT_{str(item['loc'][0]).upper()}: " if item["loc"] else ""
        lines.append(name + item["msg"].removeprefix("Value error, "))
    return "\n".join(lines)


def load() -> Settings:
    """The daemon's settings; weakest first: the secrets' folder, what the local stack noted, `.env`, the environment.

    Raises:
        SettingsError: a variable breaks its rule, or is no setting. Never retry.
    """
    files = env_files()
    if lines := misspelt(files):
        raise SettingsError("\n".join(lines))
    try:
        return Settings(_env_file=(stack_notes_file(), *files), _secrets_dir=secrets_dir(files))
    except ValidationError as error:
        raise SettingsError(explain(error)) from error
    except UnreadableError as error:  # the one field that is JSON
        raise SettingsError("IOT_INGEST_KAFKA_OPTIONS: must be a JSON object, as shown in .env.example") from error
