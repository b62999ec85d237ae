"""A drain in a process of its own, until it has caught up: python -m …"""

import sys
from typing import Final

from iot_platform.settings import get_settings
from iot_platform.telemetry.drain.drain import Drain, Shift

COMMAND: Final = (sys.executable, "-m", "iot_platform_tests.support.children.drain")
CLAIM: Final = "UPDATE kafka_offset o SET next_offset"
"""The compare-and-set that each batch begins with."""

if __name__ == "__main__":
    Drain(get_settings(), Shift((0, 1), "killed", until_caught_up=True)).run()
