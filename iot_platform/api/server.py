"""The process: uvicorn with signals of our own, so that open streams end within seconds, and the exit status is 0."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn

from ingest_daemon.errors import SettingsError
from iot_platform.api.app import create_app
from iot_platform.api.state import State
from iot_platform.logs import get_logger
from iot_platform.settings import Settings

log = get_logger(__name__)

LONGEST_HEAD_BYTES: Final = 160 * 1024
"""Of a request; the longest address that the descriptions allow is 74 KB, percent-encoded."""
SEND_BUFFER_BYTES: Final = 256 * 1024
"""Of each connection, in the kernel: a page that does not read would else get minutes of old live values from it."""
STOP_SECONDS: Final = 3
"""Streams and answers that have not ended by then are cut off."""


def serve(settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT. Raises SettingsError when the port is taken, or a setting is missing."""
    state = State(settings)
    state.prepare()
    listening = _listen(settings.console_host, settings.console_port)
    asyncio.run(_serve(state, listening))


def make_server(state: State) -> uvicorn.Server:
    """The server, which leaves signals alone: setting `state.stopping` and its `should_exit` ends it."""
    config = uvicorn.Config(
        create_app(state),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=True,
        forwarded_allow_ips=state.settings.console_proxies,
        timeout_graceful_shutdown=STOP_SECONDS,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=LONGEST_HEAD_BYTES,
        lifespan="on",
    )
    return _Server(config)


async def _serve(state: State, listening: socket.socket) -> None:
    server = make_server(state)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        state.stopping.set()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    log.info("console serves", url=f"http://{state.settings.console_host}:{listening.getsockname()[1]}")
    await server.serve(sockets=[listening])
    log.info("console ended")


class _Server(uvicorn.Server):
    """uvicorn's own handlers would raise the signal again at the end: the exit status would be -15."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(found[0], found[1])
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listening.bind(found[4])
        listening.listen(512)
    except OSError as error:
        raise SettingsError(f"IOT_CONSOLE_HOST, IOT_CONSOLE_PORT: cannot listen on {host}:{port}: {error.strerror}") from error
    return listening
