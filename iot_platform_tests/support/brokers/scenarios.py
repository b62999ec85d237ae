"""What happens between a broker and the ingest daemon, and the verdict on every message.

Each scenario publishes numbered messages, breaks something and waits until everything has come, or nothing comes any more.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iot_platform.drills.rig.proxy import LOOPBACK, Proxy
from iot_platform.settings import Settings
from iot_platform_tests.support.brokers.observed import Observed
from iot_platform_tests.support.brokers.publisher import Publisher
from iot_platform_tests.support.brokers.run import RunningBroker
from iot_platform_tests.support.brokers.server import BrokerServer, Protocol
from iot_platform_tests.support.feeds.drain import drain, query
from iot_platform_tests.support.servers.ingest import Daemon, Record, read_all, records_held
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually

ROOT: Final = "mtic/msg/client/realtime"
_PER_SECOND: Final = 1000.0
_WAIT_SECONDS: Final = 90.0
_SHORT_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Verdict:
    """What became of the messages, as sets: each has bytes of its own."""

    broker: str
    version: str
    protocol: Protocol
    scenario: str
    published: int
    """Acknowledged by the broker to the publisher."""
    lost_by_us: int
    """Acknowledged by the daemon to the broker, and not in Kafka. Must be 0."""
    lost_by_broker: int
    """Acknowledged to the publisher, not in Kafka, and never acknowledged by the daemon."""
    never_sent: int
    """Of these, those that the broker never sent to the daemon."""
    second_copies: int
    marked: int
    """Second copies that the drain marked `duplicate_of`."""
    wrongly_marked: int
    """Marked beyond that: new messages taken for repeated ones. Must be 0."""
    out_of_order: int
    """First copies in Kafka behind one that was published later."""
    with_dup: int
    """Of the second copies, those that came with DUP."""
    sessions_lost: int
    silent: bool
    """The broker answers the publisher, or lets the daemon in, no more."""
    seconds: float
    remark: str = ""

    def check(self, broker: BrokerServer) -> None:
        """Fail unless the daemon kept its promises, and the broker lost nothing; but for the broker's known exceptions."""
        assert self.lost_by_us == 0, self
        assert self.wrongly_marked == 0, self
        if self.scenario not in broker.LEAVES_DOUBT:
            assert self.marked == self.second_copies, self
        if self.scenario not in broker.LOSES:
            assert self.lost_by_broker == 0, self
            assert not self.silent, self


@dataclass
class Rig:
    """A running broker, the daemon behind a proxy that watches, and the servers behind the daemon."""

    broker: RunningBroker
    protocol: Protocol
    servers: Servers
    settings: Settings
    folder: Path
    count: int = 1000
    observed: Observed = field(default_factory=Observed)

    def __post_init__(self) -> None:
        self.topic = f"{ROOT}/{self.settings.kafka_topic}/p"
        self.proxy = Proxy(LOOPBACK, self.broker.server.port).start()
        self.proxy.watch(self.observed)
        self.daemons = [self._daemon("a")]
        self.published = Publisher(self.broker.url, self.protocol, f"{self.topic}/d", self.count, _PER_SECOND)
        if not self.broker.pid:  # an earlier rig left it so
            self.broker.start()

    @property
    def daemon(self) -> Daemon:
        """The first one."""
        return self.daemons[0]

    def second_daemon(self) -> Daemon:
        """Another member of the shared subscription."""
        self.daemons.append(self._daemon("b"))
        return self.daemons[1]

    def publish(self) -> Publisher:
        """Begin to publish."""
        return self.published.start()

    def records(self) -> list[Record]:
        """All that Kafka holds."""
        return read_all(self.settings.kafka_bootstrap_servers, self.settings.kafka_topic)

    def complete(self) -> bool:
        """Whether Kafka holds all that the broker has acknowledged to the publisher."""
        wanted = self.published.acknowledged
        enough = records_held(self.settings.kafka_bootstrap_servers, self.settings.kafka_topic) >= len(wanted)
        return enough and wanted <= {record.value for record in self.records()}

    def close(self) -> None:
        """End the daemons; the broker is somebody else's."""
        for daemon in self.daemons:
            daemon.close()
        self.proxy.close()

    def _daemon(self, name: str) -> Daemon:
        folder = self.folder / name
        folder.mkdir()
        own: dict[str, object] = {
            "mqtt_url": f"mqtt://{LOOPBACK}:{self.proxy.port}",
            "mqtt_topic_filter": f"{self.topic}/#",
            "mqtt_protocol": self.protocol,
            "ingest_client_id": f"{self.settings.kafka_topic}-{name}",
            "ingest_spool_after_seconds": 0.5,
        }
        return Daemon.on(self.settings, folder, **own)


