"""History of one series, and what happened to its device on the time axis."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Viewer
from iot_platform.api.answers import answer
from iot_platform.api.parameters import Resolution, Text
from iot_platform.api.pools import Connection
from iot_platform.api.problems import responses
from iot_platform.api.routes.series_info import info
from iot_platform.api.rows import columns, one, rows
from iot_platform.telemetry.counters import PUNCTUAL_SECONDS

router = APIRouter(prefix="/tenants/{tenant}", tags=["history"], responses=responses(401, 404, 422, 429, 503))
AUTO_POINTS: Final = 20_000
"""As many measurements as auto draws as they are; more make it take hours."""
AUTO_HOURS: Final = 3_000
MOST_POINTS: Final = 50_000
MOST_DAYS: Final = 3660.0
MARK_BUCKETS: Final = 100
MOST_MARKS: Final = 400

_ONE: Final = "project_id = %(project)s AND device_id = %(device)s AND metric = %(metric)s"
_RAW: Final = f"""
SELECT round(date_part('epoch', time) * 1000)::bigint, nullif(value, 'NaN'), coalesce(value_text, value_int::text), coalesce(flags, 0)
FROM measurement WHERE {_ONE} AND time >= %(from)s AND time < %(to)s ORDER BY time LIMIT %(limit)s"""  # noqa: S608
_COUNT: Final = f"""
SELECT coalesce(sum(value_count), 0)::bigint FROM measurement_1h WHERE {_ONE} AND bucket >= %(hour)s AND bucket < %(to)s"""  # noqa: S608
_HOURS: Final = f"""
SELECT round(date_part('epoch', bucket) * 1000)::bigint, value_min, value_max, value_avg, value_count, value_first, value_last
FROM measurement_1h WHERE {_ONE} AND bucket >= %(from)s AND bucket < %(to)s ORDER BY bucket LIMIT %(limit)s"""  # noqa: S608
_DAYS: Final = f"""
SELECT round(date_part('epoch', bucket) * 1000)::bigint, value_min, value_max, value_avg, value_count, value_first, value_last
FROM measurement_1d WHERE {_ONE} AND bucket >= %(from)s AND bucket < %(to)s ORDER BY bucket LIMIT %(limit)s"""  # noqa: S608

_QUARANTINED: Final = """
SELECT min(received_at), count(*), min(reason || ': ' || detail), min(kafka_partition), min(kafka_offset) FROM (
    SELECT received_at, reason, detail, kafka_partition, kafka_offset, time_bucket(%(width)s, received_at) AS bucket FROM quarantine
    WHERE received_at >= %(from)s AND received_at < %(to)s AND project_id = %(project)s AND duplicate_of IS NULL LIMIT 100000
) q GROUP BY bucket ORDER BY 1"""
_CONFLICTS: Final = """
SELECT hour, sum(measurement_conflicts)::bigint, (array_agg(conflict_example ORDER BY kafka_partition) FILTER (
           WHERE conflict_example IS NOT NULL AND (%(device)s::text IS NULL OR conflict_example ->> 'device_id' = %(device)s)))[1]
