"""Documents grouped by shape: objects with the same members become columns, nested objects are flattened into them."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MIN_ROWS = 6  # below, the fixed cost of a shape exceeds the plain decoder's

Path = tuple[str, ...]
ARRAY, POINTS, ODD = 0, 1, 2
_OTHER = -1
_OBJECT = frozenset({dict})


@dataclass(slots=True)
class Shape:
    """Records whose documents have the same leaves: a column of values, and the set of its types, for each leaf.

    A column holds no objects, and lists only if all its values are lists of one kind (`lists`: ARRAY, POINTS or ODD by column number).
    """

    rows: list[int]
    paths: list[Path]
    columns: list[Sequence[Any]]
    kinds: list[set[type]]
    lists: dict[int, int]

    def select(self, at: Sequence[int]) -> "Shape":
        """Some of the records only; types are found anew."""
        columns: list[Sequence[Any]] = [[column[i] for i in at] for column in self.columns]
        return Shape([self.rows[i] for i in at], list(self.paths), columns, _kinds(columns), dict(self.lists))


def _kinds(columns: Sequence[Sequence[Any]]) -> list[set[type]]:
    return [set(map(type, column)) for column in columns]


def group(rows: Sequence[int], documents: Sequence[Any], clocks: Collection[Path]) -> tuple[list[Shape], list[int]]:
    """Shapes of the records, which have objects or arrays as documents, and the records that no shape fits.

    Args:
        rows: the records to group.
        documents: by record.
        clocks: where a timestamp may be; an object there is none, which is the plain decoder's to say.
    """
    by_members: dict[Path, list[int]] = defaultdict(list)
    lists: list[int] = []
    for row in rows:
        document = documents[row]
        if type(document) is dict:
            by_members[tuple(document)].append(row)
        else:
            lists.append(row)
    rare: list[int] = []
    shapes: list[Shape] = []
    for members, found in by_members.items():
        if len(found) < MIN_ROWS:
            rare += found
            continue
        columns = list(zip(*(documents[row].values() for row in found), strict=True))
        start = Shape(found, [(member,) for member in members], list(columns), _kinds(columns), {})
        shapes += _flatten(start, clocks, rare)
    if lists:
        shapes += _flatten(Shape(lists, [()], [[documents[row] for row in lists]], [{list}], {}), clocks, rare)
    return shapes, rare


def _flatten(shape: Shape, clocks: Collection[Path], rare: list[int]) -> Iterator[Shape]:
    """Split and widen until no column holds objects, or lists beside something else."""
    waiting = [(shape, 0)]
    while waiting:
        current, at = waiting.pop()
        if len(current.rows) < MIN_ROWS:
            rare += current.rows
            continue
        while at < len(current.columns):
            kinds = current.kinds[at]
            if dict in kinds and current.paths[at] in clocks:
                rare += current.rows
                break
            if kinds == _OBJECT and (members := _one_shape(current.columns[at])) is not None:
                _widen(current, at, members)
                continue  # the first nested member is at the same place now
            if dict in kinds or list in kinds:
                parts = _split(current.columns[at])
                if len(parts) > 1:
                    waiting.extend((current.select(found), at) for found in parts.values())
                    break
                current.lists[at] = next(iter(parts))
            at += 1
        else:
            yield current


def _one_shape(column: Sequence[dict[str, Any]]) -> Path | None:
    """The members, if all objects have the same in the same order."""
    found = set(map(tuple, column))
    return next(iter(found)) if len(found) == 1 else None


def _widen(shape: Shape, at: int, members: Path) -> None:
    """Put the members of a column of objects in the column's place."""
    columns = list(zip(*(item.values() for item in shape.columns[at]), strict=True))
    shape.paths[at : at + 1] = [(*shape.paths[at], member) for member in members]
    shape.columns[at : at + 1] = columns
    shape.kinds[at : at + 1] = _kinds(columns)


def _split(column: Sequence[Any]) -> dict[Any, list[int]]:
    """Positions by what the value is: members of an object, kind of a list, or neither."""
    parts: dict[Any, list[int]] = defaultdict(list)
    for i, value in enumerate(column):
        kind = type(value)
        parts[tuple(value) if kind is dict else list_kind(value) if kind is list else _OTHER].append(i)
    return parts


def list_kind(items: list[Any]) -> int:
    """POINTS: every item is an object with a metric (or id) and a value; ODD: such, but only the source shows a name; else ARRAY."""
    kind = POINTS if items else ARRAY
    for item in items:
        if type(item) is not dict or "value" not in item:
            return ARRAY
        named = type(item.get("metric"))
        if named is not str and named is not int and named is not float:
            named = type(item.get("id"))
        if named is float:
            kind = ODD
        elif named is not str and named is not int:
            return ARRAY
    return kind
