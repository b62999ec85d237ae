"""A replay in a process of its own that kills itself (SIGKILL) at a named point of its n-th batch: python -m … POINT N FIRST LAST.

It replays what is quarantined, then restores the offsets [FIRST, LAST) of partition 0.
"""

import sys
from typing import Any

from iot_platform.settings import get_settings
from iot_platform.telemetry.replay import batch_counts
from iot_platform.telemetry.replay.replay import Replay, Selection
from iot_platform.telemetry.replay.writer import ReplayWriter
from iot_platform_tests.support.children.drain import Killer

POINTS = ("before_claim", "after_claim", "after_rows", "during_commit", "after_commit")


def arm(killer: Killer) -> None:
    """Put the points around the real functions."""
    claim, write_books, write = ReplayWriter._claim, batch_counts.write, ReplayWriter.write

    def claim_point(self: ReplayWriter, cursor: Any, work: Any) -> None:
        killer.reached("before_claim")
        claim(self, cursor, work)
        killer.reached("after_claim")

    def books_point(*arguments: Any) -> Any:
        keys = write_books(*arguments)
        killer.reached("after_rows")
        killer.reached("during_commit", 0.001)  # PostgreSQL writes the commit about now
        return keys

    def write_point(self: ReplayWriter, *arguments: Any) -> Any:
        tally = write(self, *arguments)
        killer.reached("after_commit")
        return tally

    ReplayWriter._claim = claim_point  # type: ignore[method-assign]
    batch_counts.write = books_point
    ReplayWriter.write = write_point  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(Killer(sys.argv[1], int(sys.argv[2])))
    Replay(get_settings(), Selection(quarantined=True)).run()
    Replay(get_settings(), Selection(partition=0, first=int(sys.argv[3]), last=int(sys.argv[4]))).run()
