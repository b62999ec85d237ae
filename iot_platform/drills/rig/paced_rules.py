"""Alert rules at another pace: every duration of a rule divided by a factor, so that a drill of minutes sees what takes hours."""

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
_DURATION: Final = r"(?:\d+(?:ms|[smhdwy]))+"
_PART: Final = re.compile(r"(\d+)(ms|[smhdwy])")
_STRING: Final = r'"(?:\\.|[^"\\])*"' + r"|'(?:\\.|[^'\\])*'" + r"|`[^`]*`"
_TIMES: Final = re.compile(rf"(?P<string>{_STRING})|\[(?P<range>[^\]]*)\]|(?P<offset>\boffset\s+-?\s*)(?P<by>{_DURATION})")
_AHEAD: Final = re.compile(r"(predict_linear\([^()]*(?:\{[^}]*\})?[^()]*,\s*)([\d.]+(?:\s*\*\s*[\d.]+)*)(\s*\))")
_LOGICAL: Final = re.compile(r"\b(and|or|unless)\b", re.IGNORECASE)
_LIMIT: Final = re.compile(r"((?:[<>]=?|[=!]=)\s*)([\d.]+(?:\s*\*\s*[\d.]+)*)(?![\d.\w])")
_AGE: Final = re.compile(r"\btime\(\)|\w_seconds\b")


def milliseconds(duration: str) -> int:
    """Of a duration as Prometheus writes it: 90s, 1h30m, 250ms. Raises ValueError."""
    if not re.fullmatch(_DURATION, duration):
        raise ValueError(f"{duration!r} is no duration")
    return sum(int(number) * _UNITS_MS[unit] for number, unit in _PART.findall(duration))


def divided(duration: str, factor: float) -> str:
    """The duration divided, to the millisecond, at least one of them. Raises ValueError."""
    found = milliseconds(duration)
    return f"{max(1, round(found / factor))}ms" if found else duration


def paced(expression: str, factor: float, *, ages: bool = False) -> str:
    """A PromQL expression with ranges, offsets, subqueries' steps and the time that predict_linear looks ahead divided by the factor;
    with `ages` also what an age (`time() - …`, or a metric in seconds) is compared with. Strings and all other numbers stay. Raises
    ValueError."""

    def change(found: re.Match[str]) -> str:
        if found["string"] is not None:
            return found[0]
        if found["offset"] is not None:
            return found["offset"] + divided(found["by"], factor)
        return "[" + ":".join(divided(part, factor) if part else "" for part in map(str.strip, found["range"].split(":"))) + "]"

    expression = _TIMES.sub(change, expression)
    expression = _AHEAD.sub(lambda found: f"{found[1]}{found[2]} / {factor:g}{found[3]}", expression)
    return "".join(_paced_limit(part, factor) for part in _LOGICAL.split(expression)) if ages else expression


def _paced_limit(comparison: str, factor: float) -> str:
    """What stands between two logical operators, its limit divided if its left side is an age."""

    def change(found: re.Match[str]) -> str:
        bare = re.sub(rf"{_STRING}|\[[^\]]*\]|\{{[^}}]*\}}", " ", comparison[: found.start()])
        return f"{found[1]}({found[2]} / {factor:g})" if _AGE.search(bare) else found[0]

    return _LIMIT.sub(change, comparison)


def paced_groups(
    groups: list[dict[str, Any]], factors: Mapping[str, float], ages: frozenset[str] = frozenset(), label: str = "divided_by"
) -> list[dict[str, Any]]:
    """Of the groups of a rule file those alerts that have a factor, each under the label `divided_by`; a group for each factor, evaluated
    that much more often, with records of its own. `ages`: alerts whose limits are ages that are divided, too."""
    found = []
    for group in groups:
        for factor in sorted({factors[rule["alert"]] for rule in group["rules"] if rule.get("alert") in factors}):
            rules = []
            for rule in deepcopy(group["rules"]):
                name = rule.get("alert")
                if name is None:
                    rule["record"] = f"{rule['record']}:by_{factor:g}".replace(".", "_")
                elif factors.get(name) == factor:
                    rule["labels"] = rule.get("labels", {}) | {label: f"{factor:g}"}
                else:
                    continue
                for time in ("for", "keep_firing_for"):
                    if time in rule:
                        rule[time] = divided(rule[time], factor)
                rule["expr"] = paced(_own_records(rule["expr"], group, factor), factor, ages=name in ages)
                rules.append(rule)
            shown = f"{group['name']} durations divided by {factor:g}"
            found.append({"name": shown, "interval": divided(group["interval"], factor), "rules": rules})
    return found


def _own_records(expression: str, group: dict[str, Any], factor: float) -> str:
    for rule in group["rules"]:
        if "record" in rule:
            own = f"{rule['record']}:by_{factor:g}".replace(".", "_")
            expression = re.sub(rf"(?<![\w:]){re.escape(rule['record'])}(?![\w:])", own, expression)
    return expression