FROM accounting_1h WHERE hour >= %(hour)s AND hour < %(to)s AND project_id = %(project)s AND measurement_conflicts > 0
GROUP BY hour ORDER BY hour"""
_LATE: Final = f"""
SELECT min(time), count(*), 'received more than {PUNCTUAL_SECONDS} s after its time', NULL, NULL
FROM measurement WHERE {_ONE} AND time >= %(from)s AND time < %(to)s AND flags & 4 <> 0 GROUP BY time_bucket(%(width)s, time) ORDER BY 1"""  # noqa: S608
_INCIDENTS: Final = """
SELECT opened_at, flaps + 1, rule || ': ' || message, kafka_partition, kafka_offset FROM incident
WHERE project_id = %(project)s AND (%(device)s::text IS NULL OR device_id IN (%(device)s, '')) AND opened_at < %(to)s
  AND (closed_at IS NULL OR closed_at > %(from)s) ORDER BY opened_at DESC LIMIT 200"""


class HistoryQuery(parameters.TimeRange):
    """One series and a time range; `auto` takes the finest resolution that makes at most about 20,000 points."""

    project: Text
    device: Annotated[str, Field(max_length=1024)]
    metric: Text
    resolution: Resolution = "auto"


class HistorySeries(BaseModel):
    """Which series it is."""

    project: str
    device: str
    metric: str
    unit: str
    display_name: str
    description: str
    valid_min: float | None
    valid_max: float | None


class RawColumns(BaseModel):
    """Measurements. Times are milliseconds since the epoch."""

    time: list[int]
    value: list[float | None]
    value_text: list[str | None]
    flags: list[int]


class RollupColumns(BaseModel):
    """Hours or days (UTC). `time` is their begin, milliseconds since the epoch; an hour without measurements is not there."""

    time: list[int]
    min: list[float | None]
    max: list[float | None]
    avg: list[float | None]
    count: list[int]
    first: list[float | None]
    last: list[float | None]


class History(BaseModel):
    """The history. `truncated`: there is more in the range than was sent; narrow it, or take a coarser resolution."""

    series: HistorySeries
    resolution: Literal["raw", "1h", "1d"]
    columns: RawColumns | RollupColumns
    truncated: bool


class MarksQuery(parameters.TimeRange):
    """A project, one device of it, or one series of that: late values are those of a series."""

    project: Text
    device: Annotated[str, Field(max_length=1024)] | None = None
    metric: Text | None = None


class TraceOf(BaseModel):
    """A Kafka record; for /trace."""

    partition: int
    offset: str


class Mark(BaseModel):
    """Something on the time axis; several of one kind that lie close together are one."""

    time: datetime
    kind: Literal["late", "conflict", "quarantined", "incident"]
    count: int
    detail: str
    trace: TraceOf | None


class Marks(BaseModel):
    """At most a few hundred, by time."""

    marks: list[Mark]


@router.get("/history", response_model=History)
async def history(request: Request, access: Viewer, query: Annotated[HistoryQuery, Query()]) -> Response:
    """Measurements or rollups of one series."""
    query.check(MOST_DAYS)
    values = query.model_dump(by_alias=True)
    series = await info(access, {name: values[name] for name in ("project", "device", "metric")})
    async with access.read() as connection:
        resolution = query.resolution if query.resolution != "auto" else await _resolution(connection, query, values)
        most = MOST_POINTS if resolution == "raw" else 10 * AUTO_HOURS
        statement = {"raw": _RAW, "1h": _HOURS, "1d": _DAYS}[resolution]
        found = await rows(connection, statement, {**values, "limit": most + 1})
    names: Sequence[str] = list((RawColumns if resolution == "raw" else RollupColumns).model_fields)
    document = {"series": series, "resolution": resolution, "columns": columns(names, found[:most]), "truncated": len(found) > most}
    return answer(request, document)


async def _resolution(connection: Connection, query: HistoryQuery, values: dict[str, Any]) -> Literal["raw", "1h", "1d"]:
    """The finest that makes a picture, and no more: by how many measurements the range holds, not by how long it is."""
    hours = (query.to - query.from_) / timedelta(hours=1)
    if hours > 24 * AUTO_HOURS:
        return "1d"
    counted = await one(connection, _COUNT, {**values, "hour": query.from_.replace(minute=0, second=0, microsecond=0)})
    if counted is not None and counted[0] <= AUTO_POINTS:
        return "raw"
    return "1h" if hours <= AUTO_HOURS else "1d"


@router.get("/marks", response_model=Marks)
async def marks(request: Request, access: Viewer, query: Annotated[MarksQuery, Query()]) -> Response:
    """Late values, quarantined messages, conflicts and incidents on the time axis. A quarantined message names no device, so all of the
    project's are there; a conflict is told of by one example of each hour."""
    query.check(366)
    width = max(timedelta(minutes=1), (query.to - query.from_) / MARK_BUCKETS)
    values = {**query.model_dump(by_alias=True), "width": width, "hour": query.from_.replace(minute=0, second=0, microsecond=0)}
    async with access.read() as connection:
        quarantined = await rows(connection, _QUARANTINED, values)
        conflicts = await rows(connection, _CONFLICTS, values)
        incidents = await rows(connection, _INCIDENTS, values)
        late = await rows(connection, _LATE, values) if query.device is not None and query.metric is not None else []
    found = [_mark(kind, row) for kind, of in (("quarantined", quarantined), ("incident", incidents), ("late", late)) for row in of]
    found += [_conflict(hour, count, example) for hour, count, example in conflicts if example or query.device is None]
    return answer(request, {"marks": sorted(found, key=lambda mark: mark["time"])[:MOST_MARKS]})


def _mark(kind: str, row: tuple[Any, ...]) -> dict[str, Any]:
    time, count, detail, partition, offset = row
    trace = None if partition is None or offset is None else {"partition": partition, "offset": str(offset)}
    return {"time": time, "kind": kind, "count": count, "detail": detail[:500], "trace": trace}


def _conflict(hour: datetime, count: int, example: dict[str, Any] | None) -> dict[str, Any]:
    if not example:
        return _mark("conflict", (hour, count, "", None, None))
    words = f"{example.get('device_id', '')} {example.get('metric', '')}: {example.get('stored')} / {example.get('said')}"
    try:
        time = datetime.fromisoformat(str(example.get("time")))
    except ValueError:
        time = hour
    time = time if time.tzinfo else hour
    return _mark("conflict", (time, count, words, example.get("kafka_partition"), example.get("kafka_offset")))
