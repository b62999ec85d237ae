"""How long rows are kept: reads and changes retention_policy, and refuses what contradicts itself."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.retention.errors import PolicyError

_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks", "y": "years", "hour": "hours", "day": "days", "week": "weeks", "year": "years"}
_KEEP: Final = re.compile(r"(\d{1,6})\s*(h|d|w|y|hours?|days?|weeks?|years?)")
FOREVER: Final = "infinity"
BY_CHUNK: Final = frozenset({"ledger"})
"""Tables whose rows belong to no project."""

_SHOW: Final = """
SELECT p.table_name, p.tenant_id, p.project_id,
    CASE p.keep WHEN 'infinity' THEN 'for ever' ELSE p.keep::text END, p.changed_at, p.changed_by,
    nullif(retention_cutoff(p.table_name, p.tenant_id, p.project_id), '-infinity'), nullif(m.removed_before, '-infinity'),
    p.tenant_id <> '' AND EXISTS (SELECT FROM retention_policy w WHERE w.table_name = p.table_name
        AND (w.tenant_id, w.project_id) IN (('', ''), (p.tenant_id, '')) AND (w.tenant_id, w.project_id) <> (p.tenant_id, p.project_id)
        AND now() - w.keep > now() - p.keep),
    coalesce((SELECT sum(r.rows) FROM retention_removed r WHERE r.table_name = p.table_name AND r.tenant_id = p.tenant_id
        AND r.project_id = p.project_id), 0)::bigint
FROM retention_policy p LEFT JOIN retention_mark m USING (table_name, tenant_id, project_id)
JOIN retention_tables() t USING (table_name)
ORDER BY t.place, p.table_name, p.tenant_id, p.project_id"""
_SET: Final = """
INSERT INTO retention_policy AS p (table_name, tenant_id, project_id, keep, changed_by) VALUES (%s, %s, %s, %s::interval, %s)
ON CONFLICT (table_name, tenant_id, project_id) DO UPDATE SET keep = excluded.keep, changed_at = now(), changed_by = excluded.changed_by"""
_LONGER: Final = """
SELECT w.tenant_id, w.project_id, CASE w.keep WHEN 'infinity' THEN 'for ever' ELSE w.keep::text END FROM retention_policy w
WHERE w.table_name = %(table)s AND (w.tenant_id, w.project_id) IN (('', ''), (%(tenant)s, ''))
  AND (w.tenant_id, w.project_id) <> (%(tenant)s, %(project)s) AND now() - w.keep > now() - %(keep)s::interval
