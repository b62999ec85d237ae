"""Claims about the drained tables, each named by what it proves. Shifts evaluate them too; here they run by hand and on schedule."""

import dagster as dg

from iot_platform.resources.checks import evaluate_brake, evaluate_ledger
from iot_platform.resources.platform import PlatformResource


@dg.asset_check(asset="message")
def ledger_is_continuous(platform: PlatformResource) -> dg.AssetCheckResult:
    """Offset ranges committed in the last 24 hours follow each other in every Kafka partition, without gap or overlap."""
    return evaluate_ledger(platform.settings())


@dg.asset_check(asset="quarantine")
def messages_are_mostly_good(platform: PlatformResource) -> dg.AssetCheckResult:
    """Poison brake: fails while over 5 % of the last 5 minutes' records, or 1,000 in a row, are in quarantine. Nothing stops."""
    return evaluate_brake(platform.settings())
