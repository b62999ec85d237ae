"""The live feed: one poller for all viewers of the process. It looks at how far the platform has committed (kafka_offset), and when that
moved, reads the latest values of what is looked at, each tenant's in a session of the tenant's own login. What is shown is stored.

What it promises a viewer, for each series (docs/live.md says it to people):
- what it sends is a row of tenant.latest that was committed; times of a series never go back, except where the stored row did;
- no row is sent twice on one stream, nor again after a reconnect to this process with the id of the last event;
- when a series rests, the viewer has its newest value within one look, whatever was killed or restarted meanwhile. Values between two
  looks may be passed over: the history has them;
- an id holds the offsets that had been committed before the rows were read: all of them are in what was sent up to it.
"""

import asyncio
import contextlib
import itertools
import random
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import psycopg

from iot_platform.api.live_selection import Selection
from iot_platform.api.problems import Problem

LOOK_SECONDS: Final = 0.1
"""Between two looks at kafka_offset, while there are viewers."""
AWAY_SECONDS: Final = 1.0
"""The same, while the database does not answer."""
REST_SECONDS: Final = 5.0
"""Each selection is read at least so often, because a replay changes values and no offset."""
BEAT_SECONDS: Final = 4.0
"""Between two heartbeats; reading what they say takes STATE_SECONDS at most."""
STATE_SECONDS: Final = 1.0
SHARE: Final = 4
"""A selection that took t to read is not read again for (SHARE - 1) * t: no page takes more of the database than a quarter of a session."""
READERS: Final = 2
KEEP_SECONDS: Final = 60.0
"""A selection without viewers is kept so long, for those that come back."""
MOST_SERIES: Final = 200_000
MOST_VIEWERS: Final = 500
STREAM_SECONDS: Final = 300.0
"""A stream ends then and the browser makes another, so that a login that ended, or a right that was taken away, ends its streams, too."""
RETRY_MILLISECONDS: Final = 500
ANSWER_SECONDS: Final = 10.0

Reading = Callable[[], AbstractAsyncContextManager[Any]]
"""A session (psycopg.AsyncConnection): of iot_console, or of a tenant's login."""

_POSITION: Final = """
SELECT left(min(topic_id), 8), string_agg(kafka_partition || '.' || log_generation || '.' || next_offset, ',' ORDER BY kafka_partition),
       to_char(max(updated_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
FROM kafka_offset WHERE topic = %s"""
_STATE: Final = """
SELECT (SELECT sum(greatest(w.high - coalesce(o.next_offset, 0), 0))::bigint FROM kafka_watermark w
        LEFT JOIN kafka_offset o USING (topic, kafka_partition)
        WHERE w.topic = %(topic)s HAVING min(w.seen_at) > now() - interval '30 s'),
       (SELECT extract(epoch FROM max(l.committed_at - l.first_received_at))::float8 FROM ledger l
        WHERE l.committed_at > now() - interval '30 s' AND l.kind = 'drain' AND l.kafka_topic = %(topic)s)"""
_LATEST: Final = """
SELECT count(*), string_agg(json_build_array(l.project_id, l.device_id, l.metric, (extract(epoch FROM l.time) * 1000000)::bigint, l.value,
    coalesce(l.value_int::text, l.value_text), l.flags)::text, E'\\n')
FROM (SELECT * FROM tenant.latest WHERE (%(project)s::text IS NULL OR project_id = %(project)s)
      AND (%(device)s::text IS NULL OR device_id = %(device)s) LIMIT %(most)s) l"""


@dataclass(frozen=True)
class Topic:
    """What is looked at; None: all of them."""

    tenant: str
    project: str | None = None
    device: str | None = None


class _Watched:
    """A selection, how it is read, and by how many viewers it is looked at."""

    def __init__(self, topic: Topic, read: Reading, numbers: Iterator[int]) -> None:
        self.topic, self.read = topic, read
        self.selection = Selection(numbers)
        self.lock = asyncio.Lock()  # what was read earlier is taken earlier
        self.viewers = 0
        self.position: str | None = None
        self.reachable = True
        self.changes_of_state = 0
        self.read_at = self.due_at = self.left_at = 0.0


