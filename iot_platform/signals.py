"""SIGTERM and SIGINT as a request to stop at the next batch, instead of an exception at an arbitrary instruction."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals(*stop: threading.Event, then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Set these events at the first SIGTERM or SIGINT, and call `then`; the second one acts as before. Outside the main thread signals are
    left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        for event in stop:
            event.set()
        restore()
        then()

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        restore()
