"""The poison brake's asset check, evaluated from the ledger; and how a run that is not about checks tells a result."""

from contextlib import closing
from typing import TYPE_CHECKING, Final

import dagster as dg

from iot_platform.database import connect
from iot_platform.settings import Settings
from iot_platform.telemetry.counters import BRAKE_SHARE, BRAKE_STREAK
from iot_platform.telemetry.sums import BadShare, bad_share

if TYPE_CHECKING:
    from iot_platform.telemetry.drain.progress import Progress

BRAKE_WINDOW_SECONDS: Final = 300.0
BRAKE_LEAST: Final = 10
"""Fewer bad records than this never trip the share: one bad message among ten is no flood."""
_WHY: Final = "Reasons: SELECT reason, count(*) FROM quarantine WHERE received_at > now() - INTERVAL '10 min' GROUP BY reason"


def is_poisoned(share: BadShare) -> bool:
    """Whether the brake is on: too large a share, or too long a series, of bad records."""
    too_many = share.quarantined >= BRAKE_LEAST and share.quarantined > BRAKE_SHARE * share.records
    return too_many or share.longest_series >= BRAKE_STREAK


def evaluate_brake(settings: Settings) -> dg.AssetCheckResult:
    """Poison brake over the records committed in the last 5 minutes."""
    with closing(connect(settings, application_name="dagster-check")) as connection:
        share = bad_share(connection, settings.kafka_topic, BRAKE_WINDOW_SECONDS, BRAKE_STREAK)
    poisoned = is_poisoned(share)
    return dg.AssetCheckResult(
        check_name="messages_are_mostly_good",
        asset_key="quarantine",
        passed=not poisoned,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "records": share.records,
            "quarantined": share.quarantined,
            "share": round(share.quarantined / share.records, 4) if share.records else 0.0,
            "longest_series_of_bad": share.longest_series,
            "window_seconds": BRAKE_WINDOW_SECONDS,
        },
        description=_WHY if poisoned else None,
    )


def brake_pulled(progress: "Progress") -> dg.AssetCheckEvaluation:
    """The brake's failure in the middle of a drain that saw too many bad records."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("quarantine"),
        check_name="messages_are_mostly_good",
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"records": progress.messages, "quarantined": progress.quarantined, "reasons": dict(progress.reasons)},
        description=_WHY,
    )


def evaluation_of(result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    """The event that tells a result from inside a run that is not about checks."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey.from_coercible(result.asset_key or ()),
        check_name=result.check_name or "",
        passed=result.passed,
        severity=result.severity,
        metadata=result.metadata,
        description=result.description,
    )
