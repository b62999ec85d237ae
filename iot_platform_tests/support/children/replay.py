"""A replay in a process of its own: python -m … [FIRST LAST], of what is quarantined, or of the offsets [FIRST, LAST) of partition 0."""

import sys

from iot_platform.settings import get_settings
from iot_platform.telemetry.replay.replay import Replay, Selection

TAKE = "DELETE FROM quarantine q"
"""How a batch claims what leaves quarantine."""
LOOK = "record_place(log_generation, kafka_offset) AS place FROM message"
"""How a batch claims what it restores."""

if __name__ == "__main__":
    first, last = map(int, sys.argv[1:] or (0, 0))
    chosen = Selection(partition=0, first=first, last=last) if last else Selection(quarantined=True)
    Replay(get_settings(), chosen).run()
