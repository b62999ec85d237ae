"""A column of JSON values as a column of measurements: numbers, booleans, strings, arrays as text; nulls give nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from iot_platform.telemetry.decode.result import Bools, Floats, Int32

MAX_EXACT_INTEGER = 2.0**53
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_NUMBERS = frozenset({int, float})


@dataclass(slots=True)
class Values:
    """Typed values; `text` as in Block. `present` is None where all are; `odd` marks values that only the plain decoder can judge."""

    value: Floats
    valid: bool | Bools
    text: Int32 | None
    texts: Sequence[str]
    present: Bools | None = None
    odd: Bools | None = None


def value_column(column: Sequence[Any], kinds: set[type]) -> Values | None:
    """The values of one column, given the set of their types; None if all are null. Objects are odd."""
    size = len(column)
    if kinds <= _NUMBERS:
        return _numbers(column, kinds)
    if kinds == {str}:
        return Values(np.zeros(size), False, *_distinct(column))
    if kinds == {bool}:
        value = np.array(column, np.float64)
        return Values(value, True, value.astype(np.int32), ("false", "true"))
    if kinds == {list}:
        return Values(np.zeros(size), False, *_distinct(list(map(_compact, column))))
    if kinds == {type(None)}:
        return None
    return _mixed(column, kinds)


def _distinct(texts: Sequence[str]) -> tuple[Int32, Sequence[str]]:
    """Positions in a list of texts, which has each only once."""
    position = {text: at for at, text in enumerate(dict.fromkeys(texts))}
    return np.array(list(map(position.__getitem__, texts)), np.int32), list(position)


def _numbers(column: Sequence[Any], kinds: set[type]) -> Values:
    value = np.array(column, np.float64)
    odd = np.abs(value) >= MAX_EXACT_INTEGER if int in kinds else None
    return Values(value, True, None, (), odd=odd if odd is not None and odd.any() else None)


def _mixed(column: Sequence[Any], kinds: set[type]) -> Values:
    """Values of several types, kind by kind."""
    size = len(column)
    types = list(map(type, column))
    result = Values(np.zeros(size), np.zeros(size, np.bool_), None, (), np.zeros(size, np.bool_), np.zeros(size, np.bool_))
    text, texts = np.full(size, -1, np.int32), list[str]()
    for kind in kinds - {type(None)}:
        at = np.array([row for row, found in enumerate(types) if found is kind], np.int32)
        assert isinstance(result.valid, np.ndarray)  # noqa: S101 - for the type checker
        assert result.present is not None and result.odd is not None  # noqa: S101, PT018 - for the type checker
        part = value_column([column[row] for row in at.tolist()], {kind}) if kind is not dict else None
        result.present[at] = True
        if part is None:
            result.odd[at] = True
            continue
        result.value[at] = part.value
        result.valid[at] = part.valid
        if part.odd is not None:
            result.odd[at] = part.odd
        if part.text is not None:
            text[at] = part.text + np.int32(len(texts))
            texts += part.texts
    result.text, result.texts = text, texts
    return result
