"""The live feed on a real drain and a tenant's own login: what is shown is stored, nothing twice, nothing left out, whatever is killed."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from iot_platform.api import live
from iot_platform.api.live import LiveFeed, Topic
from iot_platform.drills.rig.wire import Point
from iot_platform.settings import Settings
from iot_platform_tests.support.children.drain import CLAIM, COMMAND
from iot_platform_tests.support.children.killer import Killer
from iot_platform_tests.support.feeds.drain import Feed, drain, query
from iot_platform_tests.support.feeds.tenants import OWN, SECRET, TwoTenants

TOPIC = f"mtic/msg/client/realtime/{OWN}/plant-0"
Key = tuple[str, str, str]
SECONDS = 60


@dataclass
class Page:
    """What a browser makes of a stream: what it holds for each series, and all that it was sent."""

    load: Callable[[], Awaitable[dict[Key, tuple[int, Any, Any]]]]
    last: str | None = None
    held: dict[Key, tuple[int, Any, Any]] = field(default_factory=dict)
    sent: list[tuple[Key, tuple[int, Any, Any]]] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    resyncs: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, events: AsyncIterator[bytes]) -> None:
        """Until the stream ends."""
        async for chunk in events:
            lines = dict(line.split(": ", 1) for line in chunk.decode().strip().split("\n"))
            self.last = lines.get("id", self.last)
            data = json.loads(lines.get("data", "null"))
            if lines.get("event") == "resync":
                self.resyncs += 1
                self.held = await self.load()
            elif lines.get("event") == "state":
                self.states.append(data)
            elif lines.get("event") == "values":
                self.take(data["columns"])
            self.changed.set()

    def take(self, columns: dict[str, list[Any]]) -> None:
        """Of what a resync loaded some may come again, so a page takes what is not what it holds."""
        for project, device, metric, at, value, text in zip(
            *(columns[name] for name in ("project", "device", "metric", "time", "value", "value_text")), strict=True
        ):
            self.sent.append(((project, device, metric), (at, value, text)))
            self.held[project, device, metric] = (at, value, text)

    async def until(self, met: Callable[[], object]) -> None:
        """Wait for what the stream brings."""
        async with asyncio.timeout(SECONDS):
            while not met():
                self.changed.clear()
                await self.changed.wait()


class Rig:
    """A feed whose sessions are real: the console's, and the tenant's own login."""

    def __init__(self, tenants: TwoTenants) -> None:
        self.settings, self.login = tenants.settings, tenants.login
        self.stopping = asyncio.Event()
        self.console_url = tenants.settings.admin_url
        self.feed = LiveFeed(self.console, self.settings.kafka_topic, self.stopping)

    @asynccontextmanager
    async def console(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with await psycopg.AsyncConnection.connect(self.console_url, autocommit=True) as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        own = make_conninfo(self.settings.admin_url, user=self.login.role, password=self.login.password or "")
        async with await psycopg.AsyncConnection.connect(own, autocommit=True) as connection:
            yield connection

    async def stored(self, project: str | None = None) -> dict[Key, tuple[int, Any, Any]]:
        """tenant.latest, as the page's own read has it."""
        async with self.read() as connection:
            rows = await (
                await connection.execute(
                    "SELECT project_id, device_id, metric, (extract(epoch FROM time) * 1000000)::bigint / 1000, value, value_text"
                    " FROM tenant.latest WHERE %s::text IS NULL OR project_id = %s",
                    (project, project),
                )
            ).fetchall()
        return {(row[0], row[1], row[2]): (row[3], row[4], row[5]) for row in rows}

    def page(self) -> Page:
        return Page(self.stored)

    @asynccontextmanager
    async def watching(self, page: Page, project: str | None = None) -> AsyncIterator["asyncio.Task[None]"]:
        """While the page follows a stream."""
        events = await self.feed.stream(Topic(OWN, project), self.read, page.last)
        task = asyncio.create_task(page.follow(events))
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await events.aclose()

    async def settle(self, page: Page) -> None:
        """Until the page holds what is stored."""
        async with asyncio.timeout(SECONDS):
            while page.held != await self.stored():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(page.changed.wait(), 0.2)
                page.changed.clear()


