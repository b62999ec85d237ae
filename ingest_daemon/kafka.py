"""The way into Kafka: an idempotent producer that never gives up."""

import logging
import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from ingest_daemon.errors import IngestError, SettingsError
from ingest_daemon.settings import Settings

BATCH_BYTES = 900_000  # below Kafka's default max.message.bytes (1,048,588), which limits whole batches
OVERHEAD_BYTES = 256 * 1024  # key (an MQTT topic, at most 65,535), headers and framing of one record
REPLACE_SECONDS = 5.0

log = structlog.get_logger("ingest.kafka")


class KafkaStuckError(IngestError):
    """librdkafka keeps messages without reporting on them; end the process, the MQTT broker redelivers them."""


def producer_config(settings: Settings) -> dict[str, Any]:
    """librdkafka settings; a delivery report without error means the record is on every in-sync replica."""
    return {
        "client.id": settings.ingest_client_id,
        "linger.ms": 5,
        "compression.type": "lz4",
        "batch.size": BATCH_BYTES,
        "reconnect.backoff.max.ms": 2000,
        "socket.keepalive.enable": True,
        "queue.buffering.max.kbytes": max(65_536, 4 * settings.ingest_in_flight_bytes // 1024),
        **settings.kafka_config(),
        **settings.ingest_kafka_options,
        "acks": "all",
        "enable.idempotence": True,
        "delivery.timeout.ms": 0,  # for ever: a time-out would be a failure that says nothing about the record
        "message.max.bytes": settings.ingest_max_record_bytes + OVERHEAD_BYTES,
        "queue.buffering.max.messages": 100_000 + settings.ingest_in_flight_window,
        "partitioner": "murmur2_random",  # as Java clients do: the same key, the same partition, whoever writes
        "allow.auto.create.topics": False,
    }


class Channel:
    """A producer that is replaced when librdkafka calls an error fatal. `produce` is `Producer.produce`.

    Raises SettingsError at the start when librdkafka doesn't accept its configuration.

    Replacing reports every unfinished record as failed first, so each owner sends it again; a record whose report was on its
    way may then be in Kafka twice, under the same connection number and sequence.
    """

    def __init__(self, config: dict[str, Any], factory: Callable[..., Any] = Producer) -> None:
        self._config = config
        self._factory = factory
        self.fatal: str | None = None
        self._open()

    def _open(self) -> None:
        try:
            self._producer = self._factory({**self._config, "error_cb": self._on_error}, logger=logging.getLogger("ingest.librdkafka"))
        except KafkaException as error:
            raise SettingsError(f"IOT_INGEST_KAFKA_OPTIONS or IOT_KAFKA_*: {error.args[0].str()}") from error
        self.produce = self._producer.produce

    def _on_error(self, error: Any) -> None:
        if error.fatal():
            self.fatal = error.str()
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            log.warning("kafka_unreachable", reason=error.str(), setting="IOT_KAFKA_BOOTSTRAP_SERVERS")
        else:
            log.debug("kafka_error", reason=error.str())

    def __len__(self) -> int:
        return len(self._producer)

    def poll(self) -> None:
        """Run the delivery callbacks that are due; replaces a producer that failed for good. Raises KafkaStuckError."""
        self._producer.poll(0)
        if self.fatal is not None:
            self._replace()

    def _replace(self) -> None:
        log.error("producer_replaced", reason=self.fatal)
        self.discard()
        self._open()
        self.fatal = None

    def discard(self) -> None:
        """Report every unfinished record as failed; bounded. Raises KafkaStuckError when librdkafka won't."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        deadline = time.monotonic() + REPLACE_SECONDS
        while len(self._producer) and time.monotonic() < deadline:
            self._producer.poll(0.05)
        if len(self._producer):
            raise KafkaStuckError(f"librdkafka did not give up {len(self._producer)} messages within {REPLACE_SECONDS:.0f} s")


def setting_for(error: Any) -> str:
    """The setting to look at for a Kafka error."""
    code = error.code()
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
        return "IOT_KAFKA_TOPIC"
    if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError._AUTHENTICATION):
        return "IOT_KAFKA_SASL_USERNAME"
    if code == KafkaError.INVALID_TIMESTAMP:
        return "IOT_KAFKA_TOPIC: set message.timestamp.type=LogAppendTime on it, or correct this host's clock"
    return "IOT_KAFKA_BOOTSTRAP_SERVERS"
