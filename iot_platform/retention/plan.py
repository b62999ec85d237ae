"""What retention would remove: reads retention_plan."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

PLAN_SECONDS: Final = 1800
"""Counting, and proving that every batch is accounted for, reads what is to go once or twice."""

_PLAN: Final = """
SELECT table_name, tenant_id, project_id, chunk::text, range_from, range_to, coalesce(rows, 0), bytes, newest, coalesce(refused, '{}')
FROM retention_plan(coalesce(%s, now()), %s)"""
_MEASUREMENTS: Final = "SELECT tenant_id, project_id, problem FROM audit_measurements() WHERE problem IS NOT NULL ORDER BY 1, 2 LIMIT 100"


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
    without, only where to look. `at`: an earlier now. Changes nothing."""
    prepare(connection)
    with connection.cursor() as cursor:
        cursor.execute(_PLAN, (at, counted))
        found = [Removal(*[*row[:9], tuple(row[9])]) for row in cursor.fetchall()]
    connection.rollback()
    if counted and any(item.table == "measurement" and not item.refused for item in found):
        problems = list(unaccounted(connection))
        found = [replace(item, refused=item.refused or against(item, problems)) for item in found]
    return found


def unaccounted(connection: Connection) -> Iterator[tuple[str, str, str]]:
    """Tenant, project and problem, where measurements accounted and stored since the beginning are not as many. Reads the whole table."""
    with connection.cursor() as cursor:
        cursor.execute(_MEASUREMENTS)
        yield from cursor.fetchall()
    connection.rollback()


def against(item: Removal, problems: list[tuple[str, str, str]]) -> tuple[str, ...]:
    """Of `unaccounted`, what speaks against removing these measurements."""
    if item.table != "measurement":
        return ()
    return tuple(
        f"tenant {tenant or '–'} project {project or '–'} is unaccounted: {problem}"
        for tenant, project, problem in problems
        if item.tenant in ("", tenant) and item.project in ("", project)
    )[:20]
