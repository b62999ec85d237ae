"""The checks of `iot acceptance` that ask a cluster, on a real API server: what they pass, and what they name."""

from pathlib import Path

import pytest

from iot_platform.acceptance import cluster as checks
from iot_platform.acceptance.check import FailedError, NotCheckedError
from iot_platform.settings import Settings
from iot_platform_tests.support.kubernetes.cluster import Start

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]


def test_a_cluster_is_what_the_plan_says(cluster: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(harbor_url="http://192.168.1.100:8080")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(NotCheckedError, match="no cluster is configured"):
        checks.nodes_are_ready(settings)

    made = cluster("rke2")
    monkeypatch.setenv("KUBECONFIG", str(made.control_plane.kubeconfig))
    made.await_ready()
    assert "worker-2" in checks.nodes_are_ready(settings)
    with pytest.raises(FailedError, match="3 nodes, wanted 4"):
        checks.nodes_are_ready(settings.model_copy(update={"kubernetes_nodes": 4}))
    made.control_plane.kubectl("cordon", "worker-2")
    with pytest.raises(FailedError, match="worker-2 takes no pods"):
        checks.nodes_are_ready(settings)
    made.control_plane.kubectl("uncordon", "worker-2")
    assert "workloads" in checks.workloads_are_ready(settings)
    assert checks.images_come_from_harbor(settings).endswith("from 192.168.1.100:8080/")
    assert "3 ingest pods are ready" in checks.pods_reach_servers(settings)
    with pytest.raises(FailedError, match="the cluster knows no Application"):
        checks.argocd_is_synced(settings)
    with pytest.raises(FailedError, match="iot-ingest has no metrics: "):
        checks.autoscaler_reacts(settings)

    with pytest.raises(FailedError, match="there is nothing in namespace other"):
        checks.workloads_are_ready(settings.model_copy(update={"kubernetes_namespace": "other"}))
    made.control_plane.kubectl("scale", "statefulset/dagster-daemon", "--replicas=0")
    with pytest.raises(FailedError, match="dagster-daemon is scaled to nothing"):
        checks.workloads_are_ready(settings)
    made.control_plane.kubectl("scale", "statefulset/dagster-daemon", "--replicas=1")
    made.control_plane.kubectl("delete", "deployment/iot-metrics")
    with pytest.raises(FailedError, match="iot-metrics is not there"):
        checks.workloads_are_ready(settings)
    made.control_plane.kubectl("set", "image", "deployment/grafana", "grafana=docker.io/grafana/grafana:11.6.0")
    made.await_ready(120)
    with pytest.raises(FailedError, match=r"not from 192.168.1.100:8080/: docker.io/grafana/grafana:11.6.0"):
        checks.images_come_from_harbor(settings)
    made.control_plane.kubectl("set", "resources", "deployment/dagster-webserver", "--requests=memory=64Gi", "--limits=memory=64Gi")
    with pytest.raises(FailedError, match="dagster-webserver: "):
        checks.workloads_are_ready(settings)
