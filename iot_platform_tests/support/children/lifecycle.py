"""Retention, deletion, export and rollups in processes of their own: python -m …, a JSON object a line on stdin.

Each line is run by a fork. Told on stdout: its process id at once, its exit status (negative: the signal) when it ended. Most are killed
from outside; an export can be told to kill itself (SIGKILL) around the n-th renaming of a file to a name that contains `text`, which
Python's audit events show.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from iot_platform.retention import run_retention
from iot_platform.rollups import Rebuild, roll_up
from iot_platform.settings import Settings, get_settings
from iot_platform.tenants.deletion import delete_tenant
from iot_platform.tenants.export import export_tenant


def rebuild(settings: Settings, since: str, until: str) -> None:
    for _ in Rebuild(settings, datetime.fromisoformat(since), datetime.fromisoformat(until)).steps():
        pass


WORK: dict[str, Callable[..., Any]] = {
    "retention": lambda settings: run_retention(settings, max_rows=4),
    "delete": lambda settings, asked_by="test": delete_tenant(settings, "acme", requested_by=asked_by, max_rows=5),
    "export": lambda settings, folder: export_tenant(settings, "acme", Path(folder), part_rows=9),
    "rollup": roll_up,
    "rebuild": rebuild,
}


def die_at_rename(point: str, text: str, number: int) -> None:
    """`before_rename`: of the file. `after_rename`: when Python next touches a file."""
    left = number  # raise_signal: os.kill is an audit event itself

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if left == 0:
            signal.raise_signal(signal.SIGKILL)
        if event == "os.rename" and text in Path(arguments[1]).name:
            left -= 1
            if left == 0 and point == "before_rename":
                signal.raise_signal(signal.SIGKILL)

    sys.addaudithook(look)


def work(order: dict[str, Any]) -> None:
    """In the fork."""
    os.environ.update(order["environment"])
    if order["rename"]:
        die_at_rename(*order["rename"])
    WORK[order["work"]](get_settings(), *order["arguments"])


def tell(value: int) -> None:
    print(value, flush=True)


if __name__ == "__main__":
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            work(json.loads(line))
            os._exit(0)
        tell(process)
        tell(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
