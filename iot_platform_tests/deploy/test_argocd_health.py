"""What ArgoCD shows of our objects, by its own health functions: what holds a wave up, what fails a sync, and what it takes for healthy."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from iot_platform_tests.support.deploy import tools
from iot_platform_tests.support.deploy.tools import CHECKOUT
from iot_platform_tests.support.kubernetes.manifests import Object, objects, one

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]  # the first time it is built
Health = Callable[..., list[str | None]]


@pytest.fixture(scope="module")
def health(tmp_path_factory: pytest.TempPathFactory) -> Health:
    """The statuses of objects; None where ArgoCD has no check, and does not wait."""
    folder = tmp_path_factory.mktemp("health")
    program = tools.installed(tools.argocd_health, folder / "install.log")
    (settings,) = yaml.safe_load_all((CHECKOUT / "deploy/argocd/install/argocd-cm.yaml").read_text("utf-8"))
    scripts = {key: text for key, text in settings["data"].items() if key.startswith("resource.customizations.health.")}
    arguments = []
    for key, text in scripts.items():
        group, _, kind = key.removeprefix("resource.customizations.health.").rpartition("_")
        (folder / kind).write_text(text, "utf-8")
        arguments.append(f"{group}/{kind}={folder / kind}")

    def asked(*items: Object) -> list[str | None]:
        done = subprocess.run([program, *arguments], input=json.dumps(items), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [item and item["status"] for item in json.loads(done.stdout)]

    return asked


def with_status(item: Object, status: Object | None, spec: Object | None = None) -> Object:
    """As an API server would return it."""
    made = {**item, "spec": item.get("spec", {}) | (spec or {}), "metadata": {**item["metadata"], "generation": 2}}
    return made if status is None else {**made, "status": status}


def test_what_has_no_check_and_what_waits_when_it_is_new(health: Health) -> None:
    """Of every kind that the overlay has, before any controller has seen it."""
    found: dict[str, set[str | None]] = {}
    new = [item for item in objects("rke2") if item["kind"] != "StatefulSet"]
    for item, status in zip(new, health(*new), strict=True):
        found.setdefault(item["kind"], set()).add(status)
    passed = {"Namespace", "PriorityClass", "StorageClass", "ConfigMap", "ServiceAccount", "Role", "RoleBinding"}
    passed |= {"NetworkPolicy", "EndpointSlice"}
    held = {"Deployment", "Job", "HorizontalPodAutoscaler", "Ingress", "PodDisruptionBudget"}
    assert found == {kind: {None} for kind in passed} | {kind: {"Progressing"} for kind in held} | {"Service": {"Healthy"}}


def daemons(ready: int, updated: int) -> Object:
    """The ingest daemons while a new version comes; the autoscaler's number is in the spec."""
    status = {"observedGeneration": 2, "replicas": 3, "readyReplicas": ready, "updatedReplicas": updated, "currentReplicas": 3 - updated}
    status |= {"currentRevision": "new" if updated == 3 else "old", "updateRevision": "new"}
    return with_status(one("rke2", "StatefulSet", "iot-ingest"), status, {"replicas": 3})


def test_a_statefulset_that_never_gets_ready_is_never_degraded(health: Health) -> None:
    states = [daemons(0, 0), daemons(2, 1), daemons(3, 2), daemons(0, 3), daemons(3, 3)]
    assert health(*states) == ["Progressing", "Progressing", "Progressing", "Progressing", "Healthy"]


def deployment(ready: int, *conditions: Object) -> Object:
    """The code server with so many pods of two."""
    status = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": ready, "availableReplicas": ready}
    return with_status(one("rke2", "Deployment", "dagster-code"), status | {"conditions": [*conditions]})


def test_a_deployment_is_degraded_only_after_its_deadline(health: Health) -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    states = [deployment(1), deployment(0, refused), deployment(0, refused, late), deployment(2)]
    assert health(*states) == ["Progressing", "Progressing", "Degraded", "Healthy"]


def test_a_migration_that_fails_fails_the_sync(health: Health) -> None:
    job = one("rke2", "Job", "iot-migrate")
    ended = [with_status(job, {"conditions": [{"type": kind, "status": "True"}]}) for kind in ("Failed", "Complete", "Suspended")]
    assert health(with_status(job, {"active": 1}), *ended) == ["Progressing", "Degraded", "Healthy", "Suspended"]


