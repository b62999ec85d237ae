"""Partition sets of the code location: Kafka partitions follow the topic; tenants and projects appear with their data."""

from iot_platform.orchestration.dynamic_partitions import KAFKA_PARTITION, PROJECT, TENANT
from iot_platform.orchestration.sourced_partitions import SourcedPartitions

kafka_partitions = SourcedPartitions(name=KAFKA_PARTITION)
tenant_partitions = SourcedPartitions(name=TENANT)
project_partitions = SourcedPartitions(name=PROJECT)
