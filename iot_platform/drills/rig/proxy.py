"""A TCP proxy on the loopback interface that breaks links on purpose: cut, half-open, slow, or wherever a wire filter says."""

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, Self, TypeVar

LOOPBACK: Final = "127.0.0.1"
CHUNK_BYTES: Final = 64 * 1024
ANSWER_SECONDS: Final = 10.0
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close() sends RST and drops what is unsent

Direction = Literal["up", "down"]
"""`up` is what the client sends to the server."""
T = TypeVar("T")


class CutLinkError(Exception):
    """Raised by a filter: reset this connection now."""


class Filter(Protocol):
    """Looks at the bytes of one connection, in the proxy's thread. Each method gets a chunk and returns what is sent on instead; it may
    wait (the other direction and other connections go on) and raise CutLinkError."""

    async def up(self, chunk: bytes) -> bytes:
        """What the client sent."""
        ...

    async def down(self, chunk: bytes) -> bytes:
        """What the server sent."""
        ...


@dataclass(eq=False)
class Link:
    """One connection through the proxy. `client_port` is the client's end, which tells whose process it is."""

    number: int
    client_port: int
    client: socket.socket = field(repr=False)
    server: socket.socket | None = field(default=None, repr=False)
    filter: Filter | None = None
    mute: frozenset[Direction] = frozenset()
    tasks: list["asyncio.Task[None]"] = field(default_factory=list, repr=False)
    proxy_port: int = 0
    gone: bool = False

    async def send(self, direction: Direction, data: bytes) -> None:
        """For filters: send something now, ahead of what the filter returns."""
        sink = self.server if direction == "up" else self.client
        if sink is not None:
            await asyncio.get_running_loop().sock_sendall(sink, data)


FilterFactory = Callable[[Link], Filter | None]


