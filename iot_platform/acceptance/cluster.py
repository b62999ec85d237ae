"""The cluster, asked through its API server: nodes, pods, runs, ArgoCD's Applications, autoscalers. Read only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from iot_platform.acceptance.check import FailedError, NotCheckedError
from iot_platform.acceptance.http import wanted
from iot_platform.settings import Settings

TIMEOUT_SECONDS: Final = 10
PRESSURES: Final = ("MemoryPressure", "DiskPressure", "PIDPressure")
WORKLOADS: Final = ("dagster-code", "dagster-daemon", "dagster-webserver", "iot-ingest", "iot-metrics")
"""Without these there is no platform; an overlay may have more."""
EXTRA: Final = "install the extra: pip install 'iot-platform[kubernetes]'"


def nodes_are_ready(settings: Settings) -> str:
    """As many as the plan has, all Ready and open to pods, none under pressure."""
    with _api(settings) as api:
        nodes = api.core.list_node(_request_timeout=TIMEOUT_SECONDS).items
    bad = []
    for node in nodes:
        conditions = {item.type: item.status for item in node.status.conditions or ()}
        if conditions.get("Ready") != "True":
            bad.append(f"{node.metadata.name} is not Ready")
        if node.spec.unschedulable:
            bad.append(f"{node.metadata.name} takes no pods (kubectl uncordon)")
        bad += [f"{node.metadata.name} has {name}" for name in PRESSURES if conditions.get(name) == "True"]
    if len(nodes) < settings.kubernetes_nodes:
        bad.append(f"{len(nodes)} nodes, wanted {settings.kubernetes_nodes}")
    if bad:
        raise FailedError("; ".join(bad), "kubectl describe node; docs/nodes.md")
    return ", ".join(f"{node.metadata.name} {node.status.node_info.kubelet_version}" for node in nodes)


def workloads_are_ready(settings: Settings) -> str:
    """Every Deployment and StatefulSet of the platform has all of its replicas, of its newest version."""
    space = settings.kubernetes_namespace
    with _api(settings) as api:
        found = [*api.apps.list_namespaced_deployment(space, _request_timeout=TIMEOUT_SECONDS).items]
        found += api.apps.list_namespaced_stateful_set(space, _request_timeout=TIMEOUT_SECONDS).items
        events = api.core.list_namespaced_event(space, field_selector="type=Warning", _request_timeout=TIMEOUT_SECONDS).items
    if not found:
        raise FailedError(
            f"there is nothing in namespace {space}", "apply an overlay of deploy/kubernetes, or set IOT_KUBERNETES_NAMESPACE"
        )
    names = {item.metadata.name for item in found}
    bad = [f"{name} is not there" for name in WORKLOADS if name not in names]
    bad += [f"{item.metadata.name} is scaled to nothing" for item in found if item.spec.replicas == 0]
    for item in found:
        want, status = item.spec.replicas or 0, item.status
        pods = {status.ready_replicas or 0, status.updated_replicas or 0, status.replicas or 0}
        if status.observed_generation != item.metadata.generation or pods != {want}:
            reasons = {event.message for event in events if event.involved_object.name.startswith(item.metadata.name)}
            why = f" ({min(reasons)[:200]})" if reasons else ""
            bad.append(f"{item.metadata.name}: {status.ready_replicas or 0} of {want} ready, {status.updated_replicas or 0} new{why}")
    if bad:
        raise FailedError("; ".join(bad), f"kubectl -n {space} describe pods; kubectl -n {space} get events")
    return f"{len(found)} workloads, {sum(item.spec.replicas or 0 for item in found)} pods"


def images_come_from_harbor(settings: Settings) -> str:
    """Nothing in the platform's namespace was pulled from anywhere else."""
    prefix = f"{urlsplit(wanted(settings.harbor_url, 'IOT_HARBOR_URL')).netloc}/"
    with _api(settings) as api:
        pods = api.core.list_namespaced_pod(settings.kubernetes_namespace, _request_timeout=TIMEOUT_SECONDS).items
    images = {container.image for pod in pods for container in (*pod.spec.containers, *(pod.spec.init_containers or ()))}
    if not images:
        raise FailedError(f"no pod in namespace {settings.kubernetes_namespace}", "apply an overlay of deploy/kubernetes")
    if other := sorted(image for image in images if not image.startswith(prefix)):
        raise FailedError(f"not from {prefix}: {', '.join(other)}", "set the overlay's images")
    return f"{len(images)} images from {prefix}"


