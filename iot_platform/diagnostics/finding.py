"""What was found about one thing, and what is to be fixed first."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["lost", "bad", "risk", "note", "ok"]

URGENCY: Final[tuple[State, ...]] = ("lost", "bad", "risk", "note", "ok")
"""What to fix first stands first. lost: messages are missing or wrong, or wait for somebody's decision. bad: does not work, messages are
late. risk: works, and a setting or a state lets messages be lost at the next fault. note: only worth knowing."""
EXIT_CODES: Final[dict[State, int]] = {"lost": 4, "bad": 3, "risk": 1, "note": 0, "ok": 0}
"""Of `iot doctor` and `iot status`. 2 stays what every command has for settings and arguments that it does not understand."""
SIGNS: Final[dict[State, tuple[str, str]]] = {
    "lost": ("✗✗", "bold red"),
    "bad": ("✗", "red"),
    "risk": ("!", "yellow"),
    "note": ("·", "cyan"),
    "ok": ("✓", "green"),
}


@dataclass(frozen=True)
class Finding:
    """One checked thing; all but `ok` and `note` need the remedy, which names the setting to change."""

    what: str
    state: State
    text: str
    remedy: str = ""


def by_urgency(findings: Iterable[Finding]) -> list[Finding]:
    """What to fix first; of equal urgency in the order given, which is that of the data's way: what lies upstream explains the rest.
    One cause that several questions have found is told once."""
    ordered = sorted(findings, key=lambda finding: URGENCY.index(finding.state))
    first = {finding.text: finding for finding in reversed(ordered)}
    return [finding for finding in ordered if finding is first[finding.text] or finding.state == "ok"]


def worst(findings: Iterable[Finding]) -> State:
    """The most urgent state; ok where there is nothing."""
    return min((finding.state for finding in findings), key=URGENCY.index, default="ok")


def verdict(findings: Iterable[Finding]) -> str:
    """All of it in one line, for somebody who has a minute."""
    states = [finding.state for finding in findings]
    words: dict[State, str] = {"lost": "messages missing or wrong", "bad": "not working", "risk": "in danger at the next fault"}
    told = [f"{states.count(state)} {text}" for state, text in words.items() if state in states]
    return "; ".join(told) if told else "nothing to fix"