class Proxy:
    """Forwards a port to a server. All methods are safe from any thread, and have happened when they return.

    `cut`: every connection is reset, and so is each new one, until `heal`. `deaf`: a half-open link; connections stay up and new ones are
    accepted, but nothing passes any more, and what was sent is lost: such a connection is dead for good, also after `heal`, which only
    helps new ones. `slow`: bytes per second in each direction of each connection, and seconds that each chunk is late.
    """

    def __init__(self, target_host: str, target_port: int, listen_port: int = 0) -> None:
        self._target = (target_host, target_port)
        self._listener = socket.create_server((LOOPBACK, listen_port), backlog=128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._numbers = itertools.count(1)
        self._links: set[Link] = set()
        self._refusing = False
        self._mute: frozenset[Direction] = frozenset()
        self._bytes_per_second: float | None = None
        self._latency = 0.0
        self._factory: FilterFactory = lambda _: None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._accepting: Future[None] | None = None

    # -- life --------------------------------------------------------------------------------------------------
    def start(self) -> Self:
        """Begin to accept."""
        self._thread.start()
        self._accepting = asyncio.run_coroutine_threadsafe(self._accept(), self._loop)
        return self

    def close(self) -> None:
        """Reset every connection and give up the port."""
        if self._thread.is_alive():
            self._answer(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(ANSWER_SECONDS)
        self._listener.close()
        if not self._loop.is_running():
            self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- faults ------------------------------------------------------------------------------------------------
    def cut(self) -> None:
        """Reset all connections, and every new one, until `heal`."""

        def apply() -> None:
            self._refusing = True
            self._reset_all()

        self._do(apply)

    def reset(self) -> None:
        """Reset the connections there are; new ones are welcome."""
        self._do(self._reset_all)

    def deaf(self, *, up: bool = True, down: bool = True) -> None:
        """Half-open from now on; one way only with up=False or down=False."""
        chosen: tuple[tuple[Direction, bool], ...] = (("up", up), ("down", down))
        mute: frozenset[Direction] = frozenset(direction for direction, wanted in chosen if wanted)

        def apply() -> None:
            self._mute = mute
            for link in self._links:
                link.mute |= mute

        self._do(apply)

    def slow(self, *, bytes_per_second: float | None = None, latency_seconds: float = 0.0) -> None:
        """Throttle, from the next chunk on."""

        def apply() -> None:
            self._bytes_per_second, self._latency = bytes_per_second, latency_seconds

        self._do(apply)

    def heal(self) -> None:
        """A good link again: new connections are forwarded at full speed. Connections that were half-open stay dead."""

        def apply() -> None:
            self._refusing, self._mute = False, frozenset()
            self._bytes_per_second, self._latency = None, 0.0

        self._do(apply)

    def watch(self, factory: FilterFactory | None) -> None:
        """Give each new connection a filter of its own (or None); connections that stand keep theirs."""
        self._do(lambda: setattr(self, "_factory", factory or (lambda _: None)))

    @property
    def count(self) -> int:
        """Connections that are up."""
        return self._do(lambda: len(self._links))

    @property
    def links(self) -> list[Link]:
        """Connections that are up, oldest first."""
        return self._do(lambda: sorted(self._links, key=lambda link: link.number))

    # -- inside: in the loop's thread --------------------------------------------------------------------------
    def _do(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._answer(call())

    def _answer(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(ANSWER_SECONDS)

    async def _stop(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
        tasks = [task for link in self._links for task in link.tasks]
        self._reset_all()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _reset_all(self) -> None:
        for link in list(self._links):
            self._end(link, reset=True)

    async def _accept(self) -> None:
        while True:
            client, address = await self._loop.sock_accept(self._listener)
            link = Link(next(self._numbers), address[1], client, mute=self._mute, proxy_port=self.port)
            if self._refusing:
                self._end(link, reset=True)
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._links.add(link)
            link.tasks.append(self._loop.create_task(self._open(link)))

    async def _open(self, link: Link) -> None:
        if len(link.mute) == 2:
            await self._swallow(link)
            return
        server = socket.socket()
        server.setblocking(False)
        link.server = server
        try:
            await self._loop.sock_connect(server, self._target)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self._end(link, reset=True)
            return
        link.filter = self._factory(link)
        link.tasks += [
            self._loop.create_task(self._pump(link, link.client, server, "up")),
            self._loop.create_task(self._pump(link, server, link.client, "down")),
        ]

    async def _pump(self, link: Link, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        try:
            while chunk := await self._loop.sock_recv(source, CHUNK_BYTES):
                if link.filter is not None:
                    chunk = await (link.filter.up(chunk) if direction == "up" else link.filter.down(chunk))
                await self._forward(link, sink, chunk, direction)
            if direction not in link.mute:
                sink.shutdown(socket.SHUT_WR)  # the other direction may still have something to say
            if all(task.done() or task is asyncio.current_task() for task in link.tasks):
                self._end(link, reset=False)
        except CutLinkError:
            self._end(link, reset=True)
        except OSError:
            if direction not in link.mute:  # else not even the end gets through
                self._end(link, reset=True)

    async def _swallow(self, link: Link) -> None:
        """A connection that was made while the link is half-open: the server never hears of it."""
        with contextlib.suppress(OSError):
            while await self._loop.sock_recv(link.client, CHUNK_BYTES):
                pass
        self._end(link, reset=False)

    async def _forward(self, link: Link, sink: socket.socket, chunk: bytes, direction: Direction) -> None:
        if self._latency:
            await asyncio.sleep(self._latency)
        while chunk and direction not in link.mute:
            rate = self._bytes_per_second
            size = len(chunk) if rate is None else max(1, min(len(chunk), int(rate / 20)))
            await self._loop.sock_sendall(sink, chunk[:size])
            chunk = chunk[size:]
            if rate is not None:
                await asyncio.sleep(size / rate)

    def _end(self, link: Link, *, reset: bool) -> None:
        if link.gone:
            return
        link.gone = True
        self._links.discard(link)
        for task in link.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        for each in (link.client, link.server):
            if each is None:
                continue
            with contextlib.suppress(OSError):
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._loop.remove_reader(each)
            self._loop.remove_writer(each)
            each.close()
