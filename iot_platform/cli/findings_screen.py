"""Findings on a screen: the worst first, what is well in one line."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from iot_platform.visible import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from iot_platform.diagnostics.finding import Finding


def rows(findings: "Iterable[Finding]") -> "Iterator[tuple[Text, Text, Text, str]]":
    """Sign, what, text and remedy of each."""
    from rich.text import Text

    from iot_platform.diagnostics.finding import SIGNS

    for finding in findings:
        sign, style = SIGNS[finding.state]
        yield Text(sign, style), Text(visible(finding.what), "bold"), Text(visible(finding.text)), visible(finding.remedy)


def page(findings: "list[Finding]", *, everything: bool = False) -> "RenderableType":
    """One page: the verdict, then what to fix first with its remedy. What is well is only named, unless `everything` is wanted."""
    from rich.console import Group
    from rich.text import Text

    from iot_platform.diagnostics.finding import SIGNS, verdict, worst

    shown = [finding for finding in findings if everything or finding.state != "ok"]
    lines = [Text(verdict(findings), SIGNS[worst(findings)][1])]
    for sign, what, text, remedy in rows(shown):
        line = Text.assemble(sign, " ", what, "  ", text)
        lines.append(line.append(f"  → {remedy}", "dim") if remedy else line)
    if well := [finding.what for finding in findings if finding.state == "ok" and finding not in shown]:
        lines.append(Text(f"✓ {len(well)} are well: {', '.join(dict.fromkeys(well))} (--all shows them)", "green"))
    return Group(*lines)
