"""The way into Kafka: an idempotent producer that never gives up, and what happens to what it could not deliver."""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from ingest_daemon.dead_letter import ABOUT_THE_MESSAGE, Refused
from ingest_daemon.envelope import HEADER
from ingest_daemon.errors import IngestError, SettingsError
from ingest_daemon.inflight import Pending
from ingest_daemon.settings import Settings

BATCH_BYTES = 900_000  # below Kafka's default max.message.bytes (1,048,588), which limits whole batches
OVERHEAD_BYTES = 256 * 1024  # key (an MQTT topic, at most 65,535), headers and framing of one record
FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.5, 15.0
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


class KafkaSink:
    """Sends each message until it is in Kafka, or in the dead-letter topic when Kafka refuses it for what it is.

    Nothing blocks. A failed delivery report never settles a message. `stalled` asks for no more messages for now.
    The disk spool will stand here, between the bridge and the producer: it has to offer the same members.
    """

    def __init__(self, settings: Settings, factory: Callable[..., Any] = Producer, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._topic = settings.kafka_topic
        self._clock = clock
        self._channel = Channel(producer_config(settings), factory)
        self._refused = Refused(
            settings, lambda: Channel({**producer_config(settings), "batch.num.messages": 1, "linger.ms": 0}, factory), clock
        )
        self._waiting: list[Pending] = []
        self._retry_at = self._last_failure = 0.0
        self._delay = FIRST_DELAY_SECONDS
        self._closing = False
        self.problem: str | None = None

    @property
    def stalled(self) -> bool:
        """Whether messages wait to be sent (again); newer ones of the same key must not overtake them."""
        return bool(self._waiting)

    def send(self, pending: Pending) -> None:
        """Hand a message to Kafka; its delivery report comes through `poll`."""
        if self._waiting:
            self._waiting.append(pending)
            return
        self._produce(pending)

    def _produce(self, pending: Pending) -> bool:
        try:
            self._channel.produce(self._topic, pending.value, pending.key, on_delivery=pending, headers=[(HEADER, pending.header)])
        except BufferError:
            self._waiting.append(pending)
            return False
        except KafkaException as error:
            self.failed(pending, error.args[0])
        return True

    def failed(self, pending: Pending, error: Any) -> None:
        """A delivery report with an error: refused for good, or to be sent again."""
        if self._closing:
            return
        code = error.code()
        if code in ABOUT_THE_MESSAGE:
            self._refused.take(pending, error.str())
            return
        if error.fatal() or code == KafkaError._FATAL:
            self._channel.fatal = self._channel.fatal or error.str()
        now = self._clock()
        if now - self._last_failure > 2 * LAST_DELAY_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
        if not self._waiting:
            self._retry_at = now + self._delay
            self._delay = min(2 * self._delay, LAST_DELAY_SECONDS)
            log.warning("delivery_failed", reason=error.str(), code=error.name(), topic=self._topic, setting=setting_for(error))
        self._last_failure = now
        self.problem = f"Kafka: {error.str()} ({setting_for(error)})"
        self._waiting.append(pending)

    def poll(self) -> None:
        """Serve delivery reports and retries. Raises KafkaStuckError."""
        self._channel.poll()
        self._refused.poll()
        if self._waiting and self._clock() >= self._retry_at:
            self._send_again()

    def _send_again(self) -> None:
        again = sorted(self._waiting, key=lambda pending: (pending.connection.number, pending.sequence))
        self._waiting = []
        for position, pending in enumerate(again):
            if not self._produce(pending) or self._waiting:
                self._waiting.extend(again[position + 1 :])
                return

    def close(self) -> None:
        """Drop what is unfinished, without a report to anyone: it was not acknowledged, the MQTT broker redelivers it."""
        self._closing = True
        with contextlib.suppress(KafkaStuckError):
            self._channel.discard()
            self._refused.close()


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
