"""Messages straight into the database with receive times of the caller's choice: the real decoder and writer, without Kafka."""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from iot_platform.database import connect
from iot_platform.settings import Settings
from iot_platform.telemetry.decode import Decoder
from iot_platform.telemetry.decode.rules import DecodeRules
from iot_platform.telemetry.drain.writer import Writer, WriterRules
from iot_platform.telemetry.envelope import Envelopes
from iot_platform.telemetry.records import DecodedRecords, Records

PROJECT = "mtic/msg/client/realtime/1968193631353446400/1968193691042586624"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(time: datetime) -> int:
    """µs since the epoch."""
    return (time - EPOCH) // timedelta(microseconds=1)


class DirectFeed:
    """Writes one partition; collects messages until `flush`, which commits them as one batch."""

    def __init__(self, settings: Settings) -> None:
        self.connection = connect(settings, "writer", "direct-feed")
        self._pending = list[tuple[datetime, str, bytes]]()
        with closing(connect(settings, "admin")) as admin, admin.cursor() as cursor:
            cursor.execute(
                "INSERT INTO kafka_offset VALUES (%s, 0, 0, 'cluster', 'topic', 0) ON CONFLICT DO NOTHING", (settings.kafka_topic,)
            )
            cursor.execute("SELECT next_offset FROM kafka_offset WHERE topic = %s AND kafka_partition = 0", (settings.kafka_topic,))
            (self._offset,) = cursor.fetchone() or (0,)  # another feed may have been here
            admin.commit()
        self._decoder = Decoder(DecodeRules.from_settings(settings))
        rules = WriterRules(settings.kafka_topic, "topic", "direct", settings.max_series_per_project, settings.ingest_in_flight_window)
        self._writer = Writer(self.connection, rules)

    def send(self, received_at: datetime, payload: Any, topic: str = f"{PROJECT}/device") -> None:
        """One message: bytes as they are, anything else as JSON."""
        data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        self._pending.append((received_at, topic, data))

    def flush(self) -> None:
        """Commit what was sent."""
        if self._pending:
            self.write(
                [microseconds(at) for at, _, _ in self._pending],
                [t.encode() for _, t, _ in self._pending],
                [p for _, _, p in self._pending],
            )
            self._pending.clear()

    def write(self, received_at: Sequence[int], topics: Sequence[bytes], payloads: Sequence[bytes]) -> None:
        """One batch from columns; times in µs."""
        count, begin = len(payloads), self._offset
        times = np.array(received_at, np.int64)
        sequence = np.arange(begin + 1, begin + 1 + count)
        zero = np.zeros(count, np.int32)
        envelope = Envelopes(np.ones(count, np.bool_), times, np.full(count, 4, np.uint8), zero, sequence, zero, [("direct", 1)])
        records = Records(list(topics), list(payloads), zero, np.arange(begin, begin + count), envelope, {0: (begin, begin + count)}, zero)
        decoded = self._decoder.decode(records.topics, records.payloads, times)
        self._writer.write(DecodedRecords(records, decoded, self._decoder))
        self._offset += count

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
