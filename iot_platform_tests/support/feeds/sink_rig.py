"""What the tests of the daemon's sink share: a scripted producer, and a sink on a real spool file that goes step by step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from ingest_daemon.credentials import Credentials
from ingest_daemon.inflight import Connection, InFlight, Pending, Settled
from ingest_daemon.settings import Settings
from ingest_daemon.sink import Sink
from ingest_daemon.spool import Spool
from ingest_daemon.spool_store import SpoolStore
from ingest_daemon.spool_thread import Done, Store, Work, perform

Record = tuple[str, bytes, bytes, list[tuple[str, bytes]]]


class Script:
    """All producers of a sink; `answer` says what becomes of a record: None delivered, an error, or "hold"."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.delivered: list[Record] = []
        self.producers: list[ScriptedProducer] = []
        self.answer: Callable[[Record], Any] = lambda _record: None
        self.full = False
        self.unmakable = False  # whether librdkafka refuses the configuration
        self.fatal_code: int | None = None  # of each new producer

    def make(self, config: dict[str, Any], **_options: Any) -> "ScriptedProducer":
        if self.unmakable:
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG, "ssl.certificate.location failed"))
        self.producers.append(ScriptedProducer(self, config))
        if self.fatal_code is not None:
            self.producers[-1].fail(self.fatal_code)
        return self.producers[-1]


class ScriptedProducer:
    """Does as librdkafka does with a fatal error (test_ingest_rights has the real one): poll() raises it, once, before the reports;
    all that is unfinished has failed as purged, and produce() raises _FATAL, which doesn't call itself fatal."""

    def __init__(self, script: Script, config: dict[str, Any]) -> None:
        self.script, self.config = script, config
        self.queue: list[tuple[Record, Any]] = []
        self.purged = False
        self.fatal: KafkaError | None = None
        self.raised = False
        self.password: tuple[str, str] | None = None

    def set_sasl_credentials(self, user: str, password: str) -> None:
        self.password = user, password

    def fail(self, code: int) -> None:
        """From now on nothing but a new producer helps."""
        self.fatal = KafkaError(code, fatal=True)
        self.purged = True

    def produce(
        self, topic: str, value: bytes, key: bytes, partition: int = -1, *, on_delivery: Any, headers: list[tuple[str, bytes]]
    ) -> None:
        assert partition == -1
        if self.fatal is not None:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        if self.script.full:
            raise BufferError
        if len(value) > self.config["message.max.bytes"]:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        record = (topic, value, key, headers)
        self.script.records.append(record)
        self.queue.append((record, on_delivery))

    def poll(self, _timeout: float) -> int:
        if self.fatal is not None and not self.raised:
            self.raised = True
            raise KafkaException(self.fatal)
        queue, self.queue = self.queue, []
        for record, report in queue:
            error = KafkaError(KafkaError._PURGE_QUEUE) if self.purged else self.script.answer(record)
            if isinstance(error, str):
                self.queue.append((record, report))
                continue
            if error is None:
                self.script.delivered.append(record)
            report(error, None)
        return len(queue)

    def purge(self, **_options: Any) -> None:
        self.purged = True

    def __len__(self) -> int:
        return len(self.queue)


class StepDisk:
    """Does a round when it is polled, in the caller's thread; not while `hanging`."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.store = store
        self.clock = clock
        self.work: Work | None = None
        self.since = 0.0
        self.hanging = False

    def submit(self, work: Work) -> None:
        assert self.work is None
        self.work = work
        self.since = self.clock()

    def poll(self) -> Done | None:
        if self.work is None or self.hanging:
            return None
        done, self.work = perform(self.store, self.work), None
        return done

    def close(self) -> None:
        self.store.close()


class Rig:
    """A sink, its window and its spool; `turns` does what the bridge does."""

    def __init__(self, folder: Path, script: Script | None = None, connection: int = 1, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.script = script or Script()
        self.now = 0.0
        self.store = SpoolStore(folder / "spool.sqlite", self.settings.ingest_spool_bytes, reserve_bytes=0)
        self.disk = StepDisk(self.store, lambda: self.now)
        self.in_flight = InFlight()
        self.spool = Spool(self.disk, self.store.last_id, self.store.level, lambda: self.now)
        self.credentials = Credentials(self.settings)
        self.sink = Sink(
            self.settings, self.in_flight, self.spool,
            factory=self.script.make, clock=lambda: self.now, credentials=self.credentials,
        )  # fmt: skip
        self.connection = Connection(connection, self.sink)
        self.acknowledged: list[int] = []
        self.delivered = self.dead_lettered = 0
        self.spooled = self.found = self.store.level.entries

    def send(self, *values: bytes, key: bytes = b"topic") -> list[Pending]:
        made = []
        for value in values:
            self.connection.sequence += 1
            sequence = self.connection.sequence
            message = Pending(self.connection, sequence, sequence, key, value, (b"%d/%d" % (self.connection.number, sequence)).ljust(28))
            self.sink.take([message])
            made.append(message)
        return made

    def turns(self, count: int = 10, seconds: float = 0.0) -> None:
        for _ in range(count):
            self.now += seconds
            self.sink.poll()
            self.count(self.in_flight.settle(self.connection))
            self.sink.push()

    def count(self, settled: Settled) -> None:
        self.acknowledged += settled.packet_ids
        left, left_dead_lettered = self.sink.take_left()
        self.spooled += settled.spooled - left - left_dead_lettered
        self.delivered += settled.delivered + left
        self.dead_lettered += settled.dead_lettered + left_dead_lettered
        assert self.spooled >= 0
        assert self.found + self.connection.sequence == self.delivered + self.dead_lettered + self.spooled + len(self.in_flight)

    def values(self) -> list[bytes]:
        """What Kafka has, in the order in which it took it."""
        return [record[1] for record in self.script.delivered]

    def close(self) -> None:
        self.disk.close()
