"""From the daemons' pages to the autoscaler's decision: a real Prometheus by deploy/compose's configuration, the real adapter by
deploy/kubernetes/metrics-adapter with its own rights, the real API server and controller. Only the pages' figures are the test's."""

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.local.program import Program
from iot_platform_tests.kubernetes.test_kubernetes_autoscaling import AUTOSCALER, decided, status
from iot_platform_tests.support.deploy import tools
from iot_platform_tests.support.kubernetes.cluster import Cluster, Start
from iot_platform_tests.support.kubernetes.manifests import FOLDER, ROOT, Object
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1800)]  # the first time it is built
SPACE = "monitoring"
DAEMONS = 3


class Pages:
    """What daemons show, reached as a proxy is: under the names that Prometheus asks. No daemon, no page."""

    in_flight = 10

    def __init__(self) -> None:
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host = self.headers["Host"].partition(".")[0]
                there = host in {f"ingest-{number}" for number in range(DAEMONS)}
                body = f"iot_ingest_messages_in_flight {pages.in_flight}\n".encode() if there else b""
                self.send_response(200 if there else 503)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's signature
                """Quiet."""

        self.server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def pages() -> Iterator[Pages]:
    made = Pages()
    yield made
    made.server.shutdown()
    made.server.server_close()


def prometheus(folder: Path, port: int, proxy: str) -> Program:
    """With the job of the cluster alone, its names asked by the proxy."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("not run: there is no prometheus here")
    config = yaml.safe_load((ROOT / "deploy/compose/prometheus/prometheus.yml").read_text("utf-8"))
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "iot-cluster"]
    shutil.copy(ROOT / "deploy/compose/prometheus/targets/cluster.example.yml", folder / "cluster.yml")
    job |= {"scheme": "http", "proxy_url": proxy, "file_sd_configs": [{"files": [str(folder / "cluster.yml")]}]}
    del job["tls_config"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}), "utf-8")
    options = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address={LOOPBACK}:{port}")
    return Program("prometheus", (program, *options), folder, stop_seconds=10)


def adapter(made: Cluster, binary: Path, objects: list[Object], folder: Path, ports: tuple[int, int]) -> Program:
    """The container's command with its account's rights, where this machine's files and ports are; `ports`: its own and Prometheus'."""
    port, prometheus_port = ports
    kubeconfig = made.control_plane.kubeconfig_of("metrics-adapter", SPACE)
    (deployment,) = [item for item in objects if item["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    here = {
        "http://192.168.1.100:9090": f"http://{LOOPBACK}:{prometheus_port}",
        "/etc/metrics-adapter": str(FOLDER / "metrics-adapter"),
        "--cert-dir=/tmp": f"--cert-dir={folder}",
        "=6443": f"={port}",
        "=30s": "=2s",
    }
    arguments = list(container["args"])
    for old, new in here.items():
        assert any(old in argument for argument in arguments), old
        arguments = [argument.replace(old, new) for argument in arguments]
    own = [f"--{which}-kubeconfig={kubeconfig}" for which in ("lister", "authentication", "authorization")]
    return Program("metrics-adapter", (str(binary), *arguments, *own), folder, stop_seconds=10)


def test_the_autoscaler_follows_what_prometheus_has_of_the_daemons(cluster: Start, pages: Pages, tmp_path: Path) -> None:
    binary = tools.installed(tools.metrics_adapter, tmp_path / "install.log")
    made = cluster("rke2")
    made.await_ready()
    plane = made.control_plane
    said, warned = plane.kubectl_both("apply", "--server-side", "-k", str(FOLDER / "metrics-adapter"))
    assert (len(said.splitlines()), warned) == (11, "")
    objects = list(yaml.safe_load_all(plane.kubectl("kustomize", str(FOLDER / "metrics-adapter"))))
    ports = free_ports(2)
    proxy = f"http://{LOOPBACK}:{pages.server.server_port}"
    service = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta2.custom.metrics.k8s.io"
    try:
        # Restricted Pod Security admits its pod, and the scheduler finds room beside the platform.
        placed: Any = lambda: [p for p in made.api.items(f"/api/v1/namespaces/{SPACE}/pods") if p["spec"].get("nodeName")]  # noqa: E731
        eventually(placed, 60, "the adapter's pod has no place")
        # The aggregator reaches a process of this machine where it would reach a pod.
        services = f"/api/v1/namespaces/{SPACE}/services"
        made.api.delete(f"{services}/metrics-adapter")
        made.api.post(services, {"metadata": {"name": "metrics-adapter"}, "spec": {"type": "ExternalName", "externalName": "localhost"}})
        made.api.patch(service, {"spec": {"service": {"port": ports[0]}}})
        plane.supervisor.apply(prometheus(tmp_path, ports[1], proxy))
        plane.supervisor.apply(adapter(made, binary, objects, tmp_path, (ports[0], ports[1])))
        made.api.patch(AUTOSCALER, {"spec": {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 0}}}})
        pages.in_flight = 9000
        log = plane.supervisor.log_file("metrics-adapter")
        eventually(lambda: status(made)["desiredReplicas"] == 4, 120, lambda: f"{status(made)}\n{log.read_text()[-3000:]}", pause=0.5)
        (current,) = [item["pods"] for item in status(made)["currentMetrics"] if item["type"] == "Pods"]
        assert current["metric"]["name"] == "iot_ingest_messages_in_flight"
        # Prometheus gone: the figure is missing, and the number stays.
        plane.stop("prometheus")
        decided(made, 4, "False")
    finally:
        # First: while an API is announced that nobody answers, no namespace goes.
        made.api.delete(service)
        for name in ("metrics-adapter", "prometheus"):
            plane.supervisor.stop(name)
            plane.supervisor.remove(name)
        plane.kubectl("delete", "-k", str(FOLDER / "metrics-adapter"), "--ignore-not-found")
