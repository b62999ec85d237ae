"""The retention asset and its check: what they do, and how they report it."""

from typing import Final

import dagster as dg

from iot_platform.retention import Removal, RetentionReport, run_retention
from iot_platform.settings import Settings

ASSET: Final = "retention_removed"
CHECK: Final = "retention_is_possible"
RUN_SECONDS: Final = 3600.0
SHOWN: Final = 30


def materialize_retention(settings: Settings) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Remove what may go, and say what went."""
    report = run_retention(settings, seconds=RUN_SECONDS)
    return dg.MaterializeResult(asset_key=ASSET, metadata=_metadata(report), check_results=[_result(report.refused)])


def _result(refused: list[Removal]) -> dg.AssetCheckResult:
    rows = [
        dg.TableRecord({"table": item.table, "whose": _whose(item), "what": _what(item), "reason": reason})
        for item in refused
        for reason in item.refused
    ]
    shown: dict[str, dg.MetadataValue] = {"reasons": dg.MetadataValue.table(rows[:SHOWN])} if rows else {}
    first = refused[0] if refused else None
    return dg.AssetCheckResult(
        check_name=CHECK,
        asset_key=ASSET,
        passed=not refused,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"refused": len(refused), **shown},
        description=f"{first.table} {_what(first)} stays: {first.refused[0]}" if first else None,
    )


def _metadata(report: RetentionReport) -> dict[str, dg.MetadataValue]:
    removed: dict[str, list[int]] = {}
    for item in report.removed:
        sums = removed.setdefault(item.table, [0, 0, 0])
        for place, value in enumerate((item.rows, int(item.chunk is not None), item.bytes)):
            sums[place] += value
    rows = [
        dg.TableRecord(
            {
                "table": table,
                "rows": removed.get(table, [0, 0, 0])[0],
                "chunks": removed.get(table, [0, 0, 0])[1],
                "bytes_before": before,
                "bytes_after": report.sizes_after.get(table, 0),
            }
        )
        for table, before in report.sizes_before.items()
    ]
    return {
        "rows": dg.MetadataValue.int(report.rows),
        "chunks": dg.MetadataValue.int(report.chunks),
        "bytes": dg.MetadataValue.int(report.bytes),
        "seconds": dg.MetadataValue.float(round(report.seconds, 3)),
        "bytes_before": dg.MetadataValue.int(sum(report.sizes_before.values())),
        "bytes_after": dg.MetadataValue.int(sum(report.sizes_after.values())),
        "refused": dg.MetadataValue.int(len(report.refused)),
        "postponed": dg.MetadataValue.int(len(report.postponed)),
        "unfinished": dg.MetadataValue.bool(report.unfinished),
        "by_table": dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text("nothing"),
    }


def _whose(item: Removal) -> str:
    return "/".join(part for part in (item.tenant, item.project) if part) or "everybody"


def _what(item: Removal) -> str:
    return item.chunk or f"rows {item.range_from:%Y-%m-%d %H:%M}Z to {item.range_to:%Y-%m-%d %H:%M}Z"
