"""Proves that a sink has what the main store has: counts and checksums of each series and hour, from both sides."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.influx import stored
from iot_platform.influx.client import InfluxClient, identifier, literal, span
from iot_platform.influx.lines import FIELDS, TAGS, Key, Row, is_boolean, name_of, tag_value
from iot_platform.influx.target import Target
from iot_platform.settings import Settings

_FIRST: Final = "SELECT min(m.time) FROM measurement m WHERE m.time >= %s AND m.time < %s"
HOUR: Final = timedelta(hours=1)
MOST_DIFFERENCES: Final = 1_000
_TENANTS: Final = "SELECT tenant_id FROM project WHERE %s IN ('', tenant_id) GROUP BY 1 ORDER BY 1"

Point = tuple[Any, ...]
"""Value, value_int, value_bool, value_text."""


@dataclass(frozen=True)
class Difference:
    """An hour of a series that is not the same: how many points here (main store) and there (sink), and the first that differs."""

    tenant: str
    project: str
    device: str
    metric: str
    hour: datetime
    here: int
    there: int
    time_us: int
    here_is: Point | None
    there_is: Point | None


@dataclass(slots=True)
class Comparison:
    """What was compared. `checksum`: of all points that both have; the same points give the same one."""

    hours: int = 0
    series: int = 0
    points: int = 0
    checksum: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def compare(
    settings: Settings,
    target: Target,
    begin: datetime,
    end: datetime,
    *,
    tenant: str = "",
    on_hour: Callable[[datetime, Comparison], None] = lambda *_: None,
) -> Comparison:
    """Every series of [begin, end), hour by hour and tenant by tenant. What is committed while it reads differs until the sink has it, too:
    it is for the past.

    Raises:
        InfluxConfigError, InfluxUnavailableError, psycopg2.Error: nothing is proven; repeat.
    """
    result = Comparison()
    with closing(connect(settings, "writer", f"iot-influx {target.name} compares"[:63])) as connection, InfluxClient(target) as client:
        with connection.cursor() as cursor:
            cursor.execute(_TENANTS, (tenant,))
            tenants = [name for (name,) in cursor.fetchall()]
        connection.rollback()
        there_only = _tenants(client, settings) if not tenant else []
        everyone = sorted({*tenants, *there_only})
        names = stored.Names()
        while (hour := _next(connection, client, settings, begin, end)) is not None:
            last = min(end, hour.replace(minute=0, second=0, microsecond=0) + HOUR)
            for each in everyone:
                here: dict[Key, dict[int, Point]] = {}
                with closing(stored.between(connection, hour, last, each)) as parts:
                    rows = [row for part in parts for row in part]
                with connection.cursor() as cursor:
                    known = names.look_up(cursor, (row.series_id for row in rows))
                connection.rollback()
                for row in rows:
                    if row.series_id in known:
                        here.setdefault(known[row.series_id], {})[row.time] = _point(row)
                _judge(result, hour, here, _there(client, settings.influx_measurement, each, hour, last))
            result.hours, begin = result.hours + 1, last
            on_hour(last, result)
            if len(result.differences) >= MOST_DIFFERENCES:
                break
    return result


def _next(connection: Connection, client: InfluxClient, settings: Settings, begin: datetime, end: datetime) -> datetime | None:
    """Where the next point of either store is; None: there is none."""
    with connection.cursor() as cursor:
        cursor.execute(_FIRST, (begin, end))
        (here,) = cursor.fetchone() or (None,)
    connection.rollback()
    fields = ", ".join(map(identifier, FIELDS))
    statement = f"SELECT {fields} FROM {identifier(settings.influx_measurement)} WHERE {span(begin, end)} LIMIT 1"  # noqa: S608 - InfluxQL
    there = [series["values"][0][0] for series in client.query(statement) if series.get("values")]
    found = [here] if here is not None else []
    found += [datetime.fromtimestamp(0, UTC) + timedelta(microseconds=time // 1000) for time in there]
    return min(found, default=None)


def _tenants(client: InfluxClient, settings: Settings) -> list[str]:
    found = client.query(f"SHOW TAG VALUES FROM {identifier(settings.influx_measurement)} WITH KEY = {identifier('tenant')}")
    return [name_of(value) for series in found for _, value in series.get("values", [])]


def _there(client: InfluxClient, measurement: str, tenant: str, begin: datetime, end: datetime) -> dict[Key, dict[int, Point]]:
    fields, tags = ", ".join(map(identifier, FIELDS)), ", ".join(map(identifier, TAGS))
    where = f"{identifier('tenant')} = {literal(tag_value(tenant))} AND {span(begin, end)}"
    found: dict[Key, dict[int, Point]] = {}
    statement = f"SELECT {fields} FROM {identifier(measurement)} WHERE {where} GROUP BY {tags}"  # noqa: S608 - InfluxQL, quoted
    for series in client.query(statement):
        device, metric, project, of = (name_of(series["tags"][tag]) for tag in TAGS)
        points = found.setdefault((device, metric, project, of), {})
        for time, value, *others in series.get("values", []):
            # Nanoseconds that are no microseconds of ours are another point.
            points[time // 1000 if time % 1000 == 0 else time] = (None if value is None else float(value).hex(), *others)
    return found


def _point(row: Row) -> Point:
    is_bool = is_boolean(row)
    text, boolean = (None, row.value_text == "true") if is_bool else (row.value_text, None)
    return (None if row.value is None else row.value.hex(), row.value_int, boolean, text)


def _judge(result: Comparison, hour: datetime, here: dict[Key, dict[int, Point]], there: dict[Key, dict[int, Point]]) -> None:
    for key in sorted({*here, *there}):
        ours, theirs = here.get(key, {}), there.get(key, {})
        result.series += 1
        result.points += len(ours)
        if _checksum(ours) == _checksum(theirs) and ours == theirs:
            result.checksum ^= _checksum(ours)
            continue
        first = min(time for time in {*ours, *theirs} if ours.get(time) != theirs.get(time))
        device, metric, project, tenant = key
        sides = (len(ours), len(theirs), first, ours.get(first), theirs.get(first))
        result.differences.append(Difference(tenant, project, device, metric, hour.astimezone(UTC), *sides))


def _checksum(points: dict[int, Point]) -> int:
    return hash(frozenset(points.items()))
