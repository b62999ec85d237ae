"""Waiting for a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import Any


def eventually(condition: Callable[[], Any], seconds: float = 30.0, what: str | Callable[[], object] = "", *, pause: float = 0.02) -> Any:
    """The condition's first true value; it is asked every `pause` seconds. Fails after so many seconds, and says `what` was awaited; a
    function is asked for that only then."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, (what() if callable(what) else what) or "not in time"
        time.sleep(pause)
    return value