class LiveFeed:
    """See the module. `console` opens a session of iot_console; `stopping` ends everything."""

    def __init__(self, console: Reading, kafka_topic: str, stopping: asyncio.Event) -> None:
        self._console, self._kafka_topic, self._stopping = console, kafka_topic, stopping
        self._numbers = itertools.count(1)
        self._process = secrets.token_hex(4)
        self._watched: dict[Topic, _Watched] = {}
        self._position = ""
        self._committed_at: str | None = None
        self._reachable = True
        self._figures: dict[str, Any] = {"lag": None, "freshness_seconds": None}
        self._beats = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._reading: set[asyncio.Task[None]] = set()
        self._readers = asyncio.Semaphore(READERS)

    @property
    def viewers(self) -> int:
        """Open streams."""
        return sum(watched.viewers for watched in self._watched.values())

    async def stream(self, topic: Topic, read: Reading, last: str | None) -> AsyncGenerator[bytes, None]:
        """The events of one viewer, once its selection has been read; `read` opens sessions of the tenant's login.

        Raises:
            Problem: too many viewers or series, or the database does not answer.
        """
        if self.viewers >= MOST_VIEWERS:
            raise Problem("busy", f"{MOST_VIEWERS} streams are open")
        watched = self._watched.get(topic)
        if watched is None:
            watched = self._watched[topic] = _Watched(topic, read, self._numbers)
        watched.read, watched.left_at = read, time.monotonic()
        if not watched.selection.loaded:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._look()
                    await self._read(watched, first=True)
            except (psycopg.Error, OSError, TimeoutError) as error:
                raise Problem("database-unavailable") from error
        return self._events(watched, last)

    async def _events(self, watched: _Watched, last: str | None) -> AsyncGenerator[bytes, None]:
        selection = watched.selection
        watched.viewers += 1
        self._watched[watched.topic] = watched
        self._run()
        try:
            yield b"retry: %d\n\n" % RETRY_MILLISECONDS
            number, generation, told = self._seen(last, selection), selection.generation, (-1, -1)
            if number is None:
                number = selection.number
                yield self._event(b"resync", selection, number, b"{}")
            # Not all at the same moment: they would come back at the same moment.
            ends_at = time.monotonic() + STREAM_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311
            while self._alive() and time.monotonic() < ends_at:
                if told != (self._beats, watched.changes_of_state):
                    told = (self._beats, watched.changes_of_state)
                    state = {"connected": self._reachable and watched.reachable, **self._figures}
                    yield b"event: state\ndata: %s\n\n" % msgspec.json.encode(state)
                elif generation != selection.generation:
                    generation, number = selection.generation, selection.number
                    yield self._event(b"resync", selection, number, b"{}")
                elif (found := selection.after(number)) is not None:
                    number, data = found
                    yield self._event(b"values", selection, number, data)
                else:
                    await selection.turn()
        finally:
            watched.viewers -= 1
            watched.left_at = time.monotonic()
            if not watched.viewers:
                asyncio.get_running_loop().call_later(KEEP_SECONDS + 1, self._forget)

    def _event(self, kind: bytes, selection: Selection, number: int, data: bytes) -> bytes:
        """An event whose id says what its viewer has seen then: this process's number, and, where nothing is left to send, the offsets."""
        position = selection.position if number == selection.number else ""
        seen = f"{self._process}.{selection.generation}.{number}~{position}".encode()
        return b"event: %s\nid: %s\ndata: %s\n\n" % (kind, seen, data)

    def _seen(self, last: str | None, selection: Selection) -> int | None:
        """The number that a viewer has seen, if this process can go on from there."""
        process, _, rest = (last or "").partition("~")[0].partition(".")
        generation, _, number = rest.partition(".")
        if process != self._process or generation != str(selection.generation) or not (number.isdecimal() and len(number) <= 18):
            return None
        return int(number) if selection.since <= int(number) else None

    def _alive(self) -> bool:
        return not self._stopping.is_set() and not any(task.done() for task in self._tasks)

    def _wake(self) -> None:
        for watched in self._watched.values():
            watched.selection.wake()

    def _forget(self) -> None:
        now = time.monotonic()
        for topic, watched in list(self._watched.items()):
            if watched.viewers == 0 and now - watched.left_at > KEEP_SECONDS:
                del self._watched[topic]

    # -- the poller ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Poll and beat for as long as there are viewers; should one of the two fail, all streams end, and begin anew with the next."""
        if not self._tasks or any(task.done() for task in self._tasks):
            for task in self._tasks:
                task.cancel()
            create = asyncio.get_running_loop().create_task
            self._tasks = [create(self._poll(), name="live-poll"), create(self._beat(), name="live-beat")]

    async def _pause(self, seconds: float) -> bool:
        """Whether to go on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return not self._stopping.is_set() and self.viewers > 0

    async def _poll(self) -> None:
        try:
            while True:
                reachable = await self._answers(self._look)
                if reachable != self._reachable:
                    self._reachable = reachable
                    self._beats += 1
                    self._wake()
                if reachable:
                    self._start_readers()
                if not await self._pause(LOOK_SECONDS if reachable else AWAY_SECONDS):
                    return
        finally:
            for reading in self._reading:
                reading.cancel()
            self._wake()

    async def _beat(self) -> None:
        try:
            while True:
                if not await self._answers(self._ask_figures, STATE_SECONDS):
                    self._figures = {"lag": None, "freshness_seconds": None}
                self._beats += 1
                self._wake()
                if not await self._pause(BEAT_SECONDS):
                    return
        finally:
            self._wake()

    async def _answers(self, work: Callable[[], Awaitable[None]], seconds: float = ANSWER_SECONDS) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await work()
        except (psycopg.Error, OSError, TimeoutError, Problem):  # the sessions' pool logs it
            return False
        return True

    async def _look(self) -> None:
        async with self._console() as connection:
            cursor = await connection.execute(_POSITION, (self._kafka_topic,))
            topic_id, offsets, self._committed_at = await cursor.fetchone()
            self._position = f"{topic_id}:{offsets}" if topic_id else ""

    async def _ask_figures(self) -> None:
        async with self._console() as connection:
            cursor = await connection.execute(_STATE, {"topic": self._kafka_topic})
            lag, freshness = await cursor.fetchone()
            self._figures = {"lag": lag, "freshness_seconds": freshness}

    def _start_readers(self) -> None:
        now = time.monotonic()
        for watched in self._watched.values():
            moved = watched.position != self._position or now - watched.read_at >= REST_SECONDS
            if moved and watched.viewers and now >= watched.due_at and not watched.lock.locked():
                watched.due_at = now + ANSWER_SECONDS  # until it says itself
                task = asyncio.get_running_loop().create_task(self._read_one(watched))
                self._reading.add(task)
                task.add_done_callback(self._reading.discard)

    async def _read_one(self, watched: _Watched) -> None:
        async with self._readers:
            reachable = await self._answers(lambda: self._read(watched))
        if not reachable:
            watched.due_at = time.monotonic() + 1
        if reachable != watched.reachable:
            watched.reachable = reachable
            watched.changes_of_state += 1
            watched.selection.wake()

    async def _read(self, watched: _Watched, *, first: bool = False) -> None:
        """The rows, after the position: what is committed up to it is among them."""
        async with watched.lock:
            if first and watched.selection.loaded:
                return
            position, committed_at, begun_at = self._position, self._committed_at, time.monotonic()
            asked = {"project": watched.topic.project, "device": watched.topic.device, "most": MOST_SERIES + 1}
            async with watched.read() as connection:
                cursor = await connection.execute(_LATEST, asked)
                count, text = await cursor.fetchone()
            if count > MOST_SERIES:
                raise Problem("too-large", f"more than {MOST_SERIES} series: name a project or a device")
            watched.position, watched.read_at = position, time.monotonic()
            watched.due_at = watched.read_at + (SHARE - 1) * (watched.read_at - begun_at)
            if watched.selection.take(text, position, committed_at):
                watched.selection.wake()
