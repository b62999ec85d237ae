"""What the application holds while it serves: settings, connections, limits, metrics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final

import psycopg
import psycopg2
from psycopg.conninfo import conninfo_to_dict
from psycopg2.extensions import connection as SyncConnection  # noqa: N812
from starlette.types import Scope

from ingest_daemon.errors import SettingsError
from iot_platform.accounts import passwords
from iot_platform.api.limits import Buckets
from iot_platform.api.measures import Measures
from iot_platform.api.pools import Connection, Pools, unavailable
from iot_platform.settings import Settings
from iot_platform.tenants import console_login

CONSOLE: Final = "iot_console"
CONSOLE_CONNECTIONS: Final = 4
TENANT_CONNECTIONS: Final = 2
"""Of one tenant's login in one process; the login has 10."""
MOST_TENANT_CONNECTIONS: Final = 32
"""Of all tenants in one process."""
HASHES_AT_ONCE: Final = 2
EXPORTS_AT_ONCE: Final = 2
REQUESTS_PER_SECOND: Final = 20.0
REQUESTS_AT_ONCE: Final = 80.0
LOGINS_PER_SECOND: Final = 0.5
LOGINS_AT_ONCE: Final = 20.0
UPKEEP_SECONDS: Final = 30.0
_CONNECTION: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "iot-console",
}
_OWN_OPTIONS: Final = "-c statement_timeout=5s -c idle_in_transaction_session_timeout=60s -c timezone=UTC"


class State:
    """One for each process. `stopping` is set when the process was told to end: streams end then."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        self.measures = Measures(lambda: self.connections)
        self.requests = Buckets(REQUESTS_PER_SECOND, REQUESTS_AT_ONCE)
        self.logins = Buckets(LOGINS_PER_SECOND, LOGINS_AT_ONCE)
        self.logging_in: set[object] = set()
        self.hashing = asyncio.Semaphore(HASHES_AT_ONCE)
        self.exporting = asyncio.Semaphore(EXPORTS_AT_ONCE)
        self._key = b""
        self._own = Pools(self._connect, each=CONSOLE_CONNECTIONS, most=CONSOLE_CONNECTIONS)
        self._tenants = Pools(self._connect, each=TENANT_CONNECTIONS, most=MOST_TENANT_CONNECTIONS)

    def prepare(self) -> None:
        """Before serving. Raises SettingsError: the console's database or key is not set."""
        if self.settings.console_database_url is None:
            raise SettingsError("IOT_CONSOLE_DATABASE_URL is not set: the database as role iot_console (docs/console.md)")
        self._key = console_login.read_key(self.settings)
        passwords.nobodys()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the application serves."""
        upkeep = asyncio.create_task(self._upkeep())
        try:
            yield
        finally:
            self.stopping.set()
            upkeep.cancel()
            with suppress(asyncio.CancelledError):
                await upkeep
            for pools in (self._own, self._tenants):
                await pools.close_idle(0)

    @property
    def key(self) -> bytes:
        """The key in IOT_CONSOLE_KEY_FILE, to derive others from."""
        return self._key

    def console(self) -> AbstractAsyncContextManager[Connection]:
        """A session of iot_console, which reads the console's own tables and nothing else. Raises Problem, see Pools."""
        return self._own.session(CONSOLE)

    def tenant(self, login: str) -> AbstractAsyncContextManager[Connection]:
        """A session of a tenant's login: its views are the search path; read-only. Raises Problem, see Pools."""
        return self._tenants.session(login)

    def own_connection(self) -> SyncConnection:
        """A connection as iot_console for what `iot console` does, too; blocks.

        Raises:
            Problem: the database does not answer. Retry.
        """
        try:
            connection: SyncConnection = psycopg2.connect(**self._parameters(CONSOLE))
        except psycopg2.OperationalError as error:
            raise unavailable(error) from error
        return connection

    @property
    def connections(self) -> dict[str, int]:
        """Open connections, by whose they are."""
        return {"console": self._own.open, "tenants": self._tenants.open}

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """One answered request; status 0: the asker was gone before the answer."""
        self.measures.observe(scope, status, seconds)

    async def _connect(self, login: str) -> Connection:
        return await psycopg.AsyncConnection.connect(autocommit=True, prepare_threshold=None, **self._parameters(login))

    def _parameters(self, login: str) -> dict[str, Any]:
        assert self.settings.console_database_url is not None  # noqa: S101  prepare() saw it
        parameters: dict[str, Any] = {**_CONNECTION, **conninfo_to_dict(self.settings.console_database_url.get_secret_value())}
        if login == CONSOLE:
            parameters["options"] = _OWN_OPTIONS
        else:
            parameters |= {"user": login, "password": console_login.password(self._key, login)}
        return parameters

    async def _upkeep(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_SECONDS)
            await self._own.close_idle()
            await self._tenants.close_idle()
            self.requests.forget()
            self.logins.forget()
