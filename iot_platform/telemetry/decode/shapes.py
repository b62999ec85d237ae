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


class Grouping:
    """Collects documents, a chunk at a time, as columns: the parsed objects themselves need not stay in memory (or the CPU's cache)."""

    def __init__(self, clocks: Collection[Path]) -> None:
        """`clocks`: where a timestamp may be; an object there is none, which is the plain decoder's to say."""
        self._clocks = clocks
        self._objects: dict[Path, tuple[list[int], list[list[Any]]]] = {}
        self._lists: tuple[list[int], list[Any]] = ([], [])

    def add(self, rows: Sequence[int], documents: Sequence[Any]) -> None:
        """Records whose documents are objects or arrays."""
        if set(map(type, documents)) == {dict} and len(set(map(tuple, documents))) == 1:
            self._add_objects(tuple(documents[0]), rows, documents)
            return
        by_members: dict[Path, tuple[list[int], list[dict[str, Any]]]] = defaultdict(lambda: ([], []))
        for row, document in zip(rows, documents, strict=True):
            chosen = by_members[tuple(document)] if type(document) is dict else self._lists
            chosen[0].append(row)
            chosen[1].append(document)
        for members, (found, objects) in by_members.items():
            self._add_objects(members, found, objects)

    def _add_objects(self, members: Path, rows: Sequence[int], documents: Sequence[dict[str, Any]]) -> None:
        known = self._objects.get(members)
        if known is None:
            known = self._objects[members] = ([], [[] for _ in members])
        known[0].extend(rows)
        for column, values in zip(known[1], zip(*map(dict.values, documents), strict=True), strict=True):
            column.extend(values)

    def shapes(self) -> tuple[list[Shape], list[int]]:
        """The shapes of all records, and the records that no shape fits."""
        rare: list[int] = []
        shapes: list[Shape] = []
        for members, (rows, columns) in self._objects.items():
            if len(rows) < MIN_ROWS:
                rare += rows
            else:
                start = Shape(rows, [(member,) for member in members], list(columns), _kinds(columns), {})
                shapes += _flatten(start, self._clocks, rare)
        rows, lists = self._lists
        if rows:
            shapes += _flatten(Shape(rows, [()], [lists], [{list}], {}), self._clocks, rare)
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
    columns = list(zip(*map(dict.values, shape.columns[at]), strict=True))
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
