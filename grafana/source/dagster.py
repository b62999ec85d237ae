"""Dagster: does it start what has to run, do the runs end well, and how long do they take?"""

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders

from grafana.source import panels
from grafana.source.alerts import limit
from grafana.source.boards import board
from grafana.source.flow import NO_EXPORTER
from grafana.source.panels import AS_IS, Face, Size
from grafana.source.queries import PromQL

JOB: Final = 'job_name=~"$job"'
NO_RUN: Final = "No run ended in this time, or `iot metrics` (port 9109) is not scraped"
WATCHED: Final = 'daemon=~"sensor|scheduler|queued_run_coordinator|monitoring"'
"""The parts of the Dagster daemon that DagsterDaemonStopped watches."""


def dagster() -> builders.Dashboard:
    """The dashboard."""
    made = board("dagster", "Dagster", "Runs, queue, sensors, schedules and the daemon, read from Dagster's storage.", "now-6h")
    made = made.with_variable(
        panels.label_variable("job", "Job", "Jobs; the platform's own, and other", "iot_dagster_runs_total", "job_name")
    )
    for panel in (*_state(), *_runs(), *_ticks()):
        made = made.with_panel(panel)
    return made


def _state() -> list[panels.Panel]:
    return [
        panels.figures(
            Face(
                "Daemon's last report",
                "s",
                "Since the part of the Dagster daemon that reported longest ago did; it starts nothing while it is silent.",
                NO_EXPORTER,
                ("DagsterDaemonStopped",),
            ),
            [PromQL(f"time() - min(iot_dagster_heartbeat_timestamp_seconds{{{WATCHED}}})", "oldest report")],
            Size(4, 4),
            limits=[limit("DagsterDaemonStopped")],
        ),
        panels.figures(
            Face("Unfinished runs", "none", "Runs by state. One drain for each shard works all the time.", NO_EXPORTER),
            [PromQL("sum by (status) (iot_dagster_unfinished_runs)", "{{status}}")],
            Size(8, 4),
        ),
        panels.figures(
            Face("Oldest in the queue", "s", "How long the oldest queued run has waited; 0: none.", NO_EXPORTER, ("DagsterQueueStuck",)),
            [PromQL("max(iot_dagster_oldest_queued_seconds)", "oldest")],
            Size(4, 4),
            limits=[limit("DagsterQueueStuck")],
        ),
        panels.figures(
            Face(
                "Failed in 30 minutes",
                "none",
                "Runs of the job that failed most often.",
                NO_EXPORTER,
                ("DagsterRunsFail",),
            ),
            [PromQL('round(max(sum by (job_name) (increase(iot_dagster_runs_total{status="FAILURE"}[30m]))))', "failed")],
            Size(4, 4),
            limits=[limit("DagsterRunsFail")],
        ),
        panels.figures(
            Face(
                "Switched off, failing",
                "none",
                "Sensors and schedules that are switched off, and whose last tick failed.",
                NO_EXPORTER,
                ("DagsterSwitchedOff", "DagsterTickFails"),
            ),
            [PromQL("sum(iot_dagster_switched_off)", "off"), PromQL("sum(iot_dagster_tick_failed)", "failing")],
            Size(4, 4),
            limits=[limit("DagsterSwitchedOff")],
        ),
    ]


