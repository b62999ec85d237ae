"""Asks Kafka now and then whether it is there and has our topics, so that readiness is known without traffic; looks for new credentials."""

import threading
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from ingest_daemon import partitions
from ingest_daemon.credentials import Credentials
from ingest_daemon.errors import SettingsError
from ingest_daemon.kafka_causes import ConnectionCause, cause
from ingest_daemon.kafka_tls import ANSWER_SECONDS, verify_message
from ingest_daemon.settings import Settings

INTERVAL_SECONDS = 5.0

log = structlog.get_logger("ingest.kafka")


class KafkaWatch:
    """A thread of its own, because librdkafka's metadata request blocks, and so may files. `problem` is None while all is well."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._settings = settings
        self._credentials = credentials
        self._in_use = credentials.current
        self._stop = threading.Event()
        self.problem: str | None = "Kafka: not asked yet"
        self.degraded: str | None = None
        """Copies that are not in sync: nothing to complain of while Kafka confirms, and probably the reason when it doesn't."""
        self._cause = ConnectionCause(settings)  # what librdkafka says of a failed connection; the request itself only times out
        self._client: Any = None
        self._thread = threading.Thread(target=self._run, name="kafka-watch", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Stop asking; returns at once."""
        self._stop.set()

    def explained(self, problems: list[str]) -> list[str]:
        """These problems, and what is known of Kafka itself."""
        known = self.problem or (problems and self.degraded and f"Kafka: {self.degraded}")
        return [*problems, known] if known else problems

    def _run(self) -> None:
        while not self._stop.is_set():
            self._credentials.look()
            problem = self._ask()
            if problem != self.problem:
                (log.warning if problem else log.info)("kafka_not_ready" if problem else "kafka_ready", problem=problem)
                self.problem = problem
            self._stop.wait(1.0 if problem else INTERVAL_SECONDS)
        self._disconnect()

    def _connect(self) -> Any:
        """A client with the credentials as they are now. Raises SettingsError and KafkaException when librdkafka refuses them."""
        found = self._credentials.current
        if found.files != self._in_use.files:
            self._disconnect()
        elif found.password is not None and found.password != self._in_use.password and self._client is not None:
            self._client.set_sasl_credentials(self._settings.kafka_sasl_username or "", found.password)
        self._in_use = found
        if self._client is None:
            # librdkafka's own log lines come from the producer already.
            config: dict[str, Any] = {
                **self._settings.kafka_config(),
                "log_level": 0,
                "allow.auto.create.topics": False,
                "reconnect.backoff.max.ms": 2000,
                "error_cb": self._cause.note,
            }
            self._client = AdminClient(config)
        return self._client

    def _disconnect(self) -> None:
        """Ends the client here and now: one that the garbage collector finds in a thread of librdkafka ends the process."""
        client, self._client = self._client, None
        if client is not None:
            with client:
                pass

    def _ask(self) -> str | None:
        settings = self._settings
        degraded: list[str | None] = []
        try:
            client = self._connect()
        except SettingsError as error:
            return str(error)
        except KafkaException as error:
            return f"Kafka: {error.args[0].str()} (IOT_KAFKA_*)"
        try:
            for setting, topic in (
                ("IOT_KAFKA_TOPIC", settings.kafka_topic),
                ("IOT_KAFKA_DEAD_LETTER_TOPIC", settings.kafka_dead_letter_topic),
            ):
                metadata = client.list_topics(topic, timeout=ANSWER_SECONDS)
                found = metadata.topics[topic]
                if found.error is None:
                    if topic == settings.kafka_topic and len(found.partitions) < (wanted := settings.ingest_sparkplug_partitions):
                        return f"Kafka: topic {topic} has {len(found.partitions)} partitions, IOT_INGEST_SPARKPLUG_PARTITIONS is {wanted}"
                    if waiting := partitions.unavailable(metadata, topic, partitions.silent(client, metadata, topic, ANSWER_SECONDS)):
                        return f"Kafka: {waiting}"
                    degraded.append(partitions.degraded(metadata, topic))
                    continue
                if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    return f"Kafka: topic {topic} does not exist; create it or set {setting}"
                if found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    return f"Kafka: {cause(found.error, settings)}"
                return f"Kafka: topic {topic}: {found.error.str()} ({setting})"
        except KafkaException as error:
            client.poll(0)  # runs the error callback
            reason = self._cause.text or f"{error.args[0].str()} (IOT_KAFKA_BOOTSTRAP_SERVERS)"
            return f"Kafka: no answer from {settings.kafka_bootstrap_servers}: {reason}{self._distrust(reason)}"
        self._cause.forget()
        self.degraded = "; ".join(filter(None, degraded)) or None
        return None

    def _distrust(self, reason: str) -> str:
        """What exactly is wrong with the broker's certificate: librdkafka has one sentence for all of it."""
        found = verify_message(self._settings) if "IOT_KAFKA_SSL_CA_FILE" in reason else ""
        return f": {found}" if found else ""
