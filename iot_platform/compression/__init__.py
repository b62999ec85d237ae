"""Compression of old chunks, and how long the disk will do. Knows neither Kafka nor Dagster."""

from iot_platform.compression.chunks import Chunk, Policy, read_chunks, read_policies, set_policy
from iot_platform.compression.errors import CompressionError
from iot_platform.compression.forecast import Forecast, forecast
from iot_platform.compression.run import Done, Result, compress

__all__ = [
    "Chunk",
    "CompressionError",
    "Done",
    "Forecast",
    "Policy",
    "Result",
    "compress",
    "forecast",
    "read_chunks",
    "read_policies",
    "set_policy",
]
