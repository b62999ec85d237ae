"""The way into Kafka: an idempotent producer that never gives up."""

import logging
import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from ingest_daemon.errors import IngestError, SettingsError
from ingest_daemon.kafka_causes import ConnectionCause
from ingest_daemon.settings import Settings

BATCH_BYTES = 900_000  # below Kafka's default max.message.bytes (1,048,588), which limits whole batches
LEAST_BATCH_BYTES = 1024
OVERHEAD_BYTES = 256 * 1024  # key (an MQTT topic, at most 65,535), headers and framing of one record
# A broker with a small window sends nothing more until we acknowledge: then each batch would wait out the linger. 0 costs a third more CPU
# at full speed, half a millisecond nothing.
LINGER_MS = 0.5
REPLACE_SECONDS = 5.0

log = structlog.get_logger("ingest.kafka")


class KafkaStuckError(IngestError):
    """librdkafka keeps messages without reporting on them; end the process, the MQTT broker redelivers them."""


def producer_config(settings: Settings) -> dict[str, Any]:
    """librdkafka settings; a delivery report without error means the record is on every in-sync replica."""
    return {
        "client.id": settings.ingest_client_id,
        "linger.ms": LINGER_MS,
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
        "partitioner": "murmur2_random",  # as Java clients do: the same key, the same partition, in every client
        "allow.auto.create.topics": False,
    }


class Channel:
    """A producer that can be replaced. `produce` is `Producer.produce`; after a fatal error it raises BufferError until `renew`.

    librdkafka raises a fatal error out of poll(), once, and reports everything unfinished as failed; nothing but a new producer
    helps then. (flush() would go on with delivery reports while that exception is pending, and what they call would fail: never use it.)
    Replacing, too, reports what is unfinished as failed, so each owner sends it again; a record whose report was on its way may
    then be in Kafka twice, under the same connection number and sequence.
    """

    def __init__(self, settings: Settings, factory: Callable[..., Any] = Producer, **options: Any) -> None:
        """`options`: librdkafka properties besides `producer_config`. Raises SettingsError when librdkafka doesn't accept them."""
        self._settings = settings
        self._factory = factory
        self._options = options
        self._cause = ConnectionCause(settings)
        self._suspect: Any = None
        self._next: Any = None
        self.fatal: Any = None
        """The KafkaError that ended this producer, until `renew`."""
        self.outdated = False
        """Whether this producer still makes larger batches than `batch_bytes`."""
        self.batch_bytes = int(settings.ingest_kafka_options.get("batch.size", BATCH_BYTES))
        self.refusal: str | None = None
        """Why the last attempt to make a producer was in vain."""
        self._use(self._make())

    def _make(self) -> Any:
        try:
            config = {**producer_config(self._settings), "batch.size": self.batch_bytes, **self._options, "error_cb": self._on_error}
            return self._factory(config, logger=logging.getLogger("ingest.librdkafka"))
        except KafkaException as error:
            raise SettingsError(f"IOT_INGEST_KAFKA_OPTIONS or IOT_KAFKA_*: {error.args[0].str()}") from error

    def _use(self, producer: Any) -> None:
        self._producer, self._next = producer, None
        self.produce = producer.produce
        self.fatal = self._suspect = None
        self.outdated = False
        self._cause.forget()

    def _on_error(self, error: Any) -> None:
        """Never hears of fatal errors."""
        if (found := self._cause.note(error)) is not None:
            log.warning("kafka_connection_refused", reason=found)
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and self._cause.text is None:
            log.warning("kafka_unreachable", reason=error.str(), setting="IOT_KAFKA_BOOTSTRAP_SERVERS")
        else:
            log.debug("kafka_error", reason=error.str())

    @property
    def cause(self) -> str | None:
        """Why brokers and we don't accept each other, as far as known."""
        return self._cause.text

    def __len__(self) -> int:
        return len(self._producer)

    def poll(self, seconds: float = 0.0) -> None:
        """Run the delivery callbacks that are due; waits at most so long for the first. After a fatal error, also those of everything
        unfinished. Raises KafkaStuckError.
        """
        dead = self.fatal
        self._serve(seconds)
        if self._suspect is not None and self.fatal is None:
            self._end(self._suspect)
        if self.fatal is not dead:
            self.discard()

    def suspect(self, error: Any) -> None:
        """Something else than `poll` found the producer dead; the next `poll` mostly knows why."""
        self._suspect = error

    def _serve(self, seconds: float) -> None:
        try:
            self._producer.poll(seconds)
        except KafkaException as error:
            self._end(error.args[0])

    def _end(self, error: Any) -> None:
        if self.fatal is None:
            self.fatal = error
            self.produce = _refuse
            log.debug("producer_failed", reason=error.str())

    def prepare(self) -> bool:
        """Make the next producer, with the files that the settings name as they are now; the present one goes on.

        False if librdkafka doesn't take its configuration now (a certificate that is half written); see `refusal`.
        """
        try:
            self._next = self._make()
        except SettingsError as error:
            self.refusal = str(error)
            return False
        self.refusal = None
        return True

    def renew(self) -> bool:
        """Replace the producer by the one that was prepared, or a new one. False: see `prepare`. Raises KafkaStuckError."""
        if self._next is None and not self.prepare():
            return False
        self.discard()
        self._use(self._next)
        return True

    def make_batches_smaller(self, record_bytes: int) -> bool:
        """Have the next producer make smaller batches, if a refused record of this size may have shared its batch; whether it will."""
        if self.outdated:
            return True
        if record_bytes >= self.batch_bytes or self.batch_bytes <= LEAST_BATCH_BYTES:
            return False  # it was alone
        self.batch_bytes = max(self.batch_bytes // 4, LEAST_BATCH_BYTES)
        self.outdated = True
        self._next = None
        setting = f"IOT_KAFKA_TOPIC: max.message.bytes of {self._settings.kafka_topic}"
        log.warning("batches_made_smaller", bytes=self.batch_bytes, setting=setting)
        return True

    def set_password(self, password: str) -> None:
        """Authenticate with this from now on; open connections stay."""
        for producer in (self._producer, self._next):
            if producer is not None:  # an idle one is falsy
                producer.set_sasl_credentials(self._settings.kafka_sasl_username or "", password)

    def discard(self) -> None:
        """Report every unfinished record as failed; bounded. Raises KafkaStuckError when librdkafka won't."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        deadline = time.monotonic() + REPLACE_SECONDS
        while len(self._producer) and time.monotonic() < deadline:
            self._serve(0.05)
        if len(self._producer):
            raise KafkaStuckError(f"librdkafka did not give up {len(self._producer)} messages within {REPLACE_SECONDS:.0f} s")


def _refuse(*_arguments: Any, **_options: Any) -> None:
    raise BufferError("the producer has failed for good")
