"""Dagster's storage in PostgreSQL over connections that stay open; deploy/dagster/dagster.yaml names the class.

Dagster opens a connection for each query (dagster-postgres 0.29.27): an idle platform opened 25 a second, and each is a password's proof
and a new server process. Here all storages of a process share one pool, as Dagster makes instances as it likes, one for each sensor's tick.
"""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config
from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from dagster._serdes import ConfigurableClassData

KEPT: Final = 2
"""Connections that stay open when nobody uses them. More are made when they are needed, as many as Dagster has threads."""
OLDEST_SECONDS: Final = 600
"""An older connection is made anew when it is used next."""

_engines: dict[str, Engine] = {}
_making = threading.Lock()


class PooledPostgresStorage(DagsterPostgresStorage):
    """DagsterPostgresStorage, and configured as that is. A connection that broke is replaced before it is used."""

    def __init__(self, postgres_url: str, should_autocreate_tables: bool = True, *arguments: Any, **options: Any) -> None:
        with _making:
            known = _engines.get(postgres_url)
        # Three looks at which tables there are: once a process is enough.
        super().__init__(postgres_url, should_autocreate_tables and known is None, *arguments, **options)
        engine = _engine(postgres_url, options.get("token_provider"))
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine

    @classmethod
    def from_config_value(cls, inst_data: "ConfigurableClassData | None", config_value: Any) -> "PooledPostgresStorage":
        """As DagsterPostgresStorage makes itself."""
        values: Mapping[str, Any] = config_value
        return cls(
            pg_url_from_config(config_value),
            values.get("should_autocreate_tables", True),
            inst_data=inst_data,
            token_provider=get_token_provider_from_config(config_value),
        )


def _engine(url: str, token_provider: Any) -> Engine:
    with _making:
        if url not in _engines:
            _engines[url] = create_pg_engine(
                url,
                token_provider,
                isolation_level="AUTOCOMMIT",
                pool_size=KEPT,
                max_overflow=-1,
                pool_recycle=OLDEST_SECONDS,
                pool_pre_ping=True,
                pool_use_lifo=True,
            )
        return _engines[url]


def limit_statements(milliseconds: int) -> None:
    """No statement of this process to Dagster's storage takes longer from here on: PostgreSQL ends it with an error."""

    def limit(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, false)", (str(milliseconds),))
        connection.commit()

    with _making:
        engines = list(_engines.values())
    for engine in engines:
        event.listen(engine, "connect", limit)
        engine.dispose()  # those that are open have no limit