def pods_reach_servers(settings: Settings) -> str:
    """Each ingest pod says that messages flow to Kafka; the migration, which needs the database, is complete."""
    space = settings.kubernetes_namespace
    with _api(settings) as api:
        pods = api.core.list_namespaced_pod(
            space, label_selector="app.kubernetes.io/name=iot-ingest", _request_timeout=TIMEOUT_SECONDS
        ).items
        jobs = api.batch.list_namespaced_job(
            space, label_selector="app.kubernetes.io/name=iot-migrate", _request_timeout=TIMEOUT_SECONDS
        ).items
    if not pods:
        raise FailedError(f"there is no ingest pod in namespace {space}", "apply an overlay of deploy/kubernetes")
    deaf = [pod.metadata.name for pod in pods if not _is_ready(pod)]
    if deaf:
        raise FailedError(f"not ready: {', '.join(deaf)}", f"kubectl -n {space} exec {deaf[0]} … or its /readyz says what keeps messages")
    jobs.sort(key=lambda job: job.metadata.creation_timestamp)
    if jobs and not jobs[-1].status.succeeded:
        raise FailedError("the migration has not succeeded", f"kubectl -n {space} logs job/{jobs[-1].metadata.name}")
    if not jobs:  # it goes a day after it ended; the check of the schema says the same
        return f"{len(pods)} ingest pods are ready"
    return f"{len(pods)} ingest pods are ready, the migration is complete"


def argocd_is_synced(settings: Settings) -> str:
    """Every Application is Synced and Healthy."""
    with _api(settings) as api:
        try:
            found = api.custom.list_cluster_custom_object("argoproj.io", "v1alpha1", "applications", _request_timeout=TIMEOUT_SECONDS)
        except api.error as error:
            if error.status == 404:
                raise FailedError("the cluster knows no Application", "install ArgoCD (docs/nodes.md)") from error
            raise
    apps: list[dict[str, Any]] = found["items"]
    if not apps:
        raise FailedError("ArgoCD has no Application", "apply deploy/argocd")
    bad = []
    for app in apps:
        status = app.get("status", {})
        sync, health = status.get("sync", {}).get("status", "Unknown"), status.get("health", {}).get("status", "Unknown")
        if (sync, health) != ("Synced", "Healthy"):
            bad.append(f"{app['metadata']['name']}: {sync}, {health}")
    if bad:
        raise FailedError("; ".join(bad), "argocd app get NAME says what differs")
    return f"{len(apps)} Applications are synced and healthy"


def autoscaler_reacts(settings: Settings) -> str:
    """Every autoscaler of the platform has its metrics, and has scaled at least once."""
    with _api(settings) as api:
        found = api.autoscaling.list_namespaced_horizontal_pod_autoscaler(
            settings.kubernetes_namespace, _request_timeout=TIMEOUT_SECONDS
        ).items
    if not found:
        raise FailedError("there is no HorizontalPodAutoscaler", "the overlay needs the component autoscaling")
    for item in found:
        conditions = {entry.type: entry for entry in item.status.conditions or ()}
        active = conditions.get("ScalingActive")
        if active is None or active.status != "True":
            why = active.message if active else "the controller has not looked at it yet"
            raise FailedError(f"{item.metadata.name} has no metrics: {why}", "install metrics-server, or the adapter of the lag metric")
        if item.status.last_scale_time is None:
            raise FailedError(f"{item.metadata.name} never scaled", "put load on it: iot simulate --rate 1000 for ten minutes")
    return ", ".join(f"{item.metadata.name}: {item.status.current_replicas}, last at {item.status.last_scale_time}" for item in found)


class _Api:
    def __init__(self, client: Any) -> None:
        from kubernetes.client import (
            AppsV1Api,
            AutoscalingV2Api,
            BatchV1Api,
            CoreV1Api,
            CustomObjectsApi,
        )
        from kubernetes.client.exceptions import ApiException

        self.core, self.apps, self.batch = CoreV1Api(client), AppsV1Api(client), BatchV1Api(client)
        self.autoscaling, self.custom, self.error = AutoscalingV2Api(client), CustomObjectsApi(client), ApiException


@contextmanager
def _api(settings: Settings) -> Iterator[Any]:
    """KUBECONFIG, ~/.kube/config, or the pod's own service account.

    Raises:
        NotCheckedError: no client, or no cluster is configured.
        FailedError: the API server does not answer, or refuses.
    """
    try:
        from kubernetes import client, config
        from kubernetes.client.exceptions import ApiException
        from urllib3 import Retry
        from urllib3.exceptions import HTTPError
    except ImportError as error:
        raise NotCheckedError("there is no Kubernetes client here", EXTRA) from error
    configuration = client.Configuration()
    file = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())  # the client itself looks once, when it is imported
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and not Path(file).exists():
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(file, client_configuration=configuration)
    except (config.ConfigException, OSError, ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError) as error:
        raise NotCheckedError(f"no cluster is configured ({error})", "set KUBECONFIG") from error
    configuration.retries = Retry(0)  # not False: the client then stumbles over a certificate that it does not trust
    with client.ApiClient(configuration) as connection:
        try:
            yield _Api(connection)
        except ApiException as error:
            raise FailedError(
                f"{configuration.host} answers {error.status} {error.reason}", "these checks need the right to list"
            ) from error
        except HTTPError as error:
            raise FailedError(f"{configuration.host} does not answer: {error}", "correct KUBECONFIG; is the server node up?") from error


def _is_ready(pod: Any) -> bool:
    return any(item.type == "Ready" and item.status == "True" for item in pod.status.conditions or ())
