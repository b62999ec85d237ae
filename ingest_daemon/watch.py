"""Asks Kafka now and then whether it is there and has our topics, so that readiness is known without traffic."""

import threading
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from ingest_daemon import partitions
from ingest_daemon.settings import Settings

INTERVAL_SECONDS, ANSWER_SECONDS = 5.0, 4.0

log = structlog.get_logger("ingest.kafka")


class KafkaWatch:
    """A thread of its own, because librdkafka's metadata request blocks. `problem` is None while all is well."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self.problem: str | None = "Kafka: not asked yet"
        self.degraded: str | None = None
        """Copies that are not in sync: nothing to complain of while Kafka confirms, and probably the reason when it doesn't."""
        self._detail = ""  # what librdkafka says of a failed connection; the request itself only times out
        self._thread = threading.Thread(target=self._run, name="kafka-watch", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Stop asking; returns at once."""
        self._stop.set()

    def explained(self, problems: list[str]) -> list[str]:
        """These problems, and what is known of Kafka itself."""
        told = self.problem or (problems and self.degraded and f"Kafka: {self.degraded}")
        return [*problems, told] if told else problems

    def _run(self) -> None:
        # librdkafka's own log lines come from the producer already.
        config: dict[str, Any] = {
            **self._settings.kafka_config(),
            "log_level": 0,
            "allow.auto.create.topics": False,
            "reconnect.backoff.max.ms": 2000,
            "error_cb": self._note,
        }
        client = AdminClient(config)
        while not self._stop.is_set():
            problem = self._ask(client)
            if problem != self.problem:
                (log.warning if problem else log.info)("kafka_not_ready" if problem else "kafka_ready", problem=problem)
                self.problem = problem
            self._stop.wait(1.0 if problem else INTERVAL_SECONDS)

    def _ask(self, client: Any) -> str | None:
        settings = self._settings
        degraded: list[str | None] = []
        try:
            for setting, topic in (
                ("IOT_KAFKA_TOPIC", settings.kafka_topic),
                ("IOT_KAFKA_DEAD_LETTER_TOPIC", settings.kafka_dead_letter_topic),
            ):
                metadata = client.list_topics(topic, timeout=ANSWER_SECONDS)
                found = metadata.topics[topic]
                if found.error is None:
                    if waiting := partitions.unavailable(metadata, topic, partitions.silent(client, metadata, topic, ANSWER_SECONDS)):
                        return f"Kafka: {waiting}"
                    degraded.append(partitions.degraded(metadata, topic))
                    continue
                if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    return f"Kafka: topic {topic} does not exist; create it or set {setting}"
                return f"Kafka: topic {topic}: {found.error.str()} ({setting})"
        except KafkaException as error:
            client.poll(0)  # runs _note
            reason, self._detail = self._detail or f"{error.args[0].str()} (IOT_KAFKA_BOOTSTRAP_SERVERS)", ""
            return f"Kafka: no answer from {settings.kafka_bootstrap_servers}: {reason}"
        self.degraded = "; ".join(filter(None, degraded)) or None
        return None

    def _note(self, error: Any) -> None:
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
            self._detail = f"{error.str()} (IOT_KAFKA_SECURITY_PROTOCOL, IOT_KAFKA_SASL_*, IOT_KAFKA_SSL_*)"
