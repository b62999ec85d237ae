"""What a drill is, and `@drill`, by which modules of drills/ register theirs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iot_platform.drills.rig.drill_run import DrillRun

Body = Callable[["DrillRun"], None]
registered: dict[str, "Drill"] = {}
"""By name, in the order of registration."""


@dataclass(frozen=True)
class Drill:
    """One drill: `title` is the fault in a few words, `proves` what its passing shows. `fast`: part of `make test`. `fresh`: needs
    servers of its own, since it leaves them changed. `obstacle()` says why it can't run on this machine, "" where it can. `brokers`: how
    many Kafka nodes it needs, 1 or 3. `backups`: whether PostgreSQL needs a repository."""

    name: str
    title: str
    group: str
    fast: bool
    fresh: bool
    proves: str
    body: Body
    obstacle: Callable[[], str]
    brokers: int = 1
    backups: bool = False


def drill(
    name: str,
    title: str,
    *,
    group: str,
    fast: bool = False,
    fresh: bool = False,
    obstacle: Callable[[], str] = str,
    brokers: int = 1,
    backups: bool = False,
) -> Callable[[Body], Body]:
    """Register a function `(run: DrillRun) -> None` as a drill; its docstring says what it proves."""

    def register(body: Body) -> Body:
        if name in registered and registered[name].body.__module__ != body.__module__:
            raise ValueError(f"two drills are called {name}")
        proves = " ".join((body.__doc__ or "").split())
        registered[name] = Drill(name, title, group, fast, fresh, proves, body, obstacle, brokers, backups)
        return body

    return register