Scenario = Callable[[Rig], str]
"""Does it and returns a remark."""
SCENARIOS: Final[dict[str, Scenario]] = {}


def scenario(function: Scenario) -> Scenario:
    """Register a scenario under its function's name."""
    SCENARIOS[function.__name__.rstrip("_")] = function
    return function


@scenario
def basic(rig: Rig) -> str:
    """Nothing breaks."""
    _start(rig.daemon)
    rig.publish().finish(_WAIT_SECONDS)
    return ""


@scenario
def kill(rig: Rig) -> str:
    """kill -9 of the daemon while messages flow."""
    publisher = _flowing(rig, 4)
    rig.daemon.kill()
    rig.daemon.start(ready=False)
    publisher.finish(_WAIT_SECONDS)
    return ""


@scenario
def held(rig: Rig) -> str:
    """The daemon's PUBACKs are lost on the wire while Kafka takes everything, then the daemon is killed."""
    publisher = _flowing(rig, 3)
    rig.observed.hold = True
    publisher.finish(_WAIT_SECONDS)
    eventually(lambda: rig.observed.held > 0 and _still(rig, 1.0), _WAIT_SECONDS, "no PUBACK was held")
    rig.daemon.kill()
    rig.proxy.reset()
    rig.observed.hold = False
    rig.daemon.start(ready=False)
    return f"{rig.observed.held} PUBACKs held"


@scenario
def restart(rig: Rig) -> str:
    """The broker is stopped and started while messages flow."""
    publisher = _flowing(rig, 4)
    rig.broker.stop()
    rig.broker.start()
    publisher.finish(_WAIT_SECONDS)
    return ""


@scenario
def broker_kill(rig: Rig) -> str:
    """kill -9 of the broker while messages flow."""
    publisher = _flowing(rig, 4)
    rig.broker.kill()
    rig.broker.start()
    publisher.finish(_WAIT_SECONDS)
    return ""