async def nothing() -> dict[Key, tuple[int, Any, Any]]:
    """A page that loads nothing."""
    return {}


def send(settings: Settings, first: int, count: int) -> None:
    """Readings of five devices, one microsecond apart, into both partitions."""
    feed, now = Feed(settings), int(time.time() * 1_000_000)
    for number in range(first, first + count):
        payload = {"deviceId": f"pump-{number % 5}", "ts": now + number, "flow": number + 0.5, "state": f"state {number}"}
        feed.send(json.dumps(payload).encode(), topic=TOPIC, partition=number % 2)
    feed.flush()


def check(settings: Settings, page: Page) -> None:
    """Every value that was shown is a stored measurement; none was shown twice; of each series they go forward."""
    rows = query(
        settings,
        "SELECT project_id, device_id, metric, (extract(epoch FROM time) * 1000000)::bigint / 1000, value, value_text"
        " FROM measurement_named WHERE tenant_id = %s",
        OWN,
    )
    stored = {((row[0], row[1], row[2]), (row[3], row[4], row[5])) for row in rows}
    assert set(page.sent) <= stored
    assert len(page.sent) == len(set(page.sent))
    times: dict[Key, int] = {}
    for key, (at, _, _) in page.sent:
        assert times.get(key, 0) <= at
        times[key] = at
    assert not SECRET.search(str(page.sent) + str(page.held))


def test_values_come_as_they_are_committed_to_those_who_may_see_them(two_tenants: TwoTenants) -> None:
    async def scenario() -> None:
        rig = Rig(two_tenants)
        page, one_project = rig.page(), Page(lambda: rig.stored("plant-1"))
        async with rig.watching(page), rig.watching(one_project, "plant-1"):
            await page.until(lambda: page.resyncs and page.states)
            assert page.states[0]["connected"] is True
            await asyncio.to_thread(send, rig.settings, 0, 10)
            await asyncio.to_thread(drain, rig.settings)
            await rig.settle(page)
            assert {key for key, _ in page.sent} == {("plant-0", f"pump-{n}", metric) for n in range(5) for metric in ("flow", "state")}
            assert (page.resyncs, one_project.sent) == (1, [])
            # A replay changes values and moves no offset.
            await asyncio.to_thread(
                query,
                rig.settings,
                "UPDATE series_latest l SET value = -1 FROM series s WHERE s.series_id = l.series_id AND s.device_id = 'pump-1'"
                " AND s.metric = 'flow' AND s.project_id = 'plant-0' AND s.tenant_id = %s",
                OWN,
            )
            await rig.settle(page)
            assert page.held["plant-0", "pump-1", "flow"][1] == -1
        assert rig.feed.viewers == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("point", ["before_commit", "in_commit", "answer_lost"])
def test_a_drain_that_is_killed_shows_nothing_that_is_not_stored(two_tenants: TwoTenants, killer: Killer, point: Point) -> None:
    async def scenario() -> None:
        rig = Rig(two_tenants)
        page = rig.page()
        small = rig.settings.model_copy(update={"drain_batch_records": 20})
        async with rig.watching(page):
            await page.until(lambda: page.resyncs)
            await asyncio.to_thread(send, rig.settings, 0, 200)
            await asyncio.to_thread(killer.kill, COMMAND, small, point, CLAIM, 4)
            await rig.settle(page)
            check(rig.settings, page)
            await asyncio.to_thread(drain, small)
            await rig.settle(page)
            check(rig.settings, page)
            assert page.held["plant-0", "pump-4", "flow"][1] == 199.5

    asyncio.run(scenario())


