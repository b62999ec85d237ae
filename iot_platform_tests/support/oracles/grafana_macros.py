"""What Grafana 11.6 and its PostgreSQL data source do to a query before the database sees it: variables first, then macros.

After Grafana's documentation ("Macros" of the PostgreSQL data source, "Variable syntax", "Global variables"), with TimescaleDB switched on.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

Value = str | list[str]
_INTERVALS = (1, 5, 10, 20, 50, 100, 200, 500)  # milliseconds; longer steps: see Range.step_ms
_STEPS = [
    *_INTERVALS,
    *(1000 * s for s in (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800)),
]
_UNITS = (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(?!__)([a-zA-Z_]\w*)|\$(__interval_ms|__interval|__from|__to)\b")
_MACRO = re.compile(r"\$__(\w+)\(")


class MacroError(Exception):
    """The query uses what Grafana does not know, or wrongly."""


@dataclass(frozen=True)
class Range:
    """A dashboard's time range, and the steps in which a panel of `points` points wants it."""

    since: datetime
    until: datetime
    points: int = 1000
    least_ms: int = 1

    @property
    def step_ms(self) -> int:
        """The round step that Grafana takes for $__interval."""
        wanted = max((self.until - self.since) / timedelta(milliseconds=1) / self.points, self.least_ms)
        return next((step for step in _STEPS if step >= wanted), _STEPS[-1])

    @property
    def step(self) -> str:
        """As Grafana writes it: 30s, 5m."""
        unit, size = next((unit, size) for unit, size in _UNITS if self.step_ms >= size and self.step_ms % size == 0)
        return f"{self.step_ms // size}{unit}"


def duration_ms(text: str) -> int:
    """Milliseconds of 30s, 5m, 1h."""
    found = re.fullmatch(r"(\d+)(ms|s|m|h|d|w)", text)
    if not found:
        raise MacroError(f"no duration: {text}")
    return int(found[1]) * dict(_UNITS)[found[2]]


def expand(query: str, window: Range, variables: Mapping[str, Value], all_values: Mapping[str, str] | None = None) -> str:
    """The SQL that Grafana sends. `all_values`: variables with All chosen, and their custom value, which Grafana inserts as it is.

    Raises:
        MacroError: an unknown variable, format or macro.
    """
    return _macros(_variables(query, window, variables, all_values or {}), window)


def _variables(query: str, window: Range, variables: Mapping[str, Value], all_values: Mapping[str, str]) -> str:
    built_in: dict[str, str] = {
        "__interval": window.step,
        "__interval_ms": str(window.step_ms),
        "__from": str(int(window.since.timestamp() * 1000)),
        "__to": str(int(window.until.timestamp() * 1000)),
    }

    def value(found: re.Match[str]) -> str:
        name, form = found[1] or found[3] or found[4], found[2]
        if name in built_in:
            return built_in[name] if form is None else _built_in(window, name, form)
        if name in all_values:
            return all_values[name]
        if name not in variables:
            raise MacroError(f"no variable {name}")
        return _formatted(variables[name], form)

    return _VARIABLE.sub(value, query)


def _built_in(window: Range, name: str, form: str) -> str:
    time = {"__from": window.since, "__to": window.until}.get(name)
    if time is None or form != "date":
        raise MacroError(f"no format {form} of {name}")
    return _text(time)


def _formatted(value: Value, form: str | None) -> str:
    several = value if isinstance(value, list) else [value]
    if form == "sqlstring":  # the backslash is Grafana's mistake: PostgreSQL takes it as a character
        return ",".join("'" + item.replace("'", "''").replace('"', '\\"') + "'" for item in several)
    if form == "raw":
        return ",".join(several)
    if form is None:  # what the data source does by itself: one value is only escaped, several are quoted
        return ",".join("'" + item.replace("'", "''") + "'" for item in value) if isinstance(value, list) else value.replace("'", "''")
    raise MacroError(f"no format {form}")


def _macros(query: str, window: Range) -> str:
    while found := _MACRO.search(query):
        end = _closing(query, found.end())
        arguments = [part.strip() for part in _split(query[found.end() : end])]
        query = query[: found.start()] + _macro(found[1], arguments, window) + query[end + 1 :]
    if "$" in re.sub(r"'(?:[^']|'')*'", "", query):
        raise MacroError(f"something is left: {query}")
    return query


def _macro(name: str, arguments: list[str], window: Range) -> str:
    since, until = f"'{_text(window.since)}'", f"'{_text(window.until)}'"
    first, last = int(window.since.timestamp()), int(window.until.timestamp())
    plain: dict[str, Callable[..., str]] = {
        "time": lambda column: f'{column} AS "time"',
        "timeEpoch": lambda column: f'extract(epoch from {column}) as "time"',
        "timeFilter": lambda column: f"{column} BETWEEN {since} AND {until}",
        "timeFrom": lambda _="": since,
        "timeTo": lambda _="": until,
        "timeGroup": lambda column, step, _="": f"time_bucket('{_seconds(step):.3f}s',{column})",
        "timeGroupAlias": lambda column, step, _="": f"time_bucket('{_seconds(step):.3f}s',{column}) AS \"time\"",
        "unixEpochFilter": lambda column: f"{column} >= {first} AND {column} <= {last}",
        "unixEpochFrom": lambda _="": str(first),
        "unixEpochTo": lambda _="": str(last),
        "unixEpochNanoFilter": lambda column: f"{column} >= {first * 10**9} AND {column} <= {last * 10**9}",
        "unixEpochNanoFrom": lambda _="": str(first * 10**9),
        "unixEpochNanoTo": lambda _="": str(last * 10**9),
        "unixEpochGroup": lambda column, step, _="": f"floor(({column})/{_seconds(step):.0f})*{_seconds(step):.0f}",
        "unixEpochGroupAlias": lambda column, step, _="": f'floor(({column})/{_seconds(step):.0f})*{_seconds(step):.0f} AS "time"',
    }
    if name not in plain:
        raise MacroError(f"no macro $__{name}")
    try:
        return plain[name](*arguments)
    except TypeError as error:
        raise MacroError(f"$__{name} with the arguments {arguments}") from error


def _seconds(step: Any) -> float:
    return duration_ms(str(step).strip("'\"")) / 1000


def _text(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S.}{time.microsecond // 1000:03}Z"


def _closing(text: str, start: int) -> int:
    depth = 1
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if not depth:
            return position
    raise MacroError(f"a macro is not closed: {text[start:]}")


def _split(text: str) -> list[str]:
    parts, depth = [""], 0
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
