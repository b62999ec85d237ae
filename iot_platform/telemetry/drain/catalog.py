"""Database ids of the names that a decoder interned: looked up once, created when new, bounded per project."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from iot_platform.database.locks import lock_key
from iot_platform.telemetry.decode import DecodedBatch, Decoder
from iot_platform.telemetry.envelope import Connection as MqttConnection
from iot_platform.telemetry.project_options import ProjectOptions

Project = tuple[str, str]
NEVER: Final = np.iinfo(np.int64).min
"""Latest time of a series that has no measurement."""
CHUNK: Final = 10_000

_FIND_SERIES: Final = """
SELECT s.identity, s.series_id, (extract(epoch FROM l.time) * 1000000)::bigint
FROM series s LEFT JOIN series_latest l USING (series_id) WHERE s.identity = ANY (%s::bytea[])
AND NOT EXISTS (SELECT FROM tenant_leaving d WHERE d.tenant_id = s.tenant_id AND s.series_id <= d.last_series_id)"""
_FIND_SOURCES: Final = """
SELECT s.identity, s.source_id, NULL FROM source s WHERE s.identity = ANY (%s::bytea[])
AND NOT EXISTS (SELECT FROM tenant_leaving d WHERE d.tenant_id = s.tenant_id AND s.source_id <= d.last_source_id)"""
_MAKE_WAY: Final = "SELECT catalog_make_way(%s::bytea[], %s::bytea[])"
_ADD_SERIES: Final = """
INSERT INTO series (identity, tenant_id, project_id, device_id, metric)
SELECT * FROM unnest(%s::bytea[], %s::text[], %s::text[], %s::text[], %s::text[])
ON CONFLICT DO NOTHING RETURNING identity, series_id, NULL"""
_ADD_SOURCES: Final = """
INSERT INTO source (identity, topic, tenant_id, project_id, device_id)
SELECT * FROM unnest(%s::bytea[], %s::text[], %s::text[], %s::text[], %s::text[])
ON CONFLICT DO NOTHING RETURNING identity, source_id, NULL"""
_ADD_PROJECTS: Final = "INSERT INTO project (tenant_id, project_id) VALUES %s ON CONFLICT DO NOTHING"
_COUNTED: Final = "SELECT series_count, source_count FROM project WHERE tenant_id = %s AND project_id = %s"
_COUNT: Final = """
UPDATE project p SET series_count = p.series_count + v.series, source_count = p.source_count + v.sources
FROM (VALUES %s) v (tenant_id, project_id, series, sources) WHERE p.tenant_id = v.tenant_id AND p.project_id = v.project_id"""

_GENERATION: Final = "SELECT generation FROM catalog_generation"
_HOLD: Final = f"SELECT pg_advisory_xact_lock_shared(%s); {_GENERATION}"  # two statements: the second one must see what the lock waited for


def name_key(names: Sequence[str]) -> bytes:
    """SHA-256 of the names, each prefixed with its length in bytes: the unique key of series and source."""
    parts = [name.encode() for name in names]
    return hashlib.sha256(b"".join([len(part).to_bytes(4, "big") + part for part in parts])).digest()


class Catalog:
    """Maps one decoder's indices to database ids. Used by one thread with one connection; ids are created in transactions of their
    own, so a batch that is rolled back leaves at most names without rows. `latest` is only what this process knows: the unique index
    decides in the end. `create=False`: a dry run, unknown names stay unknown (id 0) and nothing is written.

    Ids that it remembers may be deleted with their tenant. A transaction that writes rows with these ids calls `hold` first."""

    def __init__(self, connection: Connection, decoder: Decoder, max_per_project: int, *, create: bool = True) -> None:
        self.decoder = decoder
        self.projects: list[Project] = []
        self.source_id = np.zeros(0, np.int32)  # [decoder.sources] 0: not looked up yet
        self.source_project = np.zeros(0, np.int32)  # [decoder.sources] index into projects
        self.series_id = np.zeros(0, np.int32)  # [decoder.series]
        self.latest = np.zeros(0, np.int64)  # [decoder.series] greatest committed time, µs
        self.series_project = np.zeros(0, np.int32)  # [decoder.series] index into projects
        self._connection = connection
        self._max = max_per_project
        self._creates = create
        self._project_index: dict[Project, int] = {}
        with connection.cursor() as cursor:
            cursor.execute(_GENERATION)
            self._generation = _number(cursor)
        connection.commit()

    def hold(self, cursor: Cursor) -> bool:
        """Whether every id is still what it was; if so, it stays until the end of the transaction. If not, roll back and begin anew with a
        new catalog. Waits for the cut of a deletion (tens of ms)."""
        cursor.execute(_HOLD, (lock_key("catalog"),))
        return _number(cursor) == self._generation

    def project_index(self, project: Project) -> int:
        """The index of a project in `projects`, which grows."""
        index = self._project_index.get(project)
        if index is None:
            index = self._project_index[project] = len(self.projects)
            self.projects.append(project)
        return index

    def chosen(self, options: ProjectOptions, name: str, local: npt.NDArray[np.int32]) -> list[str]:
        """What an option says for each of these series."""
        projects = self.series_project[local]
        values = {index: options.value(name, *self.projects[index]) for index in np.unique(projects).tolist()}
        return [values[index] for index in projects.tolist()]

    def resolve(self, batch: DecodedBatch, wanted: npt.NDArray[np.bool_]) -> list[tuple[int, str]]:
        """Make the ids of all names of the wanted records known, creating them. Returns (record, detail) of records that would
        take their project over the limit; their names may stay unknown. Commits."""
        self._grow()
        rows = np.flatnonzero(wanted & (batch.source_index >= 0))
        measurements = np.flatnonzero(wanted[batch.m_row])
        new_sources = self._unknown(batch.source_index[rows], self.source_id)
        new_series = self._unknown(batch.m_series[measurements], self.series_id)
        if not len(new_sources) and not len(new_series):
            return []
        sources = {name_key(self.decoder.sources[index]): index for index in new_sources.tolist()}
        series = {name_key(self.decoder.series[index]): index for index in new_series.tolist()}
        with self._connection.cursor() as cursor:
            self._look_up(cursor, sources, series)
        self._connection.commit()
        if not sources and not series:
            return []
        with self._connection.cursor() as cursor:
            if self._creates:
                rejected = self._create(cursor, batch, wanted, sources, series)
            else:
                rejected = self._admit(batch, wanted, sources, series, self._room(cursor, self._touched(sources, series), ""))
        self._connection.commit()
        return rejected

    def resolve_sources(self, batch: DecodedBatch, wanted: npt.NDArray[np.bool_]) -> list[tuple[int, str]]:
        """As resolve, for records of which only the source is needed."""
        if not wanted.any():
            return []
        none = np.zeros(0, np.int32)
        return self.resolve(replace(batch, m_row=none, m_series=none), wanted)

    def _unknown(self, used: npt.NDArray[np.int32], known: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        return np.unique(used[known[used] == 0])

    def _grow(self) -> None:
        sources = self.decoder.sources[len(self.source_id) :]
        series = self.decoder.series[len(self.series_id) :]
        if sources:
            projects = [self.project_index((tenant, project)) for _, tenant, project, _ in sources]
            self.source_id = np.append(self.source_id, np.zeros(len(sources), np.int32))
            self.source_project = np.append(self.source_project, np.array(projects, np.int32))
        if series:
            projects = [self.project_index((tenant, project)) for tenant, project, _, _ in series]
            self.series_id = np.append(self.series_id, np.zeros(len(series), np.int32))
            self.latest = np.append(self.latest, np.full(len(series), NEVER, np.int64))
            self.series_project = np.append(self.series_project, np.array(projects, np.int32))

    def _look_up(self, cursor: Cursor, sources: dict[bytes, int], series: dict[bytes, int]) -> None:
        """Take what the database knows; it disappears from the two dictionaries."""
        for query, names in ((_FIND_SOURCES, sources), (_FIND_SERIES, series)):
            keys = list(names)
            for start in range(0, len(keys), CHUNK):
                cursor.execute(query, (_array(keys[start : start + CHUNK]),))
                self._take(cursor.fetchall(), names, query is _FIND_SERIES)

    def _take(self, found: Iterable[tuple[memoryview, int, int | None]], names: dict[bytes, int], are_series: bool) -> None:
        for key, number, latest in found:
            index = names.pop(bytes(key))
            (self.series_id if are_series else self.source_id)[index] = number
            if are_series and latest is not None:
                self.latest[index] = latest

    def _create(
        self, cursor: Cursor, batch: DecodedBatch, wanted: npt.NDArray[np.bool_], sources: dict[bytes, int], series: dict[bytes, int]
    ) -> list[tuple[int, str]]:
        """Under the lock of the projects' rows, so that counts are exact and the second transaction finds what the first created."""
        projects = self._touched(sources, series)
        execute_values(cursor, _ADD_PROJECTS, projects)
        room = self._room(cursor, projects, " FOR UPDATE")
        self._look_up(cursor, sources, series)
        rejected = self._admit(batch, wanted, sources, series, room)
        self._insert(cursor, sources, series)
        return rejected

    def _touched(self, sources: dict[bytes, int], series: dict[bytes, int]) -> list[Project]:
        touched = {int(self.source_project[index]) for index in sources.values()}
        touched |= {int(self.series_project[index]) for index in series.values()}
        return sorted(self.projects[index] for index in touched)

    def _room(self, cursor: Cursor, projects: list[Project], lock: str) -> dict[int, tuple[int, int]]:
        """How many series and sources each project may still create."""
        room: dict[int, tuple[int, int]] = {}
        for project in projects:  # one by one: the order of locking is then the same everywhere
            cursor.execute(_COUNTED + lock, project)
            counts = cursor.fetchone()
            while lock and counts is None:  # deleted, with its tenant, while we waited for it
                execute_values(cursor, _ADD_PROJECTS, [project])
                cursor.execute(_COUNTED + lock, project)
                counts = cursor.fetchone()
            counts = counts or (0, 0)
            room[self._project_index[project]] = (self._max - counts[0], self._max - counts[1])
        return room

    def _insert(self, cursor: Cursor, sources: dict[bytes, int], series: dict[bytes, int]) -> None:
        counts: dict[int, list[int]] = {}
        for index in series.values():
            counts.setdefault(int(self.series_project[index]), [0, 0])[0] += 1
        for index in sources.values():
            counts.setdefault(int(self.source_project[index]), [0, 0])[1] += 1
        for query, names, table, are_series in (
            (_ADD_SOURCES, sources, self.decoder.sources, False),
            (_ADD_SERIES, series, self.decoder.series, True),
        ):
            new = list(names.items())
            for start in range(0, len(new), CHUNK):
                part = new[start : start + CHUNK]
                keys = _array([key for key, _ in part])
                cursor.execute(_MAKE_WAY, (keys, "{}") if are_series else ("{}", keys))
                columns = map(list, zip(*(table[index] for _, index in part), strict=True))
                cursor.execute(query, (keys, *columns))
                self._take(cursor.fetchall(), names, are_series)
        if sources or series:  # the lock on the project forbids this
            raise RuntimeError(f"{len(sources)} sources and {len(series)} series could not be created")
        if counts:
            execute_values(cursor, _COUNT, [(*self.projects[index], *count) for index, count in sorted(counts.items())], page_size=CHUNK)

    def _admit(
        self,
        batch: DecodedBatch,
        wanted: npt.NDArray[np.bool_],
        sources: dict[bytes, int],
        series: dict[bytes, int],
        room: dict[int, tuple[int, int]],
    ) -> list[tuple[int, str]]:
        """Decide, in offset order, which records of a full project may create their names; the others' names leave the dictionaries."""
        new_series, new_sources = set(series.values()), set(sources.values())
        more_series = Counter(int(self.series_project[index]) for index in new_series)
        more_sources = Counter(int(self.source_project[index]) for index in new_sources)
        full = [project for project, left in room.items() if more_series[project] > left[0] or more_sources[project] > left[1]]
        if not full:
            return []
        rejected: list[tuple[int, str]] = []
        allowed_series: set[int] = set()
        allowed_sources: set[int] = set()
        in_full = np.isin(self.source_project[np.maximum(batch.source_index, 0)], full) & wanted & (batch.source_index >= 0)
        starts = np.searchsorted(batch.m_row, np.arange(len(in_full) + 1))
        left = {project: list(room[project]) for project in full}
        for row in np.flatnonzero(in_full).tolist():
            source = int(batch.source_index[row])
            project = int(self.source_project[source])
            need = (set(batch.m_series[starts[row] : starts[row + 1]].tolist()) & new_series) - allowed_series
            need_source = {source} & new_sources - allowed_sources
            if len(need) > left[project][0] or len(need_source) > left[project][1]:
                what = "series" if len(need) > left[project][0] else "sources"
                name = "/".join(self.projects[project])
                rejected.append((row, f"project {name} has the {self._max} {what} that IOT_MAX_SERIES_PER_PROJECT allows"))
                continue
            left[project][0] -= len(need)
            left[project][1] -= len(need_source)
            allowed_series |= need
            allowed_sources |= need_source
        for names, allowed, owner in ((series, allowed_series, self.series_project), (sources, allowed_sources, self.source_project)):
            for key, index in list(names.items()):
                if int(owner[index]) in left and index not in allowed:
                    del names[key]
        return rejected


