"""Questions to many servers at once, of which some never answer."""

import threading
import time
from collections.abc import Callable, Mapping


def in_parallel(
    tasks: Mapping[str, Callable[[], object]], seconds: float, waiting: Callable[[str], None] = lambda _: None
) -> dict[str, str]:
    """Run every task in a thread of its own; names and reasons of those that failed, or did not end within so many seconds. `waiting` hears
    once a second at most of which tasks are awaited."""
    failures = dict.fromkeys(tasks, f"no answer within {seconds:.0f} s")

    def run(name: str, task: Callable[[], object]) -> None:
        try:
            task()
        except Exception as error:  # whatever breaks is what the screen must show
            failures[name] = " ".join(str(error).split()) or type(error).__name__
        else:
            del failures[name]

    threads = {name: threading.Thread(target=run, args=(name, task), daemon=True) for name, task in tasks.items()}
    for thread in threads.values():
        thread.start()
    give_up = time.monotonic() + seconds
    for thread in threads.values():
        while thread.is_alive() and (left := give_up - time.monotonic()) > 0:
            thread.join(min(1.0, left))
            waiting(", ".join(name for name, other in threads.items() if other.is_alive()))
    return dict(failures)
