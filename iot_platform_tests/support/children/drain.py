"""A drain in a process of its own that kills itself (SIGKILL) at a named point of its n-th batch: python -m … POINT N."""

import os
import signal
import sys
import threading
from typing import Any

from iot_platform.settings import get_settings
from iot_platform.telemetry.drain import batch_counts
from iot_platform.telemetry.drain.drain import Drain, Shift
from iot_platform.telemetry.drain.writer import Writer

POINTS = ("before_claim", "after_claim", "after_rows", "during_commit", "after_commit")


class Killer:
    """Counts down at a point, then kills the process."""

    def __init__(self, point: str, number: int) -> None:
        self.point = point
        self._left = number

    def reached(self, point: str, delay: float = 0) -> None:
        if point != self.point:
            return
        self._left -= 1
        if self._left == 0 and delay:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def arm(killer: Killer) -> None:
    """Put the points around the real functions."""
    claim, write_books, write = Writer._claim, batch_counts.write, Writer.write

    def claim_point(self: Writer, cursor: Any, records: Any) -> None:
        killer.reached("before_claim")
        claim(self, cursor, records)
        killer.reached("after_claim")

    def books_point(*arguments: Any) -> None:
        write_books(*arguments)
        killer.reached("after_rows")
        killer.reached("during_commit", 0.001)  # PostgreSQL writes the commit about now

    def write_point(self: Writer, batch: Any) -> Any:
        outcome = write(self, batch)
        killer.reached("after_commit")
        return outcome

    Writer._claim = claim_point  # type: ignore[method-assign]
    batch_counts.write = books_point
    Writer.write = write_point  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(Killer(sys.argv[1], int(sys.argv[2])))
    Drain(get_settings(), Shift((0, 1), f"killed {sys.argv[1]}", until_caught_up=True)).run()
