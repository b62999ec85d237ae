"""What Grafana and its Prometheus data source make of a panel's PromQL, and of Prometheus' answer.

After Grafana's documentation ("Template variables", "Query editor") and @grafana/prometheus (result_transformer). The panel's step is a
round one, at least the data source's interval; $__rate_interval is the step and a scrape, at least four scrapes; a table has the labels
and a column Value, of several queries Value #A, Value #B.
"""

import json
import math
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from iot_platform_tests.support.oracles.grafana_macros import MacroError, Range, duration_ms

_VARIABLE: Final = re.compile(r"\$(\w+)|\$\{(\w+)\}")
_LEGEND: Final = re.compile(r"\{\{\s*(.+?)\s*\}\}")
_NOT_FINITE: Final[dict[str, Callable[[float], bool]]] = {
    "NaN": math.isnan,
    "Inf": lambda value: value == math.inf,
    "NegInf": lambda value: value == -math.inf,
}
_WORDS: Final = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


def series_names(expression: str) -> set[str]:
    """Names of series in an expression: what is no function, keyword, label or string."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)', " ", expression)
    words = re.findall(r"(?<![\w:])[a-zA-Z_:][\w:]*(?!\s*\()\b", bare)
    return set(words) - _WORDS


def expand(expression: str, window: Range, variables: Mapping[str, str], scrape_seconds: float = 15) -> str:
    """The PromQL that Grafana sends; `variables`: as they are inserted, several values as a regular expression.

    Raises:
        MacroError: an unknown variable.
    """
    step, scrape = window.step_ms, int(scrape_seconds * 1000)
    known = {
        "__interval": window.step,
        "__rate_interval": f"{max(step + scrape, 4 * scrape)}ms",
        "__range": f"{round((window.until - window.since).total_seconds())}s",
        **variables,
    }

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in known:
            raise MacroError(f"no variable {name}")
        return known[name]

    return _VARIABLE.sub(value, expression)


@dataclass(frozen=True)
class Series:
    """One series of an answer: labels, and values by Unix time."""

    labels: dict[str, str]
    samples: list[tuple[float, float]]

    @property
    def says_something(self) -> bool:
        """Whether it has a number."""
        return any(math.isfinite(value) for _, value in self.samples)


@dataclass(frozen=True)
class Found:
    """What Prometheus answered to the queries of a panel, by their letters."""

    series: dict[str, list[Series]]

    def frames(self, panel: dict[str, Any]) -> list[dict[str, Any]]:
        """A frame for each series, with its name by the query's legend; or a table for each query."""
        if panel["targets"][0]["format"] == "table":
            several = len(panel["targets"]) > 1
            return [_table(letter, found, f"Value #{letter}" if several else "Value") for letter, found in self.series.items()]
        return [_line(t["refId"], t["legendFormat"], one) for t in panel["targets"] for one in self.series[t["refId"]]]


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus server that is asked as Grafana does. `scrape_seconds`: the data source's interval."""

    url: str
    scrape_seconds: float = 15

    def answer(self, panel: dict[str, Any], since_until: Range, variables: Mapping[str, str]) -> Found:
        """All queries of the panel in this time range.

        Raises:
            MacroError: an unknown variable.
            OSError: Prometheus does not answer, or refuses a query.
        """
        least = max(int(self.scrape_seconds * 1000), duration_ms(panel["interval"]) if "interval" in panel else 0)
        window = Range(since_until.since, since_until.until, int(panel.get("maxDataPoints", 1000)), least)
        return Found({target["refId"]: self._ask(target, window, variables) for target in panel["targets"]})

    def _ask(self, target: dict[str, Any], window: Range, variables: Mapping[str, str]) -> list[Series]:
        asked = {"query": expand(target["expr"], window, variables, self.scrape_seconds)}
        if target["instant"]:
            found = self.get("query", asked | {"time": str(window.until.timestamp())})
            if found["resultType"] == "scalar":
                return [Series({}, [_sample(found["result"])])]
            return [Series(one["metric"], [_sample(one["value"])]) for one in found["result"]]
        step = window.step_ms / 1000
        first = window.since.timestamp() // step * step
        found = self.get("query_range", asked | {"start": str(first), "end": str(window.until.timestamp()), "step": str(step)})
        return [Series(one["metric"], [_sample(pair) for pair in one["values"]]) for one in found["result"]]

    def get(self, path: str, asked: Mapping[str, str]) -> Any:
        """The data of an answer of Prometheus' HTTP interface."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - our own server
            return json.load(answer)["data"]


def _sample(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def _line(letter: str, legend: str, series: Series) -> dict[str, Any]:
    name = _LEGEND.sub(lambda found: series.labels.get(found[1], ""), legend)
    fields: list[dict[str, Any]] = [
        {"name": "Time", "type": "time", "config": {}},
        {"name": "Value", "type": "number", "labels": series.labels, "config": {"displayNameFromDS": name}},
    ]
    return _frame(letter, fields, [[round(time * 1000) for time, _ in series.samples], [value for _, value in series.samples]])


def _table(letter: str, found: list[Series], column: str) -> dict[str, Any]:
    labels = sorted({label for one in found for label in one.labels})
    kinds = {"Time": "time", **dict.fromkeys(labels, "string"), column: "number"}
    fields: list[dict[str, Any]] = [{"name": name, "type": kind, "config": {}} for name, kind in kinds.items()]
    times = [round(one.samples[-1][0] * 1000) for one in found]
    values = [one.samples[-1][1] for one in found]
    return _frame(letter, fields, [times, *([one.labels.get(label, "") for one in found] for label in labels), values])


def _frame(letter: str, fields: list[dict[str, Any]], columns: list[list[Any]]) -> dict[str, Any]:
    """Numbers are in the last column; JSON has no words for some of them."""
    *others, numbers = columns
    odd = {word: [place for place, value in enumerate(numbers) if test(value)] for word, test in _NOT_FINITE.items()}
    finite = [value if math.isfinite(value) else None for value in numbers]
    return {
        "schema": {"refId": letter, "fields": fields},
        "data": {"values": [*others, finite], "entities": [*(None for _ in others), odd]},
    }