def _array(keys: Sequence[bytes]) -> str:
    """A bytea[] as PostgreSQL reads it: one parameter for all, which costs a tenth of one for each."""
    return "{" + ",".join([f'"\\\\x{key.hex()}"' for key in keys]) + "}"


def _number(cursor: Cursor) -> int:
    row = cursor.fetchone()
    if row is None:
        raise RuntimeError("catalog_generation is empty")
    return int(row[0])


class ConnectionIds:
    """Database ids of MQTT connections; created in transactions of their own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[MqttConnection, int] = {}

    def resolve(self, connections: Sequence[MqttConnection]) -> npt.NDArray[np.int32]:
        """The id of each connection; with one element 0 more, so that index -1 (no connection) gives 0."""
        if unknown := sorted(set(connections) - self._known.keys()):
            with self._connection.cursor() as cursor:
                execute_values(
                    cursor, "INSERT INTO mqtt_connection (client_id, connection_number) VALUES %s ON CONFLICT DO NOTHING", unknown
                )
                for found in unknown:
                    cursor.execute("SELECT connection_id FROM mqtt_connection WHERE client_id = %s AND connection_number = %s", found)
                    row = cursor.fetchone()
                    if row is None:
                        raise RuntimeError("an MQTT connection that was just created is gone")
                    self._known[found] = int(row[0])
            self._connection.commit()
        return np.array([*(self._known[item] for item in connections), 0], np.int32)
