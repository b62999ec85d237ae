"""The outside world: the MQTT broker as the ingest daemon sees it, and the Kafka topic with its offsets and lag."""

from collections.abc import Iterator

import dagster as dg

from iot_platform.orchestration.observations import observe_broker, observe_topic
from iot_platform.resources.platform import PlatformResource

GROUP = "ingestion"


@dg.multi_observable_source_asset(
    name="look_at_sources",
    specs=[
        dg.AssetSpec(
            "mqtt_broker",
            group_name=GROUP,
            kinds={"mqtt"},
            description="MQTT broker that devices publish to (IOT_MQTT_URL), as the ingest daemon sees it: connected, messages received.",
        ),
        dg.AssetSpec(
            "iot_messages",
            deps=["mqtt_broker"],
            group_name=GROUP,
            kinds={"kafka"},
            description="Kafka topic (IOT_KAFKA_TOPIC) of all received messages, payload bytes unchanged: end offsets, lag of the drain.",
        ),
    ],
    can_subset=True,
)  # type: ignore[untyped-decorator]
def ingestion_sources(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[dg.ObserveResult]:
    """Look at the broker and the topic; a server that does not answer is an observation that says so."""
    settings = platform.settings()
    selected = {key.to_user_string() for key in context.op_execution_context.selected_asset_keys}
    if "mqtt_broker" in selected:
        yield dg.ObserveResult(asset_key="mqtt_broker", metadata=observe_broker(settings))
    if "iot_messages" in selected:
        yield dg.ObserveResult(asset_key="iot_messages", metadata=observe_topic(settings))
