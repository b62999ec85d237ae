"""The alert rules of deploy/prometheus/rules: panels take their thresholds from them, and link to their runbooks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, Final

import yaml
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

_ROOT: Final = Path(__file__).parents[2]
RUNBOOKS: Final = _ROOT / "docs" / "runbooks"
GREEN, YELLOW, RED = "green", "orange", "red"
_COLORS: Final = {"warning": YELLOW, "critical": RED}
_COMPARISON: Final = re.compile(r"(==|>=|<=|>|<) *(-?[\d.]+(?: *\* *[\d.]+)*)")
_ABOVE_ZERO: Final = 1e-9
"""A step of Grafana's begins at its value: what `> 0` leaves out must lie below it."""


@dataclass(frozen=True)
class Limit:
    """From where on a value is bad: from `value` upwards, or (`below`) under it."""

    value: float
    color: str
    below: bool


@cache
def rules() -> dict[str, dict[str, Any]]:
    """The rules by alert."""
    files = sorted((_ROOT / "deploy" / "prometheus" / "rules").glob("*.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def limit(alert: str, number: int = 0) -> Limit:
    """What the alert's expression compares with, `number` by the order in which it does.

    Raises:
        KeyError: no such alert.
        IndexError: it compares less often.
    """
    rule = rules()[alert]
    sign, product = _COMPARISON.findall(re.sub(r"\{[^}]*\}", "", rule["expr"]))[number]
    value = prod(float(factor) for factor in product.split("*"))
    above_zero = sign == ">" and value == 0
    return Limit(_ABOVE_ZERO if above_zero else value, _COLORS[rule["labels"]["severity"]], below=sign.startswith("<"))


def objective() -> Limit:
    """How old a message may be at its commit: the bucket that the objective's alerts compare with (99 % must be in it)."""
    (seconds,) = set(re.findall(r'le="([\d.]+)"', rules()["FreshnessBurnsFast"]["expr"]))
    return Limit(float(seconds), RED, below=False)


def steps(limits: Sequence[Limit]) -> list[dashboard.Threshold]:
    """As Grafana has them: each color holds from its value up to the next one."""
    ordered = sorted(limits, key=lambda one: one.value)
    if any(one.below for one in ordered):
        colors = [one.color for one in ordered] + [GREEN]
        values = [None, *(one.value for one in ordered)]
    else:
        colors = [GREEN, *(one.color for one in ordered)]
        values = [None, *(one.value for one in ordered)]
    return [dashboard.Threshold(value=value, color=color) for value, color in zip(values, colors, strict=True)]


def order() -> list[str]:
    """The alerts in the order in which the dashboard of runbooks has them."""
    return sorted(rules())


def address(alert: str) -> str:
    """Of the alert's runbook, a panel of the dashboard of runbooks; panels are numbered from 1 in their order.

    Raises:
        ValueError: no such alert.
    """
    return f"/d/iot-runbooks/runbooks?viewPanel={order().index(alert) + 1}"


def link(alert: str) -> builders.DashboardLink:
    """A panel's link to the alert's runbook."""
    made = builders.DashboardLink(f"Runbook {alert}").type(dashboard.DashboardLinkType.LINK)
    return made.url(address(alert)).target_blank(True)
