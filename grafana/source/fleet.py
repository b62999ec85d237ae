"""Fleet overview: does the platform take in what the devices send, how fast, and what does it refuse?"""

from grafana_foundation_sdk.builders import dashboard as builders

from grafana.source import panels
from grafana.source.boards import board
from grafana.source.panels import AS_IS, EXACT, Face, Size
from grafana.source.queries import load

NO_BATCH = "No batch was committed in this time range"


def fleet() -> builders.Dashboard:
    """The dashboard."""
    sql = load("fleet")
    made = board("fleet", "Fleet overview", "Rates, freshness, lag, spool, quarantine and quality of the whole platform.", "now-6h")
    made = made.annotation(panels.annotation("Accepted losses", "purple", sql["losses"]))
    return _quarantine(_behind(_state(made, sql), sql), sql)


def _state(made: builders.Dashboard, sql: dict[str, str]) -> builders.Dashboard:
    for panel in (
        panels.figures(
            Face(
                "Messages and measurements per minute",
                "none",
                "Committed to the database, mean of the last five minutes of the time range.",
                NO_BATCH,
            ),
            sql["rate_now"],
            Size(4, 4),
        ),
        panels.figures(
            Face(
                "Freshness",
                "s",
                "Time from receipt by the ingest daemon to the commit, over the messages of the last five minutes of the time range: half"
                " of them,"
                " and 95 % of them, were quicker.",
                "No message was committed in the last five minutes of the time range",
            ),
            sql["freshness_now"],
            Size(3, 4),
            warn=5,
            bad=60,
        ),
        panels.figures(
            Face(
                "Lag",
                "s",
                "Behind: how old the oldest message of the last batches was when it was committed; seconds are usual, minutes are a"
                " backlog. Since the"
                " last commit: grows while no device sends anything, too; it is trouble when the ingest daemons below still receive.",
                "Nothing was ever committed",
            ),
            sql["lag"],
            Size(4, 4),
            warn=120,
            bad=600,
        ),
        panels.figures(
            Face(
                "Waiting in Kafka",
                "none",
                "Records that waited to be drained when Dagster's sensor kafka_lag last looked; when that was is in the table Lag by Kafka"
                " partition.",
                "Dagster's sensor kafka_lag has not looked yet",
            ),
            sql["waiting"],
            Size(2, 4),
            warn=10_000,
            bad=1_000_000,
        ),
        panels.figures(
            Face(
                "Spool and in flight",
                "none",
                "Messages on the ingest daemons' disks, and received but not yet acknowledged, as they last reported (each audit asks"
                " them)."
                " Both go back to 0 by themselves once Kafka takes messages.",
                "No ingest daemon has reported yet: `iot audit` asks them",
            ),
            sql["spool"],
            Size(3, 4),
            warn=1000,
            bad=100_000,
        ),
        panels.figures(
            Face(
                "Audit differences",
                "none",
                "Open incidents of the rules ledger_continuous, rollup_equals_source and kafka_log_cut, and ingest daemons whose own books"
                " do not balance. Must be 0."
                " The whole audit, row by row, is `iot audit`.",
                "The audit has nothing to compare",
            ),
            sql["differences"],
            Size(3, 4),
            bad=1,
        ),
        panels.figures(
            Face(
                "Open quality incidents",
                "none",
                "Incidents that have not ended, of all tenants. The dashboard Data quality lists them.",
                "No quality incident was ever opened",
            ),
            sql["incidents"],
            Size(3, 4),
            bad=1,
        ),
        panels.figures(
            Face(
                "Quarantined",
                "none",
                "Messages received in the time range, at most its last day, that are in quarantine.",
                "Nothing is in quarantine",
            ),
            sql["quarantine_now"],
            Size(2, 4),
            warn=1,
        ),
    ):
        made = made.with_panel(panel)
    return made


def _behind(made: builders.Dashboard, sql: dict[str, str]) -> builders.Dashboard:
    for panel in (
        panels.lines(
            Face(
                "Rates per minute",
                "cpm",
                "Messages and measurements committed per minute. The first 100 batches of each step are read: exact for short steps, a"
                " sample of long ones.",
                NO_BATCH,
            ),
            sql["rates"],
            Size(12, 8),
            least_interval="1m",
            most_points=200,
        ),
        panels.lines(
            Face(
                "Refused and repeated per minute",
                "cpm",
                "Redelivered: MQTT sent a message again; it is kept and marked, and yields no measurements. Repeated and conflicting"
                " measurements: the"
                " same series and time was stored before, with the same or another value. Read as the rates are.",
                NO_BATCH,
            ),
            sql["rest"],
            Size(12, 8),
            least_interval="1m",
            most_points=200,
        ),
        panels.lines(
            Face(
                "Freshness",
                "s",
                "Time from receipt by the ingest daemon to the commit. The first 50 batches of each step are read.",
                "No message was committed in this time range",
            ),
            sql["freshness"],
            Size(12, 8),
            least_interval="30s",
            most_points=120,
        ),
        panels.rows(
            Face(
                "Lag by Kafka partition",
                AS_IS,
                "How far the drain is. Behind: how old the oldest message of the last batch was when it was committed; seconds are usual,"
                " minutes are"
                " a backlog. Lag: records that waited in Kafka when Dagster's sensor kafka_lag last looked, every 5 seconds while it runs.",
                "The drain has not begun yet",
            ),
            sql["partitions"],
            Size(12, 8),
            {"behind_seconds": "s", "idle_seconds": "s"},
        ),
        panels.rows(
            Face(
                "Ingest daemons",
                AS_IS,
                "What each daemon last reported, counted since its state directory was made: received = delivered + spooled + in flight +"
                " dead-lettered"
                " + given up; difference and missing must be 0.",
                "No ingest daemon has reported yet: `iot audit` asks them",
            ),
            sql["daemons"],
            Size(24, 6),
        ),
    ):
        made = made.with_panel(panel)
    return made


def _quarantine(made: builders.Dashboard, sql: dict[str, str]) -> builders.Dashboard:
    for panel in (
        panels.bars(
            Face(
                "Quarantined messages by reason",
                EXACT,
                "Messages kept whole because no measurement could be made of them, by the time of receipt.",
                "No message was quarantined in this time range",
            ),
            sql["quarantine"],
            Size(12, 8),
            least_interval="1m",
        ),
        panels.rows(
            Face(
                "Quarantined messages by project",
                AS_IS,
                "Where they come from; tenant and project are empty when the topic names none. At most 50 rows.",
                "No message was quarantined in this time range",
            ),
            sql["quarantine_projects"],
            Size(12, 8),
        ),
        panels.rows(
            Face(
                "Busiest projects",
                AS_IS,
                "Messages received in the hour (UTC) in which the time range ends. At most 20 rows. Conflicts: another value was"
                " stored for the same time before.",
                "No message was received in the hour in which the time range ends",
            ),
            sql["busiest"],
            Size(24, 8),
        ),
    ):
        made = made.with_panel(panel)
    return made
