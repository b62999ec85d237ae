"""Reading rows of a tenant's views."""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from iot_platform.api.pools import Connection


async def rows(connection: Connection, query: LiteralString, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """All rows of a query, by PostgreSQL's binary format."""
    cursor = connection.cursor(binary=True)
    await cursor.execute(query, values)
    return await cursor.fetchall()


async def one(connection: Connection, query: LiteralString, values: Mapping[str, Any] | None = None) -> tuple[Any, ...] | None:
    """The first row of a query."""
    cursor = connection.cursor(binary=True)
    await cursor.execute(query, values)
    return await cursor.fetchone()


def columns(names: Sequence[str], found: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """Rows as columns; a list for each name, also where there are no rows."""
    return dict(zip(names, map(list, zip(*found, strict=True)), strict=True)) if found else {name: [] for name in names}
