"""The Job that dagster-k8s makes of a run by our dagster.yaml."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml
from dagster import DagsterRun
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from dagster_k8s.launcher import K8sRunLauncher
from kubernetes.client import ApiClient

from iot_platform_tests.support.kubernetes.manifests import Object, instance, one, templates

NOBODY = {
    "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "users": [{"name": "none", "user": {}}],
    "current-context": "none",
}
"""A kubeconfig that leads nowhere."""


def launcher_config(overlay: str, kubeconfig: Path) -> Object:
    """The launcher's part of dagster.yaml as it is in the overlay's cluster, but for who asks the API: not a pod, but whom the kubeconfig
    names."""
    config = dict(instance(overlay)["run_launcher"]["config"])
    settings = [one(overlay, "ConfigMap", name)["metadata"]["name"] for name in ("iot-settings", "iot-platform-settings")]
    return config | {"env_config_maps": settings, "load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}


def run_job(overlay: str, tags: Mapping[str, str] | None = None) -> Object:
    """The Job of a run with these tags, as it would be sent to the API. No cluster is asked."""
    with NamedTemporaryFile("w", encoding="utf-8") as kubeconfig:
        yaml.safe_dump(NOBODY, kubeconfig)
        kubeconfig.flush()
        launcher = K8sRunLauncher(**launcher_config(overlay, Path(kubeconfig.name)))
    run = DagsterRun(job_name="drain", tags=dict(tags or {}))
    context = K8sContainerContext.create_for_run(run, launcher, include_run_tags=True)
    image = templates(overlay)["dagster-code"]["spec"]["containers"][0]["image"]
    job: Any = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(job_image=image, run_launcher=launcher),
        args=["dagster", "api", "execute_run", "…"],
        job_name=f"dagster-run-{run.run_id}",
        component="run_worker",
        user_defined_k8s_config=context.run_k8s_config,
        labels={"dagster/job": "drain", "dagster/run-id": run.run_id},
    )
    return dict(ApiClient().sanitize_for_serialization(job))
