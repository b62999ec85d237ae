"""Dynamic partition sets that look a key up where it comes from: in the topic, or in the database."""

from collections.abc import Sequence

import dagster as dg

from iot_platform.database import connect
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.orchestration.dagster_private import PartitionLoadingContext
from iot_platform.orchestration.dynamic_partitions import KAFKA_PARTITION, ProjectKeys, sync_kafka_partitions
from iot_platform.settings import get_settings
from iot_platform.telemetry.sums import known_projects


class SourcedPartitions(dg.DynamicPartitionsDefinition):
    """Dynamic partitions that can be looked up at their source, so that a first `dagster asset materialize --partition 0` works before any
    sensor ran."""

    def validate_partition_key(self, partition_key: str, context: PartitionLoadingContext) -> None:
        """Accept the key if Dagster or the source has it.

        Raises:
            DagsterInvalidSubsetError: neither has it; the message lists what there is.
        """
        instance = context.dynamic_partitions_store
        if isinstance(instance, dg.DagsterInstance) and partition_key not in instance.get_dynamic_partitions(self._validated_name()):
            _sync(instance, self._validated_name())
            keys = instance.get_dynamic_partitions(self._validated_name())
            if partition_key not in keys:
                shown = ", ".join(keys[:20]) + (" …" if len(keys) > 20 else "")
                raise dg.DagsterInvalidSubsetError(f"there is no {self.name} {partition_key!r}; there are: {shown or 'none yet'}")


def chosen_keys(context: dg.AssetExecutionContext, what: str) -> Sequence[str]:
    """The partitions of the run. Raises dg.Failure, which says what to choose, where a run was launched without any."""
    if not (context.has_partition_key or context.has_partition_key_range):
        raise dg.Failure(
            f"this run names no partition: choose {what} when you materialize (in the UI: Materialize… and the partitions or All; on the "
            "command line: --partition KEY, or --partition-range FIRST...LAST)",
            allow_retries=False,
        )
    keys: Sequence[str] = context.partition_keys
    return keys


def _sync(instance: dg.DagsterInstance, name: str) -> None:
    settings = get_settings()
    if name == KAFKA_PARTITION:
        with TopicOffsets(settings) as topic:
            sync_kafka_partitions(instance, topic.partitions())
    else:
        connection = connect(settings, application_name="dagster-partitions")
        try:
            ProjectKeys(instance).add(known_projects(connection))
        finally:
            connection.close()
