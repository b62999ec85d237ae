"""What an export holds: the tables, their columns and types, and the query for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

_TIME: Final = pl.Datetime("us", "UTC")
_ROLLUP: Final[dict[str, Any]] = {
    "bucket": _TIME,
    "project_id": pl.String,
    "device_id": pl.String,
    "metric": pl.String,
    "value_count": pl.Int64,
    "numbers": pl.Int64,
    **dict.fromkeys(("value_min", "value_max", "value_sum", "value_avg", "value_first", "value_last"), pl.Float64),
}
ROW_BYTES: Final = 64
"""What a row weighs beside its payload."""


@dataclass(frozen=True)
class ExportTable:
    """A table of the export. `chunks`: whose chunks say which days there are (None: it is one file); `live`: a source that reaches
    further."""

    name: str
    schema: Mapping[str, Any]
    query: str
    time: str | None = None
    chunks: str | None = None
    live: str | None = None
    daily: bool = True

    def frame(self, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
        """Rows of the query as a data frame."""
        return pl.DataFrame(rows, schema=dict(self.schema), orient="row")

    def weight(self, row: tuple[Any, ...]) -> int:
        """About how many bytes the row takes."""
        return ROW_BYTES + sum(len(value) for value in row if isinstance(value, bytes | memoryview | str))


def _rollup(name: str, live: str, *, daily: bool) -> ExportTable:
    return ExportTable(
        name,
        _ROLLUP,
        f"SELECT {', '.join(_ROLLUP)} FROM {name}_named WHERE tenant_id = %(tenant)s AND bucket >= %(start)s AND bucket < %(end)s"  # noqa: S608
        " ORDER BY project_id, device_id, metric, bucket",
        time="bucket",
        chunks=name,
        live=live,
        daily=daily,
    )


TABLES: Final = (
    ExportTable(
        "series",
        {
            "series_id": pl.Int32,
            "project_id": pl.String,
            "device_id": pl.String,
            "metric": pl.String,
            "unit": pl.String,
            "first_seen_at": _TIME,
            "latest_time": _TIME,
            "latest_value": pl.Float64,
            "latest_value_int": pl.Int64,
            "latest_value_text": pl.String,
            "latest_flags": pl.Int16,
            "display_name": pl.String,
            "description": pl.String,
            "valid_min": pl.Float64,
            "valid_max": pl.Float64,
        },
        "SELECT s.series_id, s.project_id, s.device_id, s.metric, s.unit, s.first_seen_at, l.time, l.value, l.value_int, l.value_text,"
        " l.flags, s.display_name, s.description, s.valid_min, s.valid_max"
        " FROM series_named s LEFT JOIN series_latest l USING (series_id) WHERE s.tenant_id = %(tenant)s ORDER BY s.series_id",
    ),
    ExportTable(
        "message",
        {
            "received_at": _TIME,
            "topic": pl.String,
            "project_id": pl.String,
            "device_id": pl.String,
            "kafka_partition": pl.Int32,
            "log_generation": pl.Int32,
            "kafka_offset": pl.Int64,
            "payload": pl.Binary,
            "duplicate_of": pl.Int64,
            "duplicate_of_generation": pl.Int32,
            "time_source": pl.String,
            "time_shift_us": pl.Int32,
            "client_id": pl.String,
            "connection_number": pl.Int64,
            "sequence": pl.Int64,
            "packet_id": pl.Int32,
            "dup": pl.Boolean,
            "retain": pl.Boolean,
            "qos": pl.Int16,
        },
        "SELECT received_at, topic, project_id, device_id, kafka_partition, log_generation, kafka_offset, payload, duplicate_of,"
        " duplicate_of_generation, time_source, time_shift_us, client_id, connection_number, sequence, packet_id, dup, retain, qos"
        " FROM message_named"
        " WHERE tenant_id = %(tenant)s AND received_at >= %(start)s AND received_at < %(end)s"
        " ORDER BY received_at, kafka_partition, log_generation, kafka_offset",
        time="received_at",
        chunks="message",
    ),
    ExportTable(
        "measurement",
        {
            "time": _TIME,
            "project_id": pl.String,
            "device_id": pl.String,
            "metric": pl.String,
            "value": pl.Float64,
            "value_int": pl.Int64,
            "value_text": pl.String,
            "unit": pl.String,
            "flags": pl.Int16,
        },
        "SELECT time, project_id, device_id, metric, value, value_int, value_text, unit, flags FROM measurement_by_series"
        " WHERE tenant_id = %(tenant)s AND time >= %(start)s AND time < %(end)s ORDER BY series_id, time",
        time="time",
        chunks="measurement",
    ),
    ExportTable(
        "quarantine",
        {
            "received_at": _TIME,
            "topic": pl.String,
            "project_id": pl.String,
            "reason": pl.String,
            "detail": pl.String,
            "kafka_partition": pl.Int32,
            "log_generation": pl.Int32,
            "kafka_offset": pl.Int64,
            "payload": pl.Binary,
            "duplicate_of": pl.Int64,
            "duplicate_of_generation": pl.Int32,
            "topic_bytes": pl.Binary,
            "client_id": pl.String,
            "connection_number": pl.Int64,
            "sequence": pl.Int64,
        },
        "SELECT received_at, topic, project_id, reason, detail, kafka_partition, log_generation, kafka_offset, payload, duplicate_of,"
        " duplicate_of_generation, topic_bytes, client_id, connection_number, sequence FROM quarantine_named WHERE tenant_id = %(tenant)s"
        " AND received_at >= %(start)s AND received_at < %(end)s ORDER BY received_at, kafka_partition, log_generation, kafka_offset",
        time="received_at",
        chunks="quarantine",
    ),
    _rollup("measurement_1h", "measurement", daily=True),
    _rollup("measurement_1d", "measurement", daily=False),
)
"""In the order of writing."""
