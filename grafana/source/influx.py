"""InfluxDB: does each second store keep up, and what does it lack?"""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders

from grafana.source import panels
from grafana.source.alerts import limit
from grafana.source.boards import board
from grafana.source.panels import Face, Size
from grafana.source.queries import PromQL

NO_SINK: Final = "No InfluxDB follows (docs/influxdb.md), or `iot metrics` (port 9109) is not scraped"


def influx() -> builders.Dashboard:
    """The dashboard."""
    made = board("influx", "InfluxDB", "InfluxDB servers that follow the ledger: lag, refusals, retries.", "now-6h")
    for panel in _panels():
        made = made.with_panel(panel)
    return made


def _panels() -> list[panels.Panel]:
    return [
        panels.lines(
            Face("Behind", "s", "Since when the oldest batch that it lacks is committed. Usual: seconds.", NO_SINK, ("SinkLate",)),
            [PromQL("max by (sink) (iot_sink_behind_seconds)", "{{sink}}")],
            Size(12, 8),
            limits=[limit("SinkLate")],
        ),
        panels.lines(
            Face("Records behind", "short", "Kafka records of the ledger that it does not have yet.", NO_SINK, ("SinkLate",)),
            [PromQL("max by (sink) (iot_sink_lag_messages)", "{{sink}}")],
            Size(12, 8),
        ),
        panels.lines(
            Face("Points written", "cps", "Measurements that it took, repetitions included.", NO_SINK, ("SinkLate",)),
            [PromQL("sum by (sink) (rate(iot_sink_written_measurements_total[5m]))", "{{sink}}")],
            Size(8, 8),
        ),
        panels.lines(
            Face("Points refused", "short", "Measurements that it does not have: `iot influx status` says why.", NO_SINK, ("SinkRefuses",)),
            [PromQL("max by (sink) (iot_sink_missing_measurements)", "{{sink}}")],
            Size(8, 8),
        ),
        panels.lines(
            Face("Retries and series", "short", "Repeated requests of the last 5 minutes, and series that it has.", NO_SINK, ("SinkLate",)),
            [
                PromQL("sum by (sink) (increase(iot_sink_retried_requests_total[5m]))", "{{sink}} retries"),
                PromQL("max by (sink) (iot_sink_series)", "{{sink}} series"),
            ],
            Size(8, 8),
        ),
    ]
