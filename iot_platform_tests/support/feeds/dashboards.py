"""A platform with something in it for every panel of grafana/dashboards, made through the code that makes it in production."""

import json
import zlib
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from iot_platform.audit.refresh import refresh
from iot_platform.database import connect
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.quality.evaluate import evaluate
from iot_platform.quality.rules import RuleSetting, write_rules
from iot_platform.rollups.advance import roll_up
from iot_platform.settings import Settings
from iot_platform.simulator.fleet import FleetOptions
from iot_platform.simulator.generator import Generator
from iot_platform.telemetry.drain import offsets
from iot_platform.telemetry.drain.log_ends import note_watermarks
from iot_platform_tests.support.feeds.accountant import Accountant
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, delete_records, drain, query


@dataclass(frozen=True)
class Subject:
    """Whose dashboards are filled: a device that its topic names, or (`topic_names_it` False) its payload."""

    tenant: str
    project: str
    device: str
    topic_names_it: bool = True

    @property
    def topic(self) -> str:
        """What its messages are published to."""
        return "/".join([*TOPIC.split("/")[:-2], self.tenant, self.project, *([self.device] if self.topic_names_it else [])])

    @property
    def names(self) -> dict[str, str]:
        """What the payload must say."""
        return {} if self.topic_names_it else {"deviceId": self.device}


PLAIN = Subject(*TOPIC.split("/")[-2:], "press-1")  # type: ignore[arg-type]
CHOICES: dict[str, str | list[str]] = {
    "tenant": PLAIN.tenant,
    "project": PLAIN.project,
    "device": PLAIN.device,
    "metric": "humidity",
    "rule": ["range", "completeness"],
}
_SIMULATED = 1500


def fill(settings: Settings, accountant: Accountant, subject: Subject = PLAIN) -> None:
    """A simulated fleet, one device (`subject`) with 80 days of history, refused messages, a report of the ingest daemon with something in
    its spool, rollups, an open and an ended incident, an accepted loss."""
    feed = Feed(settings)
    now = datetime.now(UTC)
    started = int((now - timedelta(minutes=50)).timestamp() * 1_000_000)
    options = FleetOptions(tenants=2, projects=2, devices=5, late=0.1, malformed=0.05, conflict=0.01)
    stream = Generator(options, settings.topic_pattern, started, _SIMULATED / 2400).messages()
    sent = 0
    for message in (next(stream) for _ in range(_SIMULATED)):
        feed.send(message.payload, topic=message.topic, partition=zlib.crc32(message.topic.encode()) % 2)
        sent += 1
    for age in (*(timedelta(hours=6 * step) for step in range(320)), *(timedelta(minutes=step) for step in range(300))):
        _press(feed, subject, now - age, humidity=40 + age.seconds % 20, rssi=-60)
        sent += 1
    for value in (41, 42):  # at the same time: a conflict
        _press(feed, subject, now - timedelta(minutes=3, seconds=7), humidity=value)
        sent += 1
    for payload in (b"broken", b"[1,", b'{"ts": "never"}'):
        feed.send(payload, topic=subject.topic, partition=0)
        sent += 1
    feed.flush()
    drain(settings)
    roll_up(settings)
    accountant.says((1, sent + 3, sent + 1, sent))
    reported = settings.model_copy(update={"ingest_http_url": accountant.url})
    with closing(connect(settings)) as connection, TopicOffsets(settings) as topic:
        refresh(reported, connection, 30, lambda _: None)
        note_watermarks(connection, settings.kafka_topic, topic.end(topic.partitions()), {})
    _incidents(settings, feed, subject)
    _lose(settings, feed)


def _press(feed: Feed, subject: Subject, time: datetime, **values: float) -> None:
    payload = {"ts": int(time.timestamp() * 1000), **subject.names, **values}
    feed.send(json.dumps(payload).encode(), topic=subject.topic, partition=0)


def _incidents(settings: Settings, feed: Feed, subject: Subject) -> None:
    """Humidity and rssi of the press are impossible; then nobody wants to know about its rssi any more, which ends that incident."""
    with closing(connect(settings)) as connection:
        write_rules(connection, [RuleSetting(rule="range", metric="humidity", severity="ERROR")])
        evaluate(settings)
        _press(feed, subject, datetime.now(UTC), humidity=500, rssi=500)
        feed.flush()
        drain(settings)
        evaluate(settings)
        write_rules(connection, [RuleSetting(rule="range", metric="rssi", enabled=False)])


def _lose(settings: Settings, feed: Feed) -> None:
    """Kafka deletes three messages before they are drained, and that is accepted as `iot offsets accept` does."""
    ((before,),) = query(settings, "SELECT next_offset FROM kafka_offset WHERE kafka_partition = 1 AND topic = %s", settings.kafka_topic)
    for _ in range(3):
        feed.send(b"{}", partition=1)
    feed.flush()
    delete_records(settings, 1, before + 3)
    with closing(connect(settings)) as connection, TopicOffsets(settings) as topic:
        identity, watermarks = topic.look()
        row = offsets.read(connection, identity.topic)[1]
        assert offsets.accept(connection, identity, row, watermarks[1], "test")