def _runs() -> list[panels.Panel]:
    return [
        panels.bars(
            Face("Runs ended", "short", "Per step, by job, whatever their end.", NO_EXPORTER),
            [PromQL(f"sum by (job_name) (increase(iot_dagster_runs_total{{{JOB}}}[$__rate_interval]))", "{{job_name}}")],
            Size(12, 8),
            least_interval="1m",
        ),
        panels.bars(
            Face(
                "Runs that failed or were canceled",
                "short",
                "Per step, by job. A drain that makes room for its successor ends well.",
                "No run failed or was canceled in this time, or `iot metrics` (port 9109) is not scraped",
                ("DagsterRunsFail",),
            ),
            [
                PromQL(
                    f'sum by (job_name, status) (increase(iot_dagster_runs_total{{{JOB}, status!="SUCCESS"}}[$__rate_interval])) > 0',
                    "{{job_name}} {{status}}",
                )
            ],
            Size(12, 8),
            least_interval="1m",
        ),
        panels.grid(
            Face(
                "Jobs",
                AS_IS,
                "Of the last six hours before the range's end: runs that ended well, failed, were canceled; how long one took (mean, and"
                " 95 %"
                " estimated within the buckets of iot_dagster_run_seconds).",
                NO_EXPORTER,
                ("DagsterRunsFail",),
            ),
            {"job_name": "job"},
            [
                *(
                    PromQL(f'round(sum by (job_name) (increase(iot_dagster_runs_total{{{JOB}, status="{status}"}}[6h])))', title)
                    for status, title in (("SUCCESS", "succeeded"), ("FAILURE", "failed"), ("CANCELED", "canceled"))
                ),
                PromQL(
                    f"sum by (job_name) (increase(iot_dagster_run_seconds_sum{{{JOB}}}[6h]))"
                    f" / (sum by (job_name) (increase(iot_dagster_run_seconds_count{{{JOB}}}[6h])) > 0)",
                    "mean",
                ),
                PromQL(
                    f"histogram_quantile(0.95, sum by (job_name, le) (increase(iot_dagster_run_seconds_bucket{{{JOB}}}[6h]))) > 0", "95 %"
                ),
            ],
            Size(12, 9),
            {"mean": "s", "95 %": "s"},
        ),
        panels.lines(
            Face("Duration", "s", "Mean of the runs that ended in the last 30 minutes, by job.", NO_RUN),
            [
                PromQL(
                    f"sum by (job_name) (increase(iot_dagster_run_seconds_sum{{{JOB}}}[30m]))"
                    f" / (sum by (job_name) (increase(iot_dagster_run_seconds_count{{{JOB}}}[30m])) > 0)",
                    "{{job_name}}",
                )
            ],
            Size(12, 9),
        ),
        panels.lines(
            Face(
                "Unfinished runs over time",
                "none",
                "By state. Runs that stay in the queue wait for a pool or for the daemon.",
                NO_EXPORTER,
                ("DagsterQueueStuck",),
            ),
            [PromQL("sum by (status) (iot_dagster_unfinished_runs)", "{{status}}")],
            Size(12, 7),
        ),
        panels.lines(
            Face(
                "Parts of the daemon",
                "s",
                "Time since each last reported. The dashed line is the alert's, which watches sensor, scheduler, queued_run_coordinator and"
                " monitoring.",
                NO_EXPORTER,
                ("DagsterDaemonStopped",),
            ),
            [PromQL("time() - max by (daemon) (iot_dagster_heartbeat_timestamp_seconds)", "{{daemon}}")],
            Size(12, 7),
            limits=[limit("DagsterDaemonStopped")],
        ),
    ]


def _ticks() -> list[panels.Panel]:
    return [
        panels.grid(
            Face(
                "Sensors and schedules",
                AS_IS,
                "Time since the last tick, whether the last one that ended failed (1), whether it is switched off (1). A daily schedule"
                " ticks once a"
                " day; a sensor that is silent for five minutes alerts.",
                NO_EXPORTER,
                ("DagsterSensorStopped", "DagsterTickFails", "DagsterSwitchedOff"),
            ),
            {"kind": "kind", "name": "name"},
            [
                PromQL("time() - max by (kind, name) (iot_dagster_tick_timestamp_seconds)", "since the last tick"),
                PromQL("max by (kind, name) (iot_dagster_tick_failed)", "failed"),
                PromQL("max by (kind, name) (iot_dagster_switched_off)", "off"),
            ],
            Size(12, 10),
            {"since the last tick": "s"},
        ),
        panels.lines(
            Face(
                "Sensors",
                "s",
                "Time since the last tick of each sensor.",
                NO_EXPORTER,
                ("DagsterSensorStopped",),
            ),
            [PromQL('time() - max by (name) (iot_dagster_tick_timestamp_seconds{kind="sensor"})', "{{name}}")],
            Size(12, 10),
            limits=[limit("DagsterSensorStopped")],
        ),
    ]
