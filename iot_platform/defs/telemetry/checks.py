"""Claims about the drained tables, each named by what it proves. They run by hand and on schedule; shifts evaluate all but the topics'
settings, too, which a shift does not change."""

from typing import Final

import dagster as dg

from iot_platform.orchestration.audit_checks import OFFSETS, SEQUENCES, evaluate_audit
from iot_platform.orchestration.brake_check import evaluate_brake
from iot_platform.orchestration.partition_checks import GOES_ON, KEEPS, evaluate_partitions, evaluate_topics
from iot_platform.resources.platform import PlatformResource


@dg.asset_check(asset="message", name=OFFSETS, blocking=True)
def every_offset_is_accounted_for(context: dg.AssetCheckExecutionContext, platform: PlatformResource) -> dg.AssetCheckResult:
    """Every Kafka offset that was committed in the last hour, and since this last passed, is in message or quarantine exactly once; the
    ledger's ranges join, and accounting_1h equals the rows."""
    return evaluate_audit(platform.settings(), context.instance, OFFSETS)


@dg.asset_check(asset="message", name=SEQUENCES, blocking=True)
def every_sequence_is_contiguous(context: dg.AssetCheckExecutionContext, platform: PlatformResource) -> dg.AssetCheckResult:
    """Every message that an ingest daemon numbered and wrote to Kafka is in message, quarantine or dead_letter: no MQTT connection has a
    hole. The daemons' own counters add up."""
    return evaluate_audit(platform.settings(), context.instance, SEQUENCES)


@dg.asset_check(asset="message", name=GOES_ON)
def every_partition_can_go_on(platform: PlatformResource) -> dg.AssetCheckResult:
    """Every Kafka partition can be drained on at its next offset: the topic is the one that was drained, no record was deleted before it
    was drained, and the log does not end before what was drained. Fails with the command that ends it."""
    return evaluate_partitions(platform.settings())


@dg.asset_check(asset="message", name=KEEPS)
def topics_keep_what_was_acknowledged(platform: PlatformResource) -> dg.AssetCheckResult:
    """Neither Kafka topic, the one for dead letters included, has a setting in force that can lose an acknowledged message: retention
    shorter than the outage budget, compaction, no sync on a single replica, unclean elections. Fails with the command that mends it."""
    return evaluate_topics(platform.settings())


@dg.asset_check(asset="quarantine")
def messages_are_mostly_good(platform: PlatformResource) -> dg.AssetCheckResult:
    """Poison brake: fails while over 5 % of the last 5 minutes' records, or 1,000 in a row, are in quarantine. Nothing stops."""
    return evaluate_brake(platform.settings())


CHECKS: Final = (
    every_offset_is_accounted_for,
    every_sequence_is_contiguous,
    every_partition_can_go_on,
    topics_keep_what_was_acknowledged,
    messages_are_mostly_good,
)
