"""Notes where each Kafka partition's log ends, in kafka_watermark, for dashboards."""

from collections.abc import Mapping

from psycopg2.extensions import connection as Connection  # noqa: N812

_NOTE_WATERMARKS = """
INSERT INTO kafka_watermark AS w (topic, kafka_partition, high, problem)
SELECT %(topic)s, n.partition, n.high, n.problem
FROM unnest(%(partitions)s::int[], %(high)s::bigint[], %(problems)s::text[]) n (partition, high, problem)
ON CONFLICT (topic, kafka_partition) DO UPDATE SET high = excluded.high, seen_at = excluded.seen_at, problem = excluded.problem
RETURNING 1"""


def note_watermarks(connection: Connection, topic: str, high: Mapping[int, int], problems: Mapping[int, str | None]) -> None:
    """Keep where each partition's log ends now, and what is wrong with it, for dashboards."""
    values = {"topic": topic, "partitions": list(high), "high": list(high.values()), "problems": [problems.get(p) for p in high]}
    with connection, connection.cursor() as cursor:
        cursor.execute(_NOTE_WATERMARKS, values)
