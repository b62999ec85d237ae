"""Names one conflict of each hour and project that has any: the stored value, the one that is not stored, and the message that says it."""

from collections.abc import Sequence
from typing import Final

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.interval import interval
from iot_platform.telemetry.drain.batch_counts import Group
from iot_platform.telemetry.drain.catalog import Project
from iot_platform.telemetry.drain.values import Values
from iot_platform.telemetry.records import Records

MOST_REMEMBERED: Final = 10_000
# The times as a range of constants too, or TimescaleDB would look into every chunk.
_DESCRIBE: Final = """
SELECT v.position, jsonb_build_object('received_at', 'epoch'::timestamptz + v.received_at * interval '1 microsecond',
    'device_id', s.device_id, 'metric', s.metric, 'time', v.time,
    'stored', value_shown(m.value, m.value_int, m.value_text), 'said', value_shown(v.value, v.value_int, v.value_text),
    'kafka_partition', v.kafka_partition, 'kafka_offset', v.kafka_offset, 'log_generation', v.log_generation)::text
FROM (
    SELECT u.*, 'epoch'::timestamptz + u.time_us * interval '1 microsecond' AS time
    FROM unnest(%(position)s::int[], %(series)s::int[], %(time)s::bigint[], %(value)s::text[]::float8[], %(value_int)s::bigint[],
        %(value_text)s::text[], %(received_at)s::bigint[], %(partition)s::int[], %(offset)s::bigint[], %(generation)s::int[])
        u (position, series_id, time_us, value, value_int, value_text, received_at, kafka_partition, kafka_offset, log_generation)
) v
JOIN series s USING (series_id)
LEFT JOIN LATERAL (
    SELECT m.value, m.value_int, m.value_text FROM measurement m
    WHERE m.series_id = v.series_id AND m.time = v.time
      AND m.time BETWEEN 'epoch'::timestamptz + %(first)s::interval AND 'epoch'::timestamptz + %(last)s::interval LIMIT 1
) m ON true"""


class ConflictExamples:
    """Fills in the examples of groups. Of an hour the first is kept (accounting_1h), so a flood of conflicts is looked at once an hour and
    project, not with each batch. A transaction that fails must not go on with the same object."""

    def __init__(self) -> None:
        self._known: set[tuple[int, Project, int]] = set()

    def fill(self, cursor: Cursor, groups: Sequence[Group], values: Values, records: Records) -> None:
        """Describe the conflict of each group that has one and was not described before; inside the caller's transaction."""
        wanted = [group for group in groups if group.conflict_at >= 0 and (group.hour, group.project, group.partition) not in self._known]
        if not wanted:
            return
        if len(self._known) > MOST_REMEMBERED:
            self._known.clear()
        self._known.update((group.hour, group.project, group.partition) for group in wanted)
        at = [group.conflict_at for group in wanted]
        rows = values.row[at]
        said = [values.parts(position) for position in at]
        times = values.time[at]
        cursor.execute(
            _DESCRIBE,
            {
                "position": list(range(len(at))),
                "series": values.series[at].tolist(),
                "time": times.tolist(),
                "value": [None if value is None else repr(value) for value, _, _ in said],  # as text: an array of numbers has no -0
                "value_int": [value_int for _, value_int, _ in said],
                "value_text": [None if text is None else text.decode() for _, _, text in said],
                "received_at": records.envelope.received_at[rows].tolist(),
                "partition": records.partition[rows].tolist(),
                "offset": records.offset[rows].tolist(),
                "generation": records.generation[rows].tolist(),
                "first": interval(times.min()),
                "last": interval(times.max()),
            },
        )
        for position, example in cursor.fetchall():
            wanted[position].conflict_example = example
