"""Pipeline: each hop from the MQTT broker to the row: how many a second, how many wait, how long it takes, and which hop holds them up."""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders

from grafana.source import panels
from grafana.source.alerts import limit, objective
from grafana.source.boards import board
from grafana.source.flow import (
    DAEMON,
    HELD,
    LAG,
    NO_COMMIT,
    NO_DAEMON,
    NO_EXPORTER,
    committed,
    delivered,
    late,
    mean_held,
    mean_lag,
    quantile,
    received,
    written,
)
from grafana.source.panels import AS_IS, Face, Size
from grafana.source.pipeline_daemons import broker, daemons
from grafana.source.queries import PromQL

HOPS: Final = ("1 broker → daemon", "2 daemon → Kafka", "3 Kafka → row", "1–3 receipt → row")


def pipeline() -> builders.Dashboard:
    """The dashboard."""
    made = board("pipeline", "Pipeline", "Rate, lag and latency of each hop: MQTT broker, ingest daemon, Kafka, drain, row.", "now-1h")
    made = made.with_variable(
        panels.label_variable(
            "daemon", "Ingest daemon", "Ingest daemons, by the address that is scraped", "iot_ingest_mqtt_connected", "instance"
        )
    )
    for panel in (*_state(), *_hops(), *_fresh(), *daemons(), *_refused(), *broker()):
        made = made.with_panel(panel)
    return made


def _state() -> list[panels.Panel]:
    return [
        panels.figures(
            Face(
                "Received and written",
                "mps",
                "Messages a second, mean of five minutes: PUBLISH packets that the daemons received, and rows written to message and"
                " quarantine.",
                NO_DAEMON,
            ),
            [PromQL(received("5m"), "received"), PromQL(written("5m"), "written")],
            Size(6, 4),
        ),
        panels.figures(
            Face(
                "Waiting",
                "locale",
                "Messages in flight in the daemons and in their spools, and records in Kafka that the database has not taken.",
                NO_DAEMON,
                ("DrainLagGrowing", "IngestSpoolFilling"),
            ),
            [PromQL(HELD, "in daemons"), PromQL(LAG, "in Kafka")],
            Size(5, 4),
            limits=[limit("DrainLagGrowing")],
        ),
        panels.figures(
            Face(
                "Freshness",
                "s",
                "From receipt by the daemon to the commit, of the messages committed in the last five minutes: half of them, and 99 %, were"
                " quicker. Estimated within the buckets of iot_freshness_seconds; the first one ends at 1 s.",
                NO_COMMIT,
                ("FreshnessBurnsFast", "FreshnessBurnsSlow"),
            ),
            [PromQL(quantile(0.5, "5m"), "median"), PromQL(quantile(0.99, "5m"), "99 %")],
            Size(5, 4),
            limits=[objective()],
        ),
        panels.figures(
            Face(
                "Differences",
                "none",
                "Of the last audit, all proofs together, and messages that vanished from a spool. Must be 0.",
                NO_EXPORTER,
                ("AuditDifference", "IngestMessagesLost"),
            ),
            [
                PromQL("sum(iot_audit_differences)", "audit"),
                PromQL(f"sum(iot_ingest_messages_missing{{{DAEMON}}})", "missing"),
            ],
            Size(4, 4),
            limits=[limit("AuditDifference")],
        ),
        panels.figures(
            Face(
                "Since the last commit",
                "s",
                "As of the exporter's last look, every 15 s. Grows while no device sends anything, too; trouble when records wait.",
                NO_EXPORTER,
                ("DrainStalled", "DrainStopped"),
            ),
            [PromQL("time() - max(iot_drain_last_commit_timestamp_seconds > 0)", "last commit")],
            Size(4, 4),
            limits=[limit("DrainStalled", 1)],
        ),
    ]


def hop(number: int, expr: str) -> str:
    """The expression's value with the label hop."""
    return f'label_replace({expr}, "hop", "{HOPS[number]}", "", "")'


def _hops() -> list[panels.Panel]:
    rate = [received("$__rate_interval"), delivered("$__rate_interval"), written("$__rate_interval")]
    return [
        panels.grid(
            Face(
                "Hop by hop",
                AS_IS,
                "Messages a second, messages that wait before the hop is done (now), and how long one takes: for the hops by Little's law,"
                " mean of those that wait ÷ rate; for the whole way measured (mean of iot_freshness_seconds). Means are of five minutes."
                " What waits in the broker before"
                " hop 1, it alone knows.",
                NO_DAEMON,
            ),
            {"hop": "hop"},
            [
                PromQL(
                    " or ".join(
                        hop(n, e) for n, e in ((0, received("5m")), (1, delivered("5m")), (2, written("5m")), (3, committed("5m")))
                    ),
                    "messages a second",
                ),
                PromQL(" or ".join(hop(n, e) for n, e in ((1, HELD), (2, LAG), (3, f"{HELD} + {LAG}"))), "waiting"),
                PromQL(
                    " or ".join(
                        hop(n, e)
                        for n, e in (
                            (1, f"({mean_held('5m')}) / ({delivered('5m')} > 0)"),
                            (2, f"{mean_lag('5m')} / (({written('5m')}) > 0)"),
                            (3, "sum(rate(iot_freshness_seconds_sum[5m])) / (sum(rate(iot_freshness_seconds_count[5m])) > 0)"),
                        )
                    ),
                    "latency",
                ),
            ],
            Size(12, 8),
            {"messages a second": "mps", "waiting": "locale", "latency": "s"},
        ),
        panels.lines(
            Face(
                "Rates",
                "mps",
                "Messages a second past each hop. Where two lines part, messages gather between them.",
                NO_DAEMON,
                ("IngestSilent", "IngestUnavailable"),
            ),
            [PromQL(expr, name) for expr, name in zip(rate, ("received", "in Kafka", "written"), strict=True)],
            Size(12, 8),
        ),
        panels.lines(
            Face(
                "Waiting over time",
                "short",
                "Messages in flight in the daemons, in their spools, and in Kafka. The dashed line: from there on a growing lag alerts.",
                NO_DAEMON,
                ("DrainLagGrowing", "IngestKafkaDown"),
            ),
            [
                PromQL(f"sum(iot_ingest_messages_in_flight{{{DAEMON}}})", "in flight"),
                PromQL(f"sum(iot_ingest_spool_messages{{{DAEMON}}})", "in spools"),
                PromQL(LAG, "in Kafka"),
            ],
            Size(12, 8),
            limits=[limit("DrainLagGrowing")],
        ),
        panels.lines(
            Face(
                "Lag by Kafka partition",
                "short",
                "Records that the database has not taken: the ten partitions with most. Below 0: Kafka has fewer than were drained.",
                NO_EXPORTER,
                ("DrainStopped", "KafkaLogCut"),
            ),
            [PromQL("topk(10, iot_drain_lag_messages)", "partition {{partition}}")],
            Size(12, 8),
        ),
    ]