@scenario
def kafka_away(rig: Rig) -> str:
    """Kafka stands still for three seconds: the daemon acknowledges from its spool."""
    publisher = _flowing(rig, 2)
    with _frozen(rig.servers.supervisor.state("kafka").pid):
        before = rig.daemon.metric("spool_messages")
        eventually(lambda: rig.daemon.metric("spool_messages") > before, 30, "nothing was spooled")
        publisher.await_sent(rig.count * 8 // 10)
    publisher.finish(_WAIT_SECONDS)
    return ""


@scenario
def shared(rig: Rig) -> str:
    """Two daemons share the subscription, and one is killed and comes back."""
    other = rig.second_daemon()
    for daemon in rig.daemons:
        daemon.environment["IOT_INGEST_SHARED_GROUP"] = "group"
        _start(daemon)
    publisher = rig.publish()
    publisher.await_sent(rig.count * 4 // 10)
    other.kill()
    publisher.await_sent(rig.count * 8 // 10)
    other.start(ready=False)
    publisher.finish(_WAIT_SECONDS)
    return ""


def _start(daemon: Daemon) -> None:
    daemon.start(ready=False)
    eventually(lambda: daemon.probe("readyz")[0] == 200, _WAIT_SECONDS, f"not ready: {daemon.log}")


def _flowing(rig: Rig, tenths: int) -> Publisher:
    """The daemon has started, and so much was published."""
    _start(rig.daemon)
    publisher = rig.publish()
    publisher.await_sent(rig.count * tenths // 10)
    return publisher


def judge(name: str, rig: Rig) -> Verdict:
    """Run a scenario, drain, and count. The rig is used up."""
    try:
        begin = time.monotonic()
        remark = SCENARIOS[name](rig)
        silent = not _await_all(rig) or rig.published.silent
        lost_sessions = sum(int(daemon.metric("mqtt_sessions_lost_total")) for daemon in rig.daemons)
        for daemon in rig.daemons:
            daemon.stop()
        drain(rig.settings)
        return _verdict(rig, name, sessions_lost=lost_sessions, silent=silent, seconds=time.monotonic() - begin, remark=remark)
    finally:
        rig.close()


def _await_all(rig: Rig) -> bool:
    """Until the daemons are connected, everything is in Kafka and no second copy comes any more; or nothing has come for long. False if the
    broker does not let them in again."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not all(daemon.metric("mqtt_connected") == 1 for daemon in rig.daemons):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    rig.observed.last_delivery = time.monotonic()
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        complete = _still(rig, _SHORT_SECONDS) and rig.complete()
        nothing_more = _still(rig, rig.broker.server.PAUSE_SECONDS if complete else rig.broker.server.PATIENCE_SECONDS)
        if nothing_more and all(daemon.metric("messages_in_flight") == 0 for daemon in rig.daemons):
            break
        time.sleep(0.2)
    return True


def _still(rig: Rig, seconds: float) -> bool:
    return time.monotonic() - rig.observed.last_delivery > seconds


def _verdict(rig: Rig, name: str, *, sessions_lost: int, silent: bool, seconds: float, remark: str) -> Verdict:
    publisher = rig.published
    records = sorted(rig.records(), key=lambda record: (record.partition, record.offset))
    copies = Counter(record.value for record in records)
    known = publisher.acknowledged | publisher.unknown
    assert set(copies) <= known, "Kafka holds what nobody published"
    missing = publisher.acknowledged - set(copies)
    marks = _marks(rig.settings)
    dups = Counter(delivery.payload for delivery in rig.observed.deliveries if delivery.dup)
    return Verdict(
        broker=rig.broker.server.NAME,
        version=rig.broker.server.VERSION,
        protocol=rig.protocol,
        scenario=name,
        published=len(publisher.acknowledged),
        lost_by_us=len(rig.observed.acknowledged - set(copies)),
        lost_by_broker=len(missing - rig.observed.acknowledged),
        never_sent=len(missing - rig.observed.payloads),
        second_copies=sum(count - 1 for count in copies.values()),
        marked=sum(min(marks[payload], count - 1) for payload, count in copies.items()),
        wrongly_marked=sum(max(0, marks[payload] - (count - 1)) for payload, count in copies.items()),
        out_of_order=_behind(records),
        with_dup=sum(min(dups[payload], count - 1) for payload, count in copies.items()),
        sessions_lost=sessions_lost,
        silent=silent,
        seconds=round(seconds, 1),
        remark=remark,
    )


def _behind(records: list[Record]) -> int:
    """First copies that stand behind one published later. All are of one topic, so of one partition."""
    seen: set[bytes] = set()
    highest = -1
    behind = 0
    for record in records:
        number = int(record.value[6:-1])
        if record.value not in seen:
            behind += number < highest
        seen.add(record.value)
        highest = max(highest, number)
    return behind


def _marks(settings: Settings) -> Counter[bytes]:
    rows = query(settings, "SELECT payload FROM message WHERE duplicate_of IS NOT NULL")
    return Counter(row[0] for row in rows)


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