def autoscaler(reason: str | None) -> Object:
    """With the controller's conditions; `reason`: why it has no figure."""
    active = {"type": "ScalingActive", "status": "False" if reason else "True", "reason": reason or "ValidMetricFound"}
    able = {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale"}
    return with_status(one("rke2", "HorizontalPodAutoscaler", "iot-ingest"), {"currentReplicas": 3, "conditions": [able, active]})


def test_an_autoscaler_without_a_metric_fails_the_sync(health: Health) -> None:
    """Not the daemons: their number stays (docs/kubernetes.md)."""
    states = map(autoscaler, ("FailedGetResourceMetric", "FailedGetPodsMetric", None))
    assert health(*states) == ["Degraded", "Degraded", "Healthy"]


def test_the_platform_waits_for_the_adapter_that_its_autoscaler_needs(health: Health) -> None:
    """By the Application of a wave before."""
    file = CHECKOUT / "deploy/kubernetes/metrics-adapter/adapter.yaml"
    (service,) = [item for item in yaml.safe_load_all(file.read_text("utf-8")) if item["kind"] == "APIService"]
    there = [with_status(service, {"conditions": [{"type": "Available", "status": status}]}) for status in ("False", "True")]
    assert health(service, *there) == ["Progressing", "Progressing", "Healthy"]


def test_an_ingress_waits_for_its_address(health: Health) -> None:
    ingress = one("rke2", "Ingress", "metrics")
    states = [with_status(ingress, status) for status in ({"loadBalancer": {}}, {"loadBalancer": {"ingress": [{"ip": "192.168.1.102"}]}})]
    assert health(*states) == ["Progressing", "Healthy"]


def test_a_volume_that_waits_for_its_pod_holds_a_wave_up(health: Health) -> None:
    """WaitForFirstConsumer: so claims come from the StatefulSet, and not as objects in a wave of their own."""
    (template,) = one("rke2", "StatefulSet", "iot-ingest")["spec"]["volumeClaimTemplates"]
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **template}
    assert health(*(with_status(claim, {"phase": phase}) for phase in ("Pending", "Bound", "Lost"))) == [
        "Progressing",
        "Healthy",
        "Degraded",
    ]
    assert [item for item in objects("rke2") if item["kind"] == "PersistentVolumeClaim"] == []


def test_a_budget_that_allows_nothing_is_healthy(health: Health) -> None:
    budget = one("rke2", "PodDisruptionBudget", "iot-ingest")
    sufficient = {"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods"}
    assert health(with_status(budget, {"disruptionsAllowed": 0, "observedGeneration": 2, "conditions": [sufficient]})) == ["Healthy"]


def test_a_cron_job_that_never_succeeded_is_healthy(health: Health) -> None:
    """So deploy/ has none: what is due again and again is a schedule of Dagster's."""
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "backup"}, "spec": {"schedule": "7 3 * * *"}}
    tried, succeeded = "2026-11-29T03:07:00Z", "2026-11-28T03:08:00Z"
    states = [{}, {"lastScheduleTime": tried}, {"lastScheduleTime": tried, "lastSuccessfulTime": succeeded}]
    assert health(*(with_status(cron, status) for status in states)) == ["Healthy", "Healthy", "Degraded"]
    assert [item for item in objects("rke2") if item["kind"] == "CronJob"] == []


SYNCED: dict[str, Any] = {"health": {"status": "Healthy"}, "sync": {"status": "Synced"}, "operationState": {"phase": "Succeeded"}}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, "Progressing"),
        ({}, "Progressing"),
        (SYNCED, "Healthy"),
        ({**SYNCED, "health": {"status": "Degraded", "message": "a Job failed"}}, "Degraded"),
        ({**SYNCED, "health": {"status": "Progressing"}}, "Progressing"),
        ({**SYNCED, "sync": {"status": "OutOfSync"}}, "Progressing"),
        ({**SYNCED, "operationState": {"phase": "Running"}}, "Progressing"),
        ({**SYNCED, "sync": {"status": "OutOfSync"}, "operationState": {"phase": "Failed", "message": "refused"}}, "Degraded"),
    ],
)
def test_an_application_is_healthy_when_it_is_what_the_repository_says(health: Health, status: Object | None, expected: str) -> None:
    """By the Lua of our argocd-cm: ArgoCD has no check of its own for Applications."""
    application = yaml.safe_load(Path(CHECKOUT / "deploy/argocd/root.yaml").read_text("utf-8"))
    assert health(with_status(application, status)) == [expected]
