"""Retention, deletion, export and rollups in processes of their own that are killed: python -m …, a JSON object a line on stdin.

Each line is run by a fork, which kills itself (SIGKILL) at `point` of the `number`-th statement that contains `text` (in an export: of the
`number`-th file that is put in its place). Told on stdout: its process id at once, its exit status (negative: the signal) when it ended.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from iot_platform.database import deadline
from iot_platform.retention import run_retention
from iot_platform.rollups import Rebuild, roll_up
from iot_platform.settings import Settings, get_settings
from iot_platform.tenants.deletion import delete_tenant
from iot_platform.tenants.export import export_tenant

POINTS = ("before", "uncommitted", "during_commit", "after_commit", "before_rename", "after_rename")


def rebuild(settings: Settings, since: str, until: str) -> None:
    for _ in Rebuild(settings, datetime.fromisoformat(since), datetime.fromisoformat(until)).steps():
        pass


WORK: dict[str, Callable[..., Any]] = {
    "retention": lambda settings: run_retention(settings, max_rows=4),
    "delete": lambda settings: delete_tenant(settings, "acme", requested_by="test", max_rows=5),
    "export": lambda settings, folder: export_tenant(settings, "acme", Path(folder), part_rows=9),
    "rollup": roll_up,
    "rebuild": rebuild,
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, text: str, number: int) -> None:
    """Put the point around the calls of every connection."""
    execute, commit, replace = deadline.BoundedCursor.execute, deadline.BoundedConnection.commit, Path.replace
    left, reached = number, False

    def counted(subject: str) -> bool:
        nonlocal left
        left -= text in subject
        return left == 0 and text in subject

    def execute_point(self: Any, query: Any, parameters: Any = None) -> None:
        nonlocal reached
        reached = counted(query if isinstance(query, str) else str(query))
        if reached and point == "before":
            die()
        execute(self, query, parameters)

    def commit_point(self: Any) -> None:
        if reached and point == "uncommitted":
            die()
        if reached and point == "during_commit":
            threading.Timer(0.0005, die).start()
        commit(self)
        if reached and point in ("during_commit", "after_commit"):
            die()

    def replace_point(self: Path, target: Path) -> Path:
        here = point in ("before_rename", "after_rename") and counted(target.name)
        if here and point == "before_rename":
            die()
        result = replace(self, target)
        if here:
            die()
        return result

    deadline.BoundedCursor.execute = execute_point  # type: ignore[method-assign]
    deadline.BoundedConnection.commit = commit_point  # type: ignore[method-assign]
    Path.replace = replace_point  # type: ignore[method-assign,assignment]


def work(order: dict[str, Any]) -> None:
    """In the fork."""
    os.environ.update(order["environment"])
    if order["point"]:
        assert order["point"] in POINTS
        arm(order["point"], order["text"], order["number"])
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
