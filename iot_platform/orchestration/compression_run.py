"""Bodies of the asset compressed_chunk and its checks."""

from contextlib import closing
from typing import Final

import dagster as dg

from iot_platform.compression.chunks import read_chunks
from iot_platform.compression.compress import Result, compress
from iot_platform.compression.forecast import Forecast, forecast
from iot_platform.compression.formats import ENOUGH_DAYS, outlook_text, size
from iot_platform.database import connect
from iot_platform.database.capabilities import SWITCH, Capabilities, read_capabilities
from iot_platform.settings import Settings

COMPRESSED: Final = "old_chunks_are_compressed"
DISK: Final = "disk_is_sufficient"
ASSET: Final = "compressed_chunk"
SHOWN: Final = 50


def compress_chunks(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Compress what is due; in the Apache edition say what is missing and what that costs.

    Raises:
        DatabaseError: the database does not answer. Retry; what was done stays done.
    """

    def log_chunk(item: object, total: int) -> None:
        context.log.info("one of %d: %s", total, item)

    result = compress(settings, on_done=log_chunk)
    with closing(connect(settings, "writer", "dagster-compression")) as connection:
        outlook = forecast(connection, settings)
    return dg.MaterializeResult(metadata={**_work(result), **capability_metadata(result.capabilities), **forecast_metadata(outlook)})


def evaluate_compressed(settings: Settings) -> dg.AssetCheckResult:
    """Whether no chunk is due; a warning in the Apache edition, which cannot."""
    with closing(connect(settings, "writer", "dagster-check")) as connection:
        report, chunks = read_capabilities(connection), read_chunks(connection)
        lost = forecast(connection, settings).lost_a_day
    due = [chunk for chunk in chunks if chunk.due]
    packed = [chunk for chunk in chunks if chunk.compressed]
    available = report.has("compression")
    description = None
    if not available:
        description = f"The Apache edition has no compression: about {size(lost)} more a day than it need be. To have it: {SWITCH}."
    elif due:
        description = f"{len(due)} chunk(s) are due; `iot compression run` compresses them now."
    before, after = sum(chunk.plain_bytes for chunk in packed), sum(chunk.bytes for chunk in packed)
    return dg.AssetCheckResult(
        check_name=COMPRESSED,
        asset_key=ASSET,
        passed=available and not due,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "chunks": len(chunks),
            "compressed": len(packed),
            "due": len(due),
            "bytes_due": sum(chunk.bytes for chunk in due),
            **({"ratio": round(before / after, 2)} if after else {}),
            "lost_bytes_a_day": round(lost),
            **capability_metadata(report),
        },
        description=description,
    )


def evaluate_disk(settings: Settings) -> dg.AssetCheckResult:
    """Whether the disk will do for the next 30 days, at the rate of the last week and the policies in force."""
    with closing(connect(settings, "writer", "dagster-check")) as connection:
        outlook = forecast(connection, settings)
    return dg.AssetCheckResult(
        check_name=DISK,
        asset_key=ASSET,
        passed=outlook.days is None or outlook.days >= ENOUGH_DAYS,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=forecast_metadata(outlook),
        description=outlook_text(outlook),
    )


def capability_metadata(report: Capabilities) -> dict[str, dg.MetadataValue]:
    """The capability report, for any asset."""
    rows = [
        dg.TableRecord({"capability": item.name, "available": item.available, "what": item.text, "how to get it": item.remedy})
        for item in report.items
    ]
    return {"edition": dg.MetadataValue.text(report.headline()), "capabilities": dg.MetadataValue.table(rows)}


def forecast_metadata(outlook: Forecast) -> dict[str, dg.MetadataValue]:
    """Bytes, bytes per day and days until the limit; those not known are left out."""
    rows = [
        dg.TableRecord({"table": item.table, "bytes": item.bytes, "bytes a day": round(item.day_bytes), "ratio": round(item.ratio, 1)})
        for item in outlook.tables
    ]
    found: dict[str, dg.MetadataValue] = {
        "database_bytes": dg.MetadataValue.int(outlook.bytes),
        "bytes_a_day": dg.MetadataValue.int(round(outlook.day_bytes)),
        "saved_bytes_a_day": dg.MetadataValue.int(round(outlook.saved_a_day)),
        "lost_bytes_a_day": dg.MetadataValue.int(round(outlook.lost_a_day)),
        "messages_a_day": dg.MetadataValue.int(outlook.messages_a_day),
        "measurements_a_day": dg.MetadataValue.int(outlook.measurements_a_day),
        "most_bytes_in_three_years": dg.MetadataValue.int(outlook.steady_bytes),
        "limit": dg.MetadataValue.text(outlook.limit_source if outlook.limit is None else f"{outlook.limit} bytes: {outlook.limit_source}"),
        "tables": dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text("no chunks yet"),
    }
    if outlook.days is not None:
        found["days_until_limit"] = dg.MetadataValue.float(outlook.days)
    return found


def _work(result: Result) -> dict[str, dg.MetadataValue]:
    rows = [
        dg.TableRecord(
            {
                "table": item.table,
                "from": item.start.isoformat(),
                "action": item.action,
                "rows": item.rows or 0,
                "bytes before": item.bytes_before,
                "bytes after": item.bytes_after,
                "ratio": round(item.bytes_before / max(1, item.bytes_after), 1),
                "seconds": round(item.seconds, 2),
            }
        )
        for item in result.done[:SHOWN]
    ]
    found: dict[str, dg.MetadataValue] = {
        "chunks": dg.MetadataValue.int(len(result.done)),
        "chunks_due": dg.MetadataValue.int(len(result.due)),
        "chunks_postponed": dg.MetadataValue.int(len(result.postponed)),
        "rows": dg.MetadataValue.int(sum(item.rows or 0 for item in result.done)),
        "bytes_before": dg.MetadataValue.int(result.bytes_before),
        "bytes_after": dg.MetadataValue.int(result.bytes_after),
        "seconds": dg.MetadataValue.float(round(result.seconds, 2)),
    }
    if rows:
        found["compressions"] = dg.MetadataValue.table(rows)
    if result.bytes_after:
        found["ratio"] = dg.MetadataValue.float(round(result.bytes_before / result.bytes_after, 2))
    if not result.available:
        found["not_available"] = dg.MetadataValue.text(f"{len(result.due)} chunk(s) would be compressed. To have compression: {SWITCH}.")
    return found