def test_who_comes_back_gets_what_it_has_not_seen(two_tenants: TwoTenants) -> None:
    async def scenario() -> None:
        rig = Rig(two_tenants)
        page = rig.page()
        async with rig.watching(page):
            await page.until(lambda: page.resyncs)
            await asyncio.to_thread(send, rig.settings, 0, 10)
            await asyncio.to_thread(drain, rig.settings)
            await rig.settle(page)
        before = len(page.sent)
        await asyncio.to_thread(send, rig.settings, 100, 2)  # two devices of five, while it is away
        await asyncio.to_thread(drain, rig.settings)
        async with rig.watching(page):
            await rig.settle(page)
        check(rig.settings, page)
        assert page.resyncs == 1
        assert sorted(key for key, _ in page.sent[before:]) == [
            ("plant-0", f"pump-{n}", metric) for n in (0, 1) for metric in ("flow", "state")
        ]
        # Another process knows nothing of it: the page loads everything, and goes on.
        after = Rig(two_tenants)
        after.feed = LiveFeed(after.console, after.settings.kafka_topic, after.stopping)
        async with after.watching(page):
            await page.until(lambda: page.resyncs == 2)
            await asyncio.to_thread(send, after.settings, 200, 5)
            await asyncio.to_thread(drain, after.settings)
            await after.settle(page)
        check(after.settings, page)
        for wrong in ("", "x", "x.0.1~", f"{after.feed._process}.0.~", f"{after.feed._process}.0.{'9' * 40}~", "\x00" * 100):
            other = after.page()
            other.last = wrong
            async with after.watching(other):
                await other.until(lambda other=other: other.resyncs)

    asyncio.run(scenario())


def test_a_viewer_that_does_not_read_costs_nothing_and_gets_the_newest(two_tenants: TwoTenants) -> None:
    async def scenario() -> None:
        rig = Rig(two_tenants)
        events = await rig.feed.stream(Topic(OWN), rig.read, None)
        chunks = [await anext(events) for _ in range(3)]  # retry, resync, state
        assert b"event: resync" in chunks[1]
        page = rig.page()
        async with rig.watching(page):
            for number in range(6):
                await asyncio.to_thread(send, rig.settings, number * 5, 5)
                await asyncio.to_thread(drain, rig.settings)
                await rig.settle(page)
        slow = rig.page()
        slow.held = await rig.stored()
        while not slow.sent:
            chunk = await anext(events)
            if b"event: values" in chunk:
                slow.take(json.loads(chunk.decode().split("data: ", 1)[1])["columns"])
        assert len(slow.sent) == 10
        assert slow.held == await rig.stored()
        await events.aclose()

    asyncio.run(scenario())


def test_a_database_that_is_away_is_told_of_and_comes_back(two_tenants: TwoTenants) -> None:
    async def scenario() -> None:
        rig = Rig(two_tenants)
        page = rig.page()
        async with rig.watching(page):
            await page.until(lambda: page.resyncs and page.states)
            good, rig.console_url = rig.console_url, "postgresql://nobody@127.0.0.1:9/iot"
            await page.until(lambda: page.states[-1]["connected"] is False)
            await asyncio.to_thread(send, rig.settings, 0, 5)
            await asyncio.to_thread(drain, rig.settings)
            rig.console_url = good
            await page.until(lambda: page.states[-1]["connected"] is True)
            await rig.settle(page)
        check(rig.settings, page)

    asyncio.run(scenario())


def test_streams_end_when_the_process_is_told_to_end(two_tenants: TwoTenants, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        rig = Rig(two_tenants)
        pages = [Page(nothing) for _ in range(20)]  # a login has 10 connections
        async with contextlib.AsyncExitStack() as stack:
            tasks = [await stack.enter_async_context(rig.watching(page)) for page in pages]
            await pages[-1].until(lambda: pages[-1].resyncs)
            assert rig.feed.viewers == 20
            begun_at = time.monotonic()
            rig.stopping.set()
            await asyncio.gather(*tasks)
            assert time.monotonic() - begun_at < 1
        rig.stopping.clear()
        monkeypatch.setattr(live, "STREAM_SECONDS", 0.2)  # a login that ended ends its streams, too
        async with rig.watching(pages[0]) as task:
            await asyncio.wait_for(task, SECONDS)
        assert rig.feed.viewers == 0

    asyncio.run(scenario())
