"""The messages' flow in PromQL, and what panels say whose figures are not scraped: what several dashboards share."""

from typing import Final

DAEMON: Final = 'instance=~"$daemon"'
"""The daemons that are chosen."""
NO_DAEMON: Final = "No ingest daemon is scraped: add its port 9108 to Prometheus' targets"
NO_EXPORTER: Final = "`iot metrics` is not scraped: add its port 9109 to Prometheus' targets"
NO_BROKER: Final = "No $SYS figures of the MQTT broker: set IOT_METRICS_MQTT_URL for `iot metrics` (docs/operations.md, Metrics)"
NO_COMMIT: Final = "No message was committed in this time, or `iot metrics` (port 9109) is not scraped"


def received(window: str) -> str:
    """Messages a second that the chosen daemons receive."""
    return f"sum(rate(iot_ingest_messages_received_total{{{DAEMON}}}[{window}]))"


def delivered(window: str) -> str:
    """Messages a second that Kafka takes from the chosen daemons."""
    return f"sum(rate(iot_ingest_messages_delivered_total{{{DAEMON}}}[{window}]))"


def written(window: str) -> str:
    """Messages a second that become rows, in quarantine too."""
    return f"sum(rate(iot_stored_messages_total[{window}])) + sum(rate(iot_quarantined_messages_total[{window}]))"


def mean_held(window: str) -> str:
    """Messages that the chosen daemons hold, on average over the window: Little's law is about averages."""
    parts = ("messages_in_flight", "spool_messages")
    return " + ".join(f"sum(avg_over_time(iot_ingest_{name}{{{DAEMON}}}[{window}]))" for name in parts)


def mean_lag(window: str) -> str:
    """Records that wait in Kafka, on average over the window."""
    return f"clamp_min(sum(avg_over_time(iot_drain_lag_messages[{window}])), 0)"


HELD: Final = f"sum(iot_ingest_messages_in_flight{{{DAEMON}}}) + sum(iot_ingest_spool_messages{{{DAEMON}}})"
LAG: Final = "sum(clamp_min(iot_drain_lag_messages, 0))"


def committed(window: str) -> str:
    """Messages a second of which the freshness was measured."""
    return f"sum(rate(iot_freshness_seconds_count[{window}]))"


def quantile(share: float, window: str) -> str:
    """Freshness that this share of the messages undercuts."""
    return f"histogram_quantile({share}, sum by (le) (rate(iot_freshness_seconds_bucket[{window}])))"


def late(window: str) -> str:
    """Share of the messages committed later than the objective."""
    fresh = f'sum(rate(iot_freshness_seconds_bucket{{le="5.0"}}[{window}]))'
    return f"1 - {fresh} / ({committed(window)} > 0)"
