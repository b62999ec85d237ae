"""Tenant / project: what one project sends, its newest values and their history."""

from grafana_foundation_sdk.builders import dashboard as builders

from grafana.source import panels
from grafana.source.boards import board
from grafana.source.panels import AS_IS, EXACT, Face, Size
from grafana.source.queries import load

RESOLUTION = (
    "Ranges up to 12 hours show the measurements (averaged per step of the screen), up to 92 days the averages of hours, longer ones of"
    " days (UTC)."
)
NOTHING = "Nothing was received of this project in this time range"


def project() -> builders.Dashboard:
    """The dashboard."""
    sql = load("project")
    made = board(
        "project", "Tenant / project", "One project of one tenant: latest values, their history, traffic, quarantine, incidents.", "now-6h"
    )
    made = made.with_variable(panels.query_variable("tenant", "Tenant", "Tenant id", sql["tenant"]))
    made = made.with_variable(panels.query_variable("project", "Project", "Project id of this tenant", sql["project"]))
    made = made.with_variable(panels.query_variable("metric", "Metric", "Metric of the history", sql["metric"]))
    choice = panels.query_variable(
        "device", "Device", "Devices of the history; the first 20 are drawn", sql["device"], multi=True, all_value="'*'"
    )
    made = made.with_variable(choice)
    made = made.annotation(panels.annotation("Quality incidents", "red", sql["marks"]))
    return _records(_values(_state(made, sql), sql), sql)


def _state(made: builders.Dashboard, sql: dict[str, str]) -> builders.Dashboard:
    for panel in (
        panels.figures(
            Face("Received", EXACT, "Messages of the hours (UTC) in the time range, and what became of them.", NOTHING),
            sql["received"],
            Size(10, 4),
        ),
        panels.figures(
            Face(
                "Series and sources",
                "none",
                "How many there are in all, silent ones too; both are bounded per project.",
                "This project is unknown",
            ),
            sql["size"],
            Size(5, 4),
        ),
        panels.figures(
            Face(
                "Since the last message", "s", "Time since the ingest daemon received one of this project.", "No message within three days"
            ),
            sql["silence"],
            Size(4, 4),
            warn=3600,
            bad=86_400,
        ),
        panels.figures(
            Face(
                "Open quality incidents",
                "none",
                "Incidents of this project, and of its tenant as a whole, that have not ended.",
                "No incident is known",
            ),
            sql["incidents"],
            Size(5, 4),
            bad=1,
        ),
    ):
        made = made.with_panel(panel)
    return made


def _values(made: builders.Dashboard, sql: dict[str, str]) -> builders.Dashboard:
    return made.with_panel(
        panels.lines(
            Face(
                "History of the metric",
                EXACT,
                f"One line for each device, at most 20. {RESOLUTION}",
                "No number of this metric and these devices in this time range",
            ),
            sql["values"],
            Size(24, 10),
            least_interval="1s",
            most_points=500,
        )
    ).with_panel(
        panels.rows(
            Face(
                "Latest values",
                AS_IS,
                "The newest measurement of each series, by its own time; at most 1,000 series. The device opens its dashboard.",
                "This project has no measurement",
            ),
            sql["latest"],
            Size(12, 12),
        )
    )


def _records(made: builders.Dashboard, sql: dict[str, str]) -> builders.Dashboard:
    for panel in (
        panels.bars(
            Face(
                "Traffic per hour",
                EXACT,
                "By the hour (UTC) of receipt. Conflicts: measurements not stored because another value was there for the same time.",
                NOTHING,
            ),
            sql["traffic"],
            Size(12, 12),
        ),
        panels.rows(
            Face("Open incidents", AS_IS, "Quality incidents of this project that have not ended, at most 100.", "No incident is open"),
            sql["open"],
            Size(24, 8),
        ),
        panels.rows(
            Face(
                "Quarantine",
                AS_IS,
                "The newest 50 messages of this project in quarantine; `iot trace` shows one of them whole, `iot replay` decodes them"
                " again.",
                "No message of this project was quarantined in this time range",
            ),
            sql["quarantine"],
            Size(24, 8),
        ),
    ):
        made = made.with_panel(panel)
    return made
