"""A fleet's history: seeded measurements of weeks or months, written straight into the database without having been messages."""

from iot_platform.simulator.history.options import HistoryError, HistoryOptions

__all__ = ["HistoryError", "HistoryOptions"]
