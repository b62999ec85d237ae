"""Runbooks: docs/runbooks as panels, in both languages, so that panels and people reach them without leaving Grafana."""

import re
from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import text
from grafana_foundation_sdk.models import text as models

from grafana.source import alerts
from grafana.source.boards import board

LINK: Final = re.compile(r"\[([^]]+)\]\(([^)]+)\)")


def runbooks() -> builders.Dashboard:
    """The dashboard: a panel for each alert, in the order of alerts.order(), which links count on."""
    made = board(
        "runbooks", "Runbooks", "For each alert: what it means, what to look at, what to do. The panel's menu shows one alone.", "now-6h"
    )
    for alert in alerts.order():
        panel = text.Panel().title(alert).description(alerts.rules()[alert]["labels"]["severity"]).mode(models.TextMode.MARKDOWN)
        made = made.with_panel(panel.content(content(alert)).span(12).height(14))
    return made


def content(alert: str) -> str:
    """Both pages, with links to other runbooks made links to their panels; others lead nowhere here and become text."""
    pages = [(alerts.RUNBOOKS / f"{alert}{end}").read_text("utf-8") for end in (".md", ".zh-CN.md")]
    return "\n---\n".join(LINK.sub(_link, page.split("\n\n", 2)[2]) for page in pages)


def _link(found: re.Match[str]) -> str:
    words, target = found[1], found[2]
    name = target.split("#")[0].removesuffix(".md").removesuffix(".zh-CN")
    return f"[{words}]({alerts.address(name)})" if name in alerts.rules() else words
