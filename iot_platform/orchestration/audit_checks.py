"""Asset checks of the audit: which window they look at, and what they show."""

import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from iot_platform.audit import AuditResult, run_audit
from iot_platform.audit.record import keep
from iot_platform.audit.window import window_start
from iot_platform.orchestration.dagster_private import AssetCheckExecutionRecord, AssetCheckExecutionRecordStatus
from iot_platform.settings import Settings

OFFSETS: Final = "every_offset_is_accounted_for"
SEQUENCES: Final = "every_sequence_is_contiguous"
_PROOFS: Final = {OFFSETS: ("offsets", "accounting"), SEQUENCES: ("sequences", "daemon")}
_FINISHED: Final = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}

EVERY_SECONDS: Final = 300.0
"""At the end of shifts the audit is evaluated at most this often."""
SHOWN: Final = 20
_REMEDY: Final = "`iot audit` names everything; `iot replay` restores offsets that Kafka still holds."


def evaluate_audit(
    settings: Settings, instance: dg.DagsterInstance, name: str, *, wait_seconds: float = 10.0, statement_seconds: float = 300.0
) -> dg.AssetCheckResult:
    """Evaluate one of the two checks of the asset message.

    Raises:
        DatabaseError: the database does not answer, or not within `statement_seconds` per proof.
    """
    since = _window_start(_last(instance, name), time.time())
    result = run_audit(
        settings,
        since=datetime.fromtimestamp(since, UTC),
        wait_seconds=wait_seconds,
        proofs=_PROOFS[name],
        statement_seconds=statement_seconds,
    )
    keep(settings, name, result)
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


def _window_start(last: AssetCheckExecutionRecord | None, now: float) -> float:
    if last is None or last.status == AssetCheckExecutionRecordStatus.SUCCEEDED:
        return window_start(now, last.create_timestamp if last else None, None)
    since = last.evaluation.metadata.get("since") if last.evaluation else None
    return window_start(now, None, since.value if since is not None and isinstance(since.value, float) else None)


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
