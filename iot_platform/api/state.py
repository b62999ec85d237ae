"""What the application holds while it serves: settings, connections, metrics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Scope

from iot_platform.settings import Settings


class State:
    """One for each process. `stopping` is set when the process was told to end: streams end then."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the application serves."""
        yield
        self.stopping.set()

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """One answered request; status 0: the asker was gone before the answer."""
