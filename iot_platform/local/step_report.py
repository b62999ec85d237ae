"""Progress of `iot up` on the terminal: a line per finished step, and what is going on right now."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from iot_platform.local.install import Note

_QUIET_SECONDS = 10.0  # without a terminal, a long step shows a line this often


class Report:
    """Thread-safe; use as a context manager around all steps."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = Status("", console=console) if console.is_terminal else None
        self._active: dict[str, str] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "Report":
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    @contextmanager
    def step(self, name: str, done: str) -> Iterator[Note]:
        """Announce a step; yields the function that says what it is doing. `done` is said when the block ends well."""
        started = shown = time.monotonic()

        def note(text: str) -> None:
            nonlocal shown
            self._set(name, text)
            if self._status is None and time.monotonic() - shown > _QUIET_SECONDS:
                shown = time.monotonic()
                self._console.print(f"  … {name}: {escape(text)}", highlight=False, soft_wrap=True)

        note("starting")
        try:
            yield note
        finally:
            self._set(name, None)
        self._console.print(
            f"  [green]✓[/green] {name:<18} {escape(done)} [dim]({time.monotonic() - started:.1f} s)[/dim]",
            highlight=False,
            soft_wrap=True,
        )

    def _set(self, name: str, text: str | None) -> None:
        with self._lock:
            if text is None:
                self._active.pop(name, None)
            else:
                self._active[name] = text.splitlines()[0] if text else ""
            if self._status:
                self._status.update(" · ".join(f"[bold]{item}[/bold] {escape(what[:60])}" for item, what in self._active.items()))