ORDER BY w.keep LIMIT 1"""


@dataclass(frozen=True)
class Policy:
    """A row of retention_policy. `cutoff`: rows before it may go (None: none); `removed_before`: how far they went (None: nothing did);
    `shadowed`: a broader policy is shorter, so that this one changes nothing."""

    table: str
    tenant: str
    project: str
    keep: str
    changed_at: datetime
    changed_by: str
    cutoff: datetime | None
    removed_before: datetime | None
    shadowed: bool
    removed_rows: int


def parse_keep(text: str) -> str:
    """`12h`, `30d`, `6 weeks`, `2y` or `forever`, as PostgreSQL's interval.

    Raises:
        PolicyError: it is none of these, or shorter than an hour.
    """
    wanted = text.strip().lower()
    if wanted in ("forever", "for ever"):
        return FOREVER
    found = _KEEP.fullmatch(wanted)
    if found is None or int(found[1]) == 0:
        raise PolicyError(f"{text!r} is no time to keep rows: write 12h, 30d, 6w, 2y or forever; 1h is the least")
    unit = found[2] if found[2] in _UNITS else found[2].removesuffix("s")
    if int(found[1]) * {"hours": 1, "days": 24, "weeks": 168, "years": 8766}[_UNITS[unit]] > 100 * 8766:
        raise PolicyError(f"{text!r} is more than 100 years: write forever")
    return f"{int(found[1])} {_UNITS[unit]}"


def policies(connection: Connection) -> list[Policy]:
    """All policies, those for everybody first in each table."""
    with connection.cursor() as cursor:
        cursor.execute(_SHOW)
        found = [Policy(*row) for row in cursor.fetchall()]
    connection.rollback()
    return found


def set_policy(connection: Connection, table: str, keep: str, *, tenant: str = "", project: str = "", changed_by: str = "") -> None:
    """Keep rows of a table this long: of everybody, of a tenant, or of one of its projects. Commits.

    Raises:
        PolicyError: unknown table or tenant; longer than a broader policy; rollups would be kept shorter than what they are made of.
    """
    interval = parse_keep(keep)
    _check_scope(connection, table, tenant, project)
    with connection.cursor() as cursor:
        cursor.execute(_LONGER, {"table": table, "tenant": tenant, "project": project, "keep": interval})
        if tenant and (row := cursor.fetchone()) is not None:
            whom = f"tenant {row[0]}" if row[0] else "everybody"
            connection.rollback()
            raise PolicyError(
                f"{table} of {whom} is kept for {row[2]}: a policy of {'one project' if project else 'one tenant'} can only be shorter,"
                f" and {keep} is not"
            )
        cursor.execute("SELECT problem FROM retention_problems()")
        before = {problem for (problem,) in cursor.fetchall()}
        cursor.execute(_SET, (table, tenant, project, interval, changed_by))
        _check_problems(connection, before)
    connection.commit()


def behind_mark(connection: Connection, table: str, tenant: str, project: str) -> datetime | None:
    """Before when retention took rows that the policy would keep now (it was shorter once); None: it would keep none of those."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nullif(m.mark, '-infinity') FROM (SELECT retention_mark_of(%(table)s, %(tenant)s, %(project)s) AS mark) m"
            " WHERE m.mark > retention_cutoff(%(table)s, %(tenant)s, %(project)s)",
            {"table": table, "tenant": tenant, "project": project},
        )
        row = cursor.fetchone()
    connection.rollback()
    return None if row is None else row[0]


def remove_policy(connection: Connection, table: str, *, tenant: str, project: str = "") -> bool:
    """Drop the policy of a tenant or project, so that the broader one counts again; False if there is none. Commits.

    Raises:
        PolicyError: no tenant is named, or rollups would be kept shorter than what they are made of.
    """
    if not tenant:
        raise PolicyError("the policy for everybody can be changed, not removed: iot retention set TABLE TIME")
    with connection.cursor() as cursor:
        cursor.execute("SELECT problem FROM retention_problems()")
        before = {problem for (problem,) in cursor.fetchall()}
        cursor.execute(
            "DELETE FROM retention_policy WHERE table_name = %s AND tenant_id = %s AND project_id = %s", (table, tenant, project)
        )
        removed = cursor.rowcount > 0
        _check_problems(connection, before)
    connection.commit()
    return removed


def _check_problems(connection: Connection, before: set[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT problem FROM retention_problems()")
        problems = [problem for (problem,) in cursor.fetchall()]
    # What was wrong already, and still is, must not keep anybody from putting right something else.
    if new := [problem for problem in problems if problem not in before]:
        connection.rollback()
        raise PolicyError(f"refused: {new[0]}" + (f" (and {len(new) - 1} more)" if len(new) > 1 else ""))


def _check_scope(connection: Connection, table: str, tenant: str, project: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT table_name FROM retention_policy JOIN retention_tables() t USING (table_name) ORDER BY 1")
        known = [name for (name,) in cursor.fetchall()]
        cursor.execute(
            "SELECT EXISTS (SELECT FROM project WHERE tenant_id = %(t)s AND %(p)s IN ('', project_id))", {"t": tenant, "p": project}
        )
        (exists,) = cursor.fetchone() or (False,)
    connection.rollback()
    if table not in known:
        raise PolicyError(f"retention knows no table {table!r}; there are: {', '.join(known)}")
    if project and not tenant:
        raise PolicyError(f"project {project} needs its tenant: --tenant T --project {project}")
    if tenant and table in BY_CHUNK:
        raise PolicyError(f"rows of {table} belong to no tenant: it has one policy, for everybody")
    if tenant and not exists:
        raise PolicyError(f"there is no {'project ' + tenant + '/' + project if project else 'tenant ' + tenant}: see iot tenant list")
