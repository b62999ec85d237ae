"""What retention would remove: reads retention_plan."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

PLAN_SECONDS: Final = 1800
"""Counting, and proving that every batch is accounted for, reads what is to go once or twice."""

_PLAN: Final = """
SELECT table_name, tenant_id, project_id, chunk::text, range_from, range_to, coalesce(rows, 0), bytes, newest, coalesce(refused, '{}')
FROM retention_plan(coalesce(%s, now()), %s)"""


@dataclass(frozen=True)
class Removal:
    """A chunk that goes whole, or (chunk None) rows of everybody, a tenant or a project in [range_from, range_to). `refused`: why not."""

    table: str
    tenant: str
    project: str
    chunk: str | None
    range_from: datetime
    range_to: datetime
    rows: int
    bytes: int
    newest: datetime | None
    refused: tuple[str, ...] = ()

    @property
    def scope(self) -> tuple[str, str, str]:
        """Table and policy: what is refused holds up everything newer of its scope."""
        return self.table, self.tenant, self.project


def prepare(connection: Connection) -> None:
    """Statements of retention may take as long as they take, within reason; they hold no lock that draining needs."""
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = %s", (f"{PLAN_SECONDS}s",))
    connection.commit()
    connection.answer_seconds = PLAN_SECONDS + 15.0  # type: ignore[attr-defined]


def plan(connection: Connection, *, counted: bool = True, at: datetime | None = None) -> list[Removal]:
    """What would go now, oldest first in each table. `counted`: with rows, newest times and reasons against it, which reads the rows;
    without, only where to look, and measurements that are unaccounted. `at`: an earlier now. Changes nothing."""
    prepare(connection)
    with connection.cursor() as cursor:
        cursor.execute(_PLAN, (at, counted))
        found = [Removal(*[*row[:9], tuple(row[9])]) for row in cursor.fetchall()]
    connection.rollback()
    return found
