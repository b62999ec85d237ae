"""Device: everything about one device: its values, what it sent word for word, and what was wrong with it."""

from grafana_foundation_sdk.builders import dashboard as builders

from grafana.source import panels
from grafana.source.boards import board
from grafana.source.panels import AS_IS, EXACT, Face, Size
from grafana.source.project import RESOLUTION
from grafana.source.queries import load


def device() -> builders.Dashboard:
    """The dashboard."""
    sql = load("project") | load("device")
    made = board("device", "Device", "One device: values, latest values, message log, quarantine, quality incidents.", "now-6h")
    made = made.with_variable(panels.query_variable("tenant", "Tenant", "Tenant id", sql["tenant"]))
    made = made.with_variable(panels.query_variable("project", "Project", "Project id of this tenant", sql["project"]))
    made = made.with_variable(panels.query_variable("device", "Device", "Device of this project", sql["device"]))
    choice = panels.query_variable(
        "metric", "Metric", "Metrics of this device; the first 20 are drawn", sql["metric"], multi=True, all_value="'*'"
    )
    made = made.with_variable(choice)
    return _records(_values(made, sql), sql)


def _values(made: builders.Dashboard, sql: dict[str, str]) -> builders.Dashboard:
    for panel in (
        panels.figures(
            Face(
                "Series",
                "none",
                "Metrics of this device that ever had a value, and the age of the newest by its own time.",
                "Unknown device",
            ),
            sql["size"],
            Size(12, 4),
            {"since the newest value": "s"},
        ),
        panels.figures(
            Face("Open quality incidents", "none", "Incidents of this device that have not ended.", "No incident is known"),
            sql["incidents"],
            Size(12, 4),
            bad=1,
        ),
        panels.lines(
            Face("Values", EXACT, f"One line for each metric, at most 20. {RESOLUTION}", "No number of these metrics in this time range"),
            sql["values"],
            Size(24, 10),
            least_interval="1s",
            most_points=500,
        ),
        panels.lines(
            Face(
                "Minimum, average, maximum",
                EXACT,
                "Of the first chosen metric: per hour, or per day (UTC) for ranges beyond 92 days. An average alone hides short peaks.",
                "No number of this metric in this time range",
            ),
            sql["bounds"],
            Size(12, 9),
        ),
        panels.rows(
            Face("Latest values", AS_IS, "The newest measurement of each metric, by its own time.", "This device has no measurement"),
            sql["latest"],
            Size(12, 9),
        ),
    ):
        made = made.with_panel(panel)
    return made


def _records(made: builders.Dashboard, sql: dict[str, str]) -> builders.Dashboard:
    for panel in (
        panels.rows(
            Face(
                "Message log",
                AS_IS,
                "The newest 50 messages as the device sent them (bytes beyond ASCII escaped, cut at 500 characters). Looked at are the"
                " last 15 minutes of"
                " the time range, and five minutes around the device's newest value.",
                "No message in the last 15 minutes of the time range: move its end to when the device sent",
            ),
            sql["messages"],
            Size(24, 10),
        ),
        panels.rows(
            Face(
                "Quarantine",
                AS_IS,
                "The newest 50 quarantined messages on the topics of this device. On a topic that several devices share, those of the"
                " others too:"
                " what cannot be read names no device.",
                "No message on the topics of this device was quarantined in this time range",
            ),
            sql["quarantine"],
            Size(24, 8),
        ),
        panels.rows(
            Face(
                "Quality incidents",
                AS_IS,
                "Incidents of this device that were open at some time of the range; without a closing time they still are.",
                "No incident in this time range",
            ),
            sql["findings"],
            Size(24, 8),
        ),
    ):
        made = made.with_panel(panel)
    return made
