"""A thread that looks at the files that settings name, and keeps what was learnt. SIGHUP makes it look at once."""

import threading
from collections.abc import Callable

import structlog

INTERVAL_SECONDS = 2.0

log = structlog.get_logger("ingest")


class Housekeeping:
    """Runs its tasks in turn, again and again; they may block as long as a file system or a server does, and wait for each other."""

    def __init__(self, *tasks: Callable[[], None]) -> None:
        """An error of a task is logged, and the task tried again in the next round."""
        self._tasks = tasks
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look now; may be called by a signal's handler."""
        self._wake.set()

    def stop(self) -> None:
        """End after the present round; returns at once."""
        self._stopped = True
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            for task in self._tasks:
                try:
                    task()
                except Exception:  # the thread's boundary: one broken task must not keep the others from their work
                    log.exception("housekeeping_failed")
            self._wake.wait(INTERVAL_SECONDS)
