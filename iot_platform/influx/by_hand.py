"""A backfill that somebody watches: the same steps as a shift's, one by one, under the sink's lock."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.influx import backfill
from iot_platform.influx.books import Books
from iot_platform.influx.client import InfluxClient
from iot_platform.influx.locks import writing
from iot_platform.influx.sender import Sender
from iot_platform.influx.shipping import Shipper
from iot_platform.influx.target import Target
from iot_platform.settings import Settings

WAIT_SECONDS: Final = 300.0
"""A shift gives the lock back every few seconds."""
HOLD_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 0.2


class Copying:
    """Works on one backfill until it is done, by whomever."""

    def __init__(self, settings: Settings, target: Target, connection: Connection) -> None:
        self._connection = connection
        self._target = target
        self._client = InfluxClient(target)
        self._books = Books(connection, target.name, settings.kafka_topic)
        self._books.open()
        self._sender = Sender(self._client)
        self._shipper = Shipper(settings, connection, self._books, self._client, self._sender)
        self._written = 0

    def close(self) -> None:
        """Close the connection to InfluxDB, when the request that is under way has ended."""
        self._sender.close()
        self._client.close()

    def run(self, begin: datetime, end: datetime, tenant: str, on_step: Callable[[datetime, int], None]) -> int:
        """Returns how many points this process wrote. `on_step`: how far it is, after each step; the lock is given back every few seconds.

        Raises:
            InfluxConfigError, InfluxUnavailableError: see there.
            InfluxBusyError: others do not let us work.
        """
        while True:
            with writing(self._connection, self._target.name, WAIT_SECONDS), self._shipper.settled():
                until = time.monotonic() + HOLD_SECONDS
                work = self._find(begin, end, tenant)
                while work is not None and work.done_to < work.end and time.monotonic() < until:
                    work = backfill.step(self._connection, self._books, self._shipper, work, self._count)
                    on_step(min(end, max(begin, work.done_to)), self._written)
            if work is None or work.done_to >= work.end:
                return self._written
            time.sleep(PAUSE_SECONDS)  # a shift that waits for the lock looks every 50 ms

    def _count(self, written: int) -> None:
        self._written += written

    def _find(self, begin: datetime, end: datetime, tenant: str) -> backfill.Backfill | None:
        """What is left of it; by now it may be a part of a longer one."""
        found = backfill.pending(self._connection, self._target.name)
        return next((each for each in found if each.tenant == tenant and each.begin <= begin and each.end >= end), None)