def _fresh() -> list[panels.Panel]:
    return [
        panels.lines(
            Face(
                "Freshness over time",
                "s",
                "From receipt by the daemon to the commit. The dashed line is the objective: 99 % within 5 s.",
                NO_COMMIT,
                ("FreshnessBurnsFast", "FreshnessBurnsSlow"),
            ),
            [PromQL(quantile(share, "$__rate_interval"), name) for share, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))],
            Size(12, 8),
            limits=[objective()],
        ),
        panels.lines(
            Face(
                "Messages later than 5 s",
                "percentunit",
                "Share of the messages. 1 % is the objective's budget (lower line, if it goes on for days); the upper line uses the"
                " month's up in"
                " two days.",
                NO_COMMIT,
                ("FreshnessBurnsFast", "FreshnessBurnsSlow"),
            ),
            [PromQL(late("5m"), "5 minutes"), PromQL(late("1h"), "1 hour")],
            Size(12, 8),
            limits=[limit("FreshnessBurnsSlow", 2), limit("FreshnessBurnsFast")],
        ),
        panels.lines(
            Face(
                "Slowest tenants",
                "s",
                "The longest time from receipt to commit in the newest commits of the ten slowest tenants.",
                NO_COMMIT,
                ("TenantLate",),
            ),
            [PromQL("topk(10, iot_tenant_freshness_seconds)", "tenant {{tenant}}")],
            Size(12, 8),
            limits=[limit("TenantLate")],
        ),
        panels.grid(
            Face(
                "Partitions that cannot go on",
                AS_IS,
                "Kafka partitions of which nothing is drained until somebody decides (`iot offsets`), and why. A log cut goes on by"
                " itself.",
                "No partition is stopped",
                ("DrainStopped", "KafkaLogCut"),
            ),
            {"partition": "partition", "problem": "problem"},
            [PromQL("sum by (partition, problem) (iot_drain_problem == 1)", "stopped")],
            Size(12, 8),
        ),
    ]


def _refused() -> list[panels.Panel]:
    shares = {
        "quarantined": "sum(rate(iot_quarantined_messages_total[$__rate_interval])) / (" + written("$__rate_interval") + " > 0)",
        "conflicting": "sum(rate(iot_conflicting_measurements_total[$__rate_interval]))"
        " / (sum(rate(iot_stored_measurements_total[$__rate_interval])) +"
        " sum(rate(iot_conflicting_measurements_total[$__rate_interval])) > 0)",
    }
    return [
        panels.bars(
            Face(
                "Quarantined by reason",
                "short",
                "Messages per step. They are kept whole; `iot replay` decodes them again.",
                "No message was quarantined in this time, or `iot metrics` (port 9109) is not scraped",
                ("QuarantineFlood",),
            ),
            [PromQL("sum by (reason) (increase(iot_quarantined_messages_total[$__rate_interval])) > 0", "{{reason}}")],
            Size(8, 8),
        ),
        panels.lines(
            Face(
                "Shares refused",
                "percentunit",
                "Messages that go into quarantine, of all; measurements that were not stored because another value has their series and"
                " time, of"
                " all. The lines are the alerts' (over 10 minutes, and an hour).",
                NO_COMMIT,
                ("QuarantineFlood", "ConflictingMeasurements"),
            ),
            [PromQL(expr, name) for name, expr in shares.items()],
            Size(8, 8),
            limits=[limit("ConflictingMeasurements"), limit("QuarantineFlood")],
        ),
        panels.lines(
            Face(
                "Sent again",
                "mps",
                "A second: redelivered by the broker on a new connection (recognised and marked), resent on the same one (dropped),"
                " refused by"
                " Kafka (dead letters), given up.",
                NO_DAEMON,
                ("IngestDeadLetters", "IngestSessionLost", "IngestMessagesLost"),
            ),
            [
                PromQL(f"sum(rate(iot_ingest_messages_{name}_total{{{DAEMON}}}[$__rate_interval]))", name.replace("_", " "))
                for name in ("redelivered", "resent", "dead_lettered", "given_up")
            ],
            Size(8, 8),
        ),
    ]
