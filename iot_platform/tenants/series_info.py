"""What people say of a series: display name, unit, valid range, description. Every change is kept, with who made it."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extras import execute_values

from iot_platform.tenants.errors import TenantError

BATCH: Final = 1000
LENGTHS: Final = {"display_name": 200, "unit": 50, "description": 2000}
_NUMBERS: Final = ("valid_min", "valid_max")

_STORE: Final = """
WITH given (project_id, device_id, metric, display_name, unit, valid_min, valid_max, description) AS (VALUES %s),
named AS (
    SELECT s.series_id, g.* FROM given g JOIN series s ON s.tenant_id = {tenant} AND s.project_id = g.project_id
        AND s.device_id = g.device_id AND s.metric = g.metric
), changed AS (
    INSERT INTO series_info AS i (series_id, display_name, unit, valid_min, valid_max, description, changed_by)
    SELECT series_id, display_name, unit, valid_min, valid_max, description, {who} FROM named n
    WHERE EXISTS (SELECT FROM series_info i WHERE i.series_id = n.series_id)
        OR (n.display_name, n.unit, n.description) <> ('', '', '') OR coalesce(n.valid_min, n.valid_max) IS NOT NULL
    ON CONFLICT (series_id) DO UPDATE SET display_name = excluded.display_name, unit = excluded.unit, valid_min = excluded.valid_min,
        valid_max = excluded.valid_max, description = excluded.description, changed_at = now(), changed_by = excluded.changed_by
    WHERE (i.display_name, i.unit, i.description) <> (excluded.display_name, excluded.unit, excluded.description)
        OR (i.valid_min, i.valid_max) IS DISTINCT FROM (excluded.valid_min, excluded.valid_max)
    RETURNING i.*
), kept AS (
    INSERT INTO series_info_change (series_id, display_name, unit, valid_min, valid_max, description, changed_at, changed_by)
    SELECT series_id, display_name, unit, valid_min, valid_max, description, changed_at, changed_by FROM changed RETURNING 1
)
SELECT (SELECT count(*) FROM named), (SELECT count(*) FROM kept)"""
_READ: Final = """
SELECT s.project_id, s.device_id, s.metric, coalesce(i.display_name, ''), coalesce(i.unit, ''), i.valid_min, i.valid_max,
    coalesce(i.description, '')
FROM series s LEFT JOIN series_info i USING (series_id)
WHERE s.tenant_id = %s AND (%s::text IS NULL OR s.project_id = %s) ORDER BY 1, 2, 3"""


@dataclass(frozen=True)
class SeriesInfo:
    """One series, and what people say of it; empty: nothing."""

    project: str
    device: str
    metric: str
    display_name: str = ""
    unit: str = ""
    valid_min: float | None = None
    valid_max: float | None = None
    description: str = ""


COLUMNS: Final = tuple(field.name for field in fields(SeriesInfo))


def store(connection: Connection, tenant: str, infos: Sequence[SeriesInfo], who: str) -> int:
    """Inside a transaction of the writer: set these, the whole of each. How many differed from what was there.

    Raises:
        TenantError: one of the series does not exist. Never retry.
    """
    changed = 0
    with connection.cursor() as cursor:
        text = _STORE.format(
            tenant=cursor.mogrify("%s", (tenant,)).decode().replace("%", "%%"), who=cursor.mogrify("%s", (who,)).decode().replace("%", "%%")
        )
        template = "(%s, %s, %s, %s, %s, %s::double precision, %s::double precision, %s)"
        for begin in range(0, len(infos), BATCH):
            part = infos[begin : begin + BATCH]
            ((named, kept),) = execute_values(cursor, text, [tuple(asdict(info).values()) for info in part], template, BATCH, fetch=True)
            if named != len(part):
                raise TenantError(_unknown(cursor, tenant, part))
            changed += kept
    return changed


def _unknown(cursor: Any, tenant: str, infos: Sequence[SeriesInfo]) -> str:
    for info in infos:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM series WHERE tenant_id = %s AND project_id = %s AND device_id = %s AND metric = %s)",
            (tenant, info.project, info.device, info.metric),
        )
        if cursor.fetchone() != (True,):
            return f"tenant {tenant} has no series {info.project} / {info.device} / {info.metric}; nothing was changed"
    return "a series is named twice; nothing was changed"


def read(connection: Connection, tenant: str, project: str | None = None) -> Iterator[SeriesInfo]:
    """All series of a tenant, in order."""
    with connection.cursor(name="series_info") as cursor:
        cursor.itersize = 10_000
        cursor.execute(_READ, (tenant, project, project))
        for row in cursor:
            yield SeriesInfo(*row)
    connection.rollback()


def write_csv(infos: Iterable[SeriesInfo]) -> Iterator[str]:
    """Lines of a CSV file with a header; empty fields where nothing is said."""
    for row in (COLUMNS, *()):
        yield _line(row)
    for info in infos:
        yield _line("" if value is None else value for value in asdict(info).values())


def _line(values: Iterable[object]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(list(values))
    return out.getvalue()


def read_csv(lines: Iterable[str], name: str) -> list[SeriesInfo]:
    """A CSV file as `write_csv` makes it; a column that is left out is empty, so at least the three names must be there.

    Raises:
        TenantError: file, line and what is wrong.
    """
    reader = csv.DictReader(lines, strict=True)
    try:
        header = reader.fieldnames or []
        if unknown := [column for column in header if column not in COLUMNS]:
            raise TenantError(f"{name}:1: there is no column {unknown[0]!r}; columns: {', '.join(COLUMNS)}")
        if missing := [column for column in COLUMNS[:3] if column not in header]:
            raise TenantError(f"{name}:1: the column {missing[0]} is missing; a file begins with {','.join(COLUMNS)}")
        found: dict[tuple[str, str, str], SeriesInfo] = {}
        for row in reader:
            info = _info(row, f"{name}:{reader.line_num}")
            if (key := (info.project, info.device, info.metric)) in found:
                raise TenantError(f"{name}:{reader.line_num}: this series is in the file already")
            found[key] = info
    except csv.Error as error:
        raise TenantError(f"{name}:{reader.line_num}: no CSV: {error}") from error
    return list(found.values())


def _info(row: dict[str, Any], place: str) -> SeriesInfo:
    if None in row or None in row.values():
        raise TenantError(f"{place}: as many fields as columns are needed")
    values: dict[str, Any] = dict(row)
    for column, most in LENGTHS.items():
        if len(values.get(column, "")) > most:
            raise TenantError(f"{place}: {column} is longer than {most} characters")
    for column in _NUMBERS:
        text = values.get(column, "").strip()
        try:
            values[column] = float(text) if text else None
        except ValueError as error:
            raise TenantError(f"{place}: {column} must be a number or empty, not {text!r}") from error
        if values[column] is not None and not math.isfinite(values[column]):
            raise TenantError(f"{place}: {column} must be finite")
    if values["valid_min"] is not None and values["valid_max"] is not None and values["valid_min"] > values["valid_max"]:
        raise TenantError(f"{place}: valid_min is greater than valid_max")
    if any("\0" in str(value) for value in values.values()):
        raise TenantError(f"{place}: texts have no character U+0000")
    return SeriesInfo(**values)
