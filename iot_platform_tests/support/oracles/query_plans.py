"""Reading what EXPLAIN (FORMAT JSON) answers."""

from collections.abc import Iterator
from typing import Any


def nodes(plan: Any) -> Iterator[dict[str, Any]]:
    """All parts of a plan."""
    if isinstance(plan, list):
        for item in plan:
            yield from nodes(item)
    elif isinstance(plan, dict):
        yield plan
        for value in plan.values():
            yield from nodes(value)
