"""Asset checks of the audit: which window they look at, and what they show."""

import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord, AssetCheckExecutionRecordStatus

from iot_platform.audit import AuditResult, run_audit
from iot_platform.settings import Settings

OFFSETS: Final = "every_offset_is_accounted_for"
SEQUENCES: Final = "every_sequence_is_contiguous"
_PROOFS: Final = {OFFSETS: ("offsets", "accounting"), SEQUENCES: ("sequences", "daemon")}
_FINISHED: Final = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}

EVERY_SECONDS: Final = 300.0
"""At the end of shifts the audit is evaluated at most this often."""
LEAST_SECONDS: Final = 3_600.0
MOST_SECONDS: Final = 86_400.0
"""The window is the last hour and whatever was committed since the last evaluation that passed, but no more than a day: a check that failed
goes on failing until what is lost is restored, or is a day old. `iot audit --since all` looks at everything."""
OVERLAP_SECONDS: Final = 60.0
SHOWN: Final = 20
_REMEDY: Final = "`iot audit` names everything; `iot replay` restores offsets that Kafka still holds."


def evaluate_audit(
    settings: Settings, instance: dg.DagsterInstance, name: str, *, wait_seconds: float = 10.0, statement_seconds: float = 300.0
) -> dg.AssetCheckResult:
    """Evaluate one of the two checks of the asset message.

    Raises:
        DatabaseError: the database does not answer, or not within `statement_seconds` per proof.
    """
    since = window_start(_last(instance, name), time.time())
    result = run_audit(
        settings,
        since=datetime.fromtimestamp(since, UTC),
        wait_seconds=wait_seconds,
        proofs=_PROOFS[name],
        statement_seconds=statement_seconds,
    )
    return dg.AssetCheckResult(
        check_name=name,
        asset_key="message",
        passed=result.ok,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={**_numbers(name, result), **_shown(result), "since": dg.MetadataValue.timestamp(since)},
        description=None if result.ok else f"{sum(result.counts.values())} difference(s). {_REMEDY}",
    )


def is_due(instance: dg.DagsterInstance) -> bool:
    """Whether the end of a shift should evaluate the audit."""
    return any(last is None or time.time() - last.create_timestamp >= EVERY_SECONDS for last in (_last(instance, name) for name in _PROOFS))


def window_start(last: AssetCheckExecutionRecord | None, now: float) -> float:
    """Seconds since the epoch from which an evaluation looks, after the last finished one."""
    start = now - MOST_SECONDS
    if last is not None and last.status == AssetCheckExecutionRecordStatus.SUCCEEDED:
        start = last.create_timestamp - OVERLAP_SECONDS
    elif last is not None and last.evaluation is not None and "since" in last.evaluation.metadata:
        value = last.evaluation.metadata["since"].value
        start = value if isinstance(value, float) else start
    return max(now - MOST_SECONDS, min(now - LEAST_SECONDS, start))


def _last(instance: dg.DagsterInstance, name: str) -> AssetCheckExecutionRecord | None:
    key = dg.AssetCheckKey(dg.AssetKey("message"), name)
    found = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=_FINISHED)
    return found[0] if found else None


def _numbers(name: str, result: AuditResult) -> dict[str, int]:
    if name == OFFSETS:
        expected, found = (sum(getattr(row, field) for row in result.partitions) for field in ("expected", "found"))
        return {"differences": sum(result.counts.values()), "records_expected": expected, "records_found": found}
    return {"differences": sum(result.counts.values()), **result.sequence_sums()}


def _shown(result: AuditResult) -> dict[str, dg.MetadataValue]:
    rows = [dg.TableRecord({"proof": item.kind, "difference": item.text}) for item in result.differences[:SHOWN]]
    shown: dict[str, dg.MetadataValue] = {"first_differences": dg.MetadataValue.table(rows)} if rows else {}
    texts: Collection[str] = [*result.notes, *result.doubts]
    return shown | ({"notes": dg.MetadataValue.text("\n".join(texts))} if texts else {})
