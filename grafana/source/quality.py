"""Data quality: which rules fail now, since when and where, and whether the rules themselves are evaluated."""

from grafana_foundation_sdk.builders import dashboard as builders

from grafana.source import panels
from grafana.source.alerts import GREEN, RED, YELLOW
from grafana.source.boards import board
from grafana.source.panels import AS_IS, EXACT, Face, Size
from grafana.source.queries import load

STATES = (("nothing open", GREEN), ("warning", YELLOW), ("error", RED))


def quality() -> builders.Dashboard:
    """The dashboard."""
    sql = load("quality")
    made = board("quality", "Data quality", "Incidents open and ended, findings by rule, and the state of the rules.", "now-24h")
    tenant = panels.query_variable(
        "tenant", "Tenant", "Tenant id; findings about the whole platform have none", sql["tenant"], multi=True, all_value="'*'"
    )
    made = made.with_variable(tenant)
    made = made.with_variable(panels.query_variable("rule", "Rule", "Quality rule", sql["rule"], multi=True, all_value="'*'"))
    made = made.annotation(panels.annotation("Errors", "red", sql["marks"]))
    return _history(_conflicts(_state(made, sql), sql), sql)


def _state(made: builders.Dashboard, sql: dict[str, str]) -> builders.Dashboard:
    for panel in (
        panels.figures(
            Face("Open incidents", "none", "Incidents that have not ended, and in how many projects.", "No incident was ever opened"),
            sql["open_now"],
            Size(8, 4),
            bad=1,
        ),
        panels.figures(
            Face(
                "Opened and closed",
                "none",
                "Incidents in the time range; the mean duration is that of the closed ones.",
                "No incident in this time range",
            ),
            sql["opened"],
            Size(8, 4),
            {"mean duration": "s"},
        ),
        panels.figures(
            Face(
                "Evaluation",
                "none",
                "Time since the rule that waits longest was evaluated, what the slowest took, and rules whose last evaluation failed."
                " Results are due every five minutes.",
                "No rule was ever evaluated",
            ),
            sql["evaluated"],
            Size(8, 4),
            {"oldest evaluation": "s", "slowest rule": "s"},
            warn=600,
            bad=3600,
        ),
        panels.rows(
            Face(
                "Incidents that are open",
                AS_IS,
                "Errors first, the newest first, at most 200. The Kafka partition and offset name a message that shows the problem (`iot"
                " trace`).",
                "No incident is open",
            ),
            sql["open"],
            Size(24, 10),
        ),
        panels.timeline(
            Face(
                "Rules over time", "none", "The worst incident of each rule that was open at that time.", "The rules were never evaluated"
            ),
            sql["timeline"],
            Size(14, 11),
            STATES,
        ),
        panels.bars(
            Face(
                "Findings by rule",
                EXACT,
                "Rows written by the rules: when something begins to fail, and each hour while it does.",
                "No rule found anything in this time range",
            ),
            sql["findings"],
            Size(10, 11),
            least_interval="5m",
        ),
    ):
        made = made.with_panel(panel)
    return made


def _conflicts(made: builders.Dashboard, sql: dict[str, str]) -> builders.Dashboard:
    return made.with_panel(
        panels.rows(
            Face(
                "Projects with conflicts",
                AS_IS,
                "Measurements that were not stored, because their series has another value at the same time, by the hour (UTC) of receipt;"
                " share: of all measurements of those hours. Beside them one such value of the newest hour, what is stored instead, and the"
                " message that has it (`iot trace`). At most 50 projects.",
                "No conflict in this time range",
            ),
            sql["conflict_projects"],
            Size(24, 8),
            {"share": "percentunit"},
        )
    ).with_panel(
        panels.bars(
            Face(
                "Conflicts per hour",
                EXACT,
                "Of the 10 projects with most conflicts in the time range, by the hour (UTC) of receipt.",
                "No conflict in this time range",
            ),
            sql["conflicts"],
            Size(24, 7),
        )
    )


def _history(made: builders.Dashboard, sql: dict[str, str]) -> builders.Dashboard:
    for panel in (
        panels.rows(
            Face(
                "Projects",
                AS_IS,
                "Open incidents by project; without project: about a tenant, or the platform, as a whole.",
                "No incident is open",
            ),
            sql["projects"],
            Size(10, 9),
        ),
        panels.rows(
            Face(
                "Rules",
                AS_IS,
                "Each rule with its default severity, open incidents, what failed in its last evaluation, and when and how long that was."
                " Change them with"
                " `iot quality rules`.",
                "The rules were never evaluated",
            ),
            sql["rules"],
            Size(14, 9),
            {"seconds": "s"},
        ),
        panels.rows(
            Face(
                "Incidents that have ended",
                AS_IS,
                "Closed in the time range, the newest first, at most 200. Flaps: how often it was good and failed again within the"
                " incident.",
                "No incident ended in this time range",
            ),
            sql["ended"],
            Size(24, 9),
            {"duration_seconds": "s"},
        ),
    ):
        made = made.with_panel(panel)
    return made
