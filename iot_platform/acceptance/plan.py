"""The plan: eight weeks, six milestones, and the checks that show each of them."""

from collections.abc import Sequence
from typing import Final

from iot_platform.acceptance import cluster, data, host
from iot_platform.acceptance.check import Check, Week

WEEKS: Final[Sequence[Week]] = (
    Week(
        "week1",
        "The physical host: registry, Kafka, database",
        "M1",
        (
            Check("harbor", "Harbor answers", host.harbor_answers),
            Check("images", "every image is in Harbor", host.images_are_there),
            Check("kafka", "Kafka answers", host.kafka_answers),
            Check("database", "TimescaleDB answers, Community edition", host.database_answers),
        ),
    ),
    Week("week2", "The cluster", "M2", (Check("nodes", "every node is Ready", cluster.nodes_are_ready),)),
    Week(
        "week3",
        "The platform in the cluster",
        "M3",
        (
            Check("schema", "the schema is current", data.schema_is_current),
            Check("workloads", "every workload is ready", cluster.workloads_are_ready),
            Check("registry", "images come from Harbor only", cluster.images_come_from_harbor),
            Check("reach", "pods reach Kafka and the database", cluster.pods_reach_servers),
        ),
    ),
    Week(
        "week4",
        "From device to row",
        "M3",
        (
            Check("dagster", "Dagster works", data.dagster_works),
            Check("row", "a message becomes a row", data.row_arrives),
            Check("audit", "nothing is lost or doubled", data.nothing_is_lost),
        ),
    ),
    Week(
        "week5",
        "Upkeep of the data",
        "M4",
        (
            Check("compression", "compression is active", data.chunks_are_compressed),
            Check("retention", "retention is active", data.old_rows_are_gone),
            Check("rollups", "rollups are current", data.rollups_are_current),
        ),
    ),
    Week(
        "week6",
        "Seeing it",
        "M5",
        (
            Check("targets", "Prometheus scrapes every target", host.prometheus_answers),
            Check("alerts", "the alert rules are loaded", host.alerts_are_loaded),
            Check("dashboards", "the dashboards answer", host.dashboards_answer),
        ),
    ),
    Week(
        "week7",
        "Delivery and scaling",
        "M5",
        (
            Check("argocd", "ArgoCD is in sync", cluster.argocd_is_synced),
            Check("autoscaler", "the autoscaler reacts", cluster.autoscaler_reacts),
        ),
    ),
    Week("week8", "Faults", "M6", (Check("drills", "the drills pass", data.drills_passed),)),
)


def find(names: Sequence[str]) -> list[Week]:
    """The weeks of these names, in the plan's order; `all` are all.

    Raises:
        LookupError: there is no such week.
    """
    known = {week.name for week in WEEKS} | {"all"}
    if wrong := [name for name in names if name not in known]:
        raise LookupError(f"there is no {wrong[0]!r}; there are {', '.join(week.name for week in WEEKS)} and all")
    return [week for week in WEEKS if week.name in names or "all" in names]
