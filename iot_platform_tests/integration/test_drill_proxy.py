"""The fault proxy on plain sockets: forwards, cuts, goes deaf, slows down, filters, and lets nobody hang."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from iot_platform.drills.rig.proxy import CutLinkError, Link, Proxy
from iot_platform_tests.support.waiting import eventually


class Echo:
    """Answers every byte with itself; remembers what it got."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.got = b""
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while chunk := connection.recv(65536):
                    self.got += chunk
                    connection.sendall(chunk)
            except OSError:
                pass
        self.ended.set()


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", echo.port) as made:
        yield made


def dial(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def ask(link: socket.socket, text: bytes) -> bytes:
    link.sendall(text)
    answer = b""
    while len(answer) < len(text) and (chunk := link.recv(65536)):
        answer += chunk
    return answer


def silent(link: socket.socket, text: bytes) -> bool:
    """Whether nothing comes back, and the connection stays up."""
    link.sendall(text)
    link.settimeout(0.3)
    try:
        return link.recv(1) == b"never"
    except TimeoutError:
        return True
    finally:
        link.settimeout(10)


def broken(link: socket.socket) -> bool:
    """Whether the connection ends with a reset."""
    try:
        while link.recv(10):
            pass
    except ConnectionResetError:
        return True
    return False


def refused(proxy: Proxy) -> bool:
    """Whether a new connection is reset at once."""
    try:
        with dial(proxy) as link:
            return broken(link)
    except ConnectionResetError:  # before connect() had returned
        return True


def test_forwards_everything_and_the_end_of_each_direction(proxy: Proxy) -> None:
    big = bytes(range(256)) * 8192
    with dial(proxy) as link:
        eventually(lambda: proxy.count == 1)
        sender = threading.Thread(target=lambda: (link.sendall(big), link.shutdown(socket.SHUT_WR)))
        sender.start()
        answer = b""
        while chunk := link.recv(65536):
            answer += chunk
        sender.join()
    assert answer == big
    eventually(lambda: proxy.count == 0)


def test_cut_resets_old_and_new_connections_until_healed(proxy: Proxy) -> None:
    with dial(proxy) as link:
        assert ask(link, b"hello") == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    assert refused(proxy)
    proxy.heal()
    with dial(proxy) as link:
        assert ask(link, b"again") == b"again"


def test_the_server_sees_a_cut_too(proxy: Proxy, echo: Echo) -> None:
    with dial(proxy) as link:
        ask(link, b"x")
        proxy.reset()
        assert echo.ended.wait(10)


def test_deaf_links_stay_up_and_dead_for_good(proxy: Proxy, echo: Echo) -> None:
    with dial(proxy) as old:
        assert ask(old, b"hello") == b"hello"
        proxy.deaf()
        with dial(proxy) as new:
            assert silent(old, b"a")
            assert silent(new, b"b")
            proxy.heal()
            assert silent(old, b"c")
            assert silent(new, b"d")
        with dial(proxy) as fresh:
            assert ask(fresh, b"e") == b"e"
    assert echo.got == b"helloe"


def test_the_end_of_a_deaf_link_does_not_reach_the_other_side(proxy: Proxy, echo: Echo) -> None:
    with dial(proxy) as link:
        ask(link, b"x")
        proxy.deaf()
    assert not echo.ended.wait(0.3)
    proxy.close()
    assert echo.ended.wait(10)


@pytest.mark.parametrize(("up", "reaches"), [(True, b""), (False, b"question")])
def test_deaf_in_one_direction(proxy: Proxy, echo: Echo, up: bool, reaches: bytes) -> None:
    with dial(proxy) as link:
        ask(link, b"x")
        proxy.deaf(up=up, down=not up)
        assert silent(link, b"question")
        eventually(lambda: echo.got == b"x" + reaches)


def test_slow_links_are_as_slow_as_told(proxy: Proxy) -> None:
    with dial(proxy) as link:
        proxy.slow(bytes_per_second=100_000)
        started = time.monotonic()
        assert ask(link, b"y" * 50_000) == b"y" * 50_000
        assert time.monotonic() - started >= 0.45
        proxy.slow(latency_seconds=0.2)
        started = time.monotonic()
        assert ask(link, b"z") == b"z"
        assert time.monotonic() - started >= 0.4
        proxy.heal()
        assert ask(link, b"fast") == b"fast"


class Censor:
    """Drops every b"#" upwards, cuts at b"!" downwards."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def up(self, chunk: bytes) -> bytes:
        return chunk.replace(b"#", b"")

    async def down(self, chunk: bytes) -> bytes:
        if b"!" in chunk:
            await self._link.send("down", chunk[: chunk.index(b"!")])
            raise CutLinkError
        return chunk


def test_filters_change_and_cut(proxy: Proxy, echo: Echo) -> None:
    links: list[Link] = []

    def factory(link: Link) -> Censor:
        links.append(link)
        return Censor(link)

    proxy.watch(factory)
    with dial(proxy) as link:
        link.sendall(b"a#b")
        assert link.recv(10) == b"ab"
        assert links[0].client_port == link.getsockname()[1]
        link.sendall(b"cd!ef")
        assert broken(link)
    assert echo.got == b"abcd!ef"


def test_a_server_that_is_down_looks_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Proxy("127.0.0.1", port) as proxy:
        assert refused(proxy)
