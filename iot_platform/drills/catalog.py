"""The list of drills: those that the modules of this package register with `@drill`."""

import importlib
import pkgutil
from collections.abc import Sequence

import iot_platform.drills
from iot_platform.drills.rig.registry import Drill, registered


def all_drills() -> Sequence[Drill]:
    """Every drill, by group in the order of registration; those with servers of their own last, so that the common ones start once."""
    for module in sorted(item.name for item in pkgutil.iter_modules(iot_platform.drills.__path__)):
        importlib.import_module(f"iot_platform.drills.{module}")
    groups = {item.group: number for number, item in reversed(list(enumerate(registered.values())))}
    return sorted(registered.values(), key=lambda item: (item.fresh, groups[item.group]))


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
