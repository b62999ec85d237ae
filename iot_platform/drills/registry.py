"""The list of drills: each module of this package registers its own with `@drill`."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import iot_platform.drills

if TYPE_CHECKING:
    from iot_platform.drills.run import DrillRun

Body = Callable[["DrillRun"], None]
_drills: dict[str, "Drill"] = {}


@dataclass(frozen=True)
class Drill:
    """One drill: `title` is the fault in a few words, `proves` what its passing shows. `fast`: part of `make test`. `fresh`: needs
    servers of its own, since it leaves them changed. `obstacle()` says why it can't run on this machine, "" where it can. `brokers`: how
    many Kafka nodes it needs, 1 or 3."""

    name: str
    title: str
    group: str
    fast: bool
    fresh: bool
    proves: str
    body: Body
    obstacle: Callable[[], str]
    brokers: int = 1


def drill(
    name: str, title: str, *, group: str, fast: bool = False, fresh: bool = False, obstacle: Callable[[], str] = str, brokers: int = 1
) -> Callable[[Body], Body]:
    """Register a function `(run: DrillRun) -> None` as a drill; its docstring says what it proves."""

    def register(body: Body) -> Body:
        if name in _drills and _drills[name].body.__module__ != body.__module__:
            raise ValueError(f"two drills are called {name}")
        _drills[name] = Drill(name, title, group, fast, fresh, " ".join((body.__doc__ or "").split()), body, obstacle, brokers)
        return body

    return register


def all_drills() -> Sequence[Drill]:
    """Every drill, by group in the order of registration; those with servers of their own last, so that the common ones start once."""
    for module in sorted(item.name for item in pkgutil.iter_modules(iot_platform.drills.__path__)):
        importlib.import_module(f"iot_platform.drills.{module}")
    groups = {item.group: number for number, item in reversed(list(enumerate(_drills.values())))}
    return sorted(_drills.values(), key=lambda item: (item.fresh, groups[item.group]))


def find_drills(names: Sequence[str]) -> Sequence[Drill]:
    """The named drills (or groups), in the order given; `all` is all of them.

    Raises:
        LookupError: no such drill; the message lists what there is.
    """
    known = all_drills()
    chosen: list[Drill] = []
    for name in names:
        found = [item for item in known if name in (item.name, item.group, "all")]
        if not found:
            raise LookupError(f"no drill {name!r}; there are {', '.join(item.name for item in known)}")
        chosen += [item for item in found if item not in chosen]
    return chosen
