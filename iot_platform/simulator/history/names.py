"""Writes a history's projects, sources and series, and finds the ids that the database gave the series."""

import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.copy_binary import HEADER, TRAILER, encode_row, int4, timestamptz
from iot_platform.simulator.history.devices import HistoryFleet
from iot_platform.simulator.history.options import HistoryError
from iot_platform.telemetry.drain.catalog import name_key

_PROJECT: Final = "COPY project (tenant_id, project_id, first_seen_at, series_count, source_count) FROM STDIN (FORMAT binary)"
_SOURCE: Final = "COPY source (identity, topic, tenant_id, project_id, device_id, first_seen_at) FROM STDIN (FORMAT binary)"
_SERIES: Final = "COPY series (identity, tenant_id, project_id, device_id, metric, unit, first_seen_at) FROM STDIN (FORMAT binary)"
_EXISTING: Final = """
SELECT tenant_id, project_id FROM project
JOIN unnest(%s::text[], %s::text[]) n (tenant_id, project_id) USING (tenant_id, project_id) LIMIT 1"""
_IDS: Final = "SELECT identity, series_id FROM series WHERE tenant_id = ANY (%s)"


def create(cursor: Cursor, fleet: HistoryFleet, most_per_project: int) -> None:
    """Write all names, in the caller's transaction.

    Raises:
        HistoryError: a project exists already, or would have more series than the platform allows.
    """
    projects = fleet.project_names()
    series = np.bincount(fleet.project[fleet.device], minlength=len(projects))
    if series.max() > most_per_project:
        raise HistoryError(
            f"a project would have {series.max():,} series, IOT_MAX_SERIES_PER_PROJECT allows {most_per_project:,}: raise it, or --projects"
        )
    cursor.execute(_EXISTING, tuple(map(list, zip(*projects, strict=True))))
    if found := cursor.fetchone():
        raise HistoryError(f"project {found[0]}/{found[1]} of this fleet exists already, but not from a history: take another --seed")
    sources = np.bincount(fleet.project, minlength=len(projects))
    _copy(cursor, _PROJECT, _projects(fleet, projects, series.tolist(), sources.tolist()))
    _copy(cursor, _SOURCE, _sources(fleet, projects))
    _copy(cursor, _SERIES, _series(fleet, projects))


def series_ids(cursor: Cursor, fleet: HistoryFleet) -> npt.NDArray[np.int32]:
    """The id of each series.

    Raises:
        HistoryError: some are gone, as after `iot tenant delete`.
    """
    cursor.execute(_IDS, (sorted({tenant for tenant, _ in fleet.project_names()}),))
    known = {bytes(key): number for key, number in cursor.fetchall()}
    try:
        return np.fromiter((known[name_key(names)] for names in _series_names(fleet, fleet.project_names())), np.int32, len(fleet))
    except KeyError as error:
        raise HistoryError("some series of this history were deleted since: take another --seed, or an empty database") from error


def _projects(fleet: HistoryFleet, projects: Sequence[tuple[str, str]], series: list[int], sources: list[int]) -> Iterator[bytes]:
    since = timestamptz(fleet.options.start_us)
    for (tenant, project), of_series, of_sources in zip(projects, series, sources, strict=True):
        yield encode_row([tenant.encode(), project.encode(), since, int4(of_series), int4(of_sources)])


def _sources(fleet: HistoryFleet, projects: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    named = fleet.topics.device_levels is not None
    for device, (number, born) in enumerate(zip(fleet.project.tolist(), fleet.born_us.tolist(), strict=True)):
        tenant, project = projects[number]
        name = fleet.device_name(device)
        names = (fleet.topics.render(tenant, project, name if named else None), tenant, project, name)
        yield encode_row([name_key(names), *(part.encode() for part in names), timestamptz(born)])


def _series(fleet: HistoryFleet, projects: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    born = fleet.born_us[fleet.device].tolist()
    for names, metric, since in zip(_series_names(fleet, projects), fleet.metrics(), born, strict=True):
        unit = None if metric.unit is None else metric.unit.encode()
        yield encode_row([name_key(names), *(part.encode() for part in names), unit, timestamptz(since)])


def _series_names(fleet: HistoryFleet, projects: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, str, str]]:
    devices = [fleet.device_name(device) for device in range(len(fleet.cadence))]
    numbers = fleet.project.tolist()
    for device, metric in zip(fleet.device.tolist(), fleet.metrics(), strict=True):
        yield (*projects[numbers[device]], devices[device], metric.name)


def _copy(cursor: Cursor, query: str, rows: Iterable[bytes]) -> None:
    cursor.copy_expert(query, io.BytesIO(b"".join((HEADER, *rows, TRAILER))), size=1 << 20)


def utc_time(microseconds: int) -> datetime:
    """µs since the epoch as a time (UTC)."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).replace(microsecond=microseconds % 1_000_000)
