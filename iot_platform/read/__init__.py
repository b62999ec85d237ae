"""A tenant's data as polars frames, for data teams: measurements, rollups, latest values, incidents, under the reader's own login.
Imports no dagster; how to use it: docs/read.md."""

from iot_platform.read.errors import ReadAccessError, ReadError, ReadInterruptedError, ReadQuestionError
from iot_platform.read.reader import Reader
from iot_platform.read.resolution import Resolution, resolution_for

__all__ = ["ReadAccessError", "ReadError", "ReadInterruptedError", "ReadQuestionError", "Reader", "Resolution", "resolution_for"]
