"""metrics.k8s.io and custom.metrics.k8s.io, with the figures that a test wants, or without."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from iot_platform.local.ports import LOOPBACK
from iot_platform_tests.support.kubernetes.api import Api, Object
from iot_platform_tests.support.kubernetes.manifests import NAMESPACE
from iot_platform_tests.support.servers.certificates import Authority
from iot_platform_tests.support.waiting import eventually

RESOURCE = "/apis/metrics.k8s.io/v1beta1"
CUSTOM = "/apis/custom.metrics.k8s.io/v1beta2"
_SERVICES = "/api/v1/namespaces/kube-system/services"
_APISERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"


class MetricsApi:
    """`cpu`: of each pod in millicores; `in_flight`: its messages; None: the API does not know it."""

    cpu: int | None = None
    in_flight: int | None = None

    def __init__(self, api: Api) -> None:
        self._api = api

    def answer(self, path: str) -> Object | None:
        """The body for a path, None for 404."""
        if path == RESOURCE:
            return _resources("metrics.k8s.io/v1beta1", "pods", "PodMetrics")
        if path == CUSTOM:
            return _resources("custom.metrics.k8s.io/v1beta2", "pods/iot_ingest_messages_in_flight", "MetricValueList")
        names = [pod["metadata"]["name"] for pod in self._api.items(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=_INGEST)]
        if path.startswith(RESOURCE) and self.cpu is not None:
            return {"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "items": [self._usage(name) for name in names]}
        if path.startswith(CUSTOM) and self.in_flight is not None:
            items = [self._in_flight(name) for name in names]
            return {"kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "items": items}
        return None

    def _usage(self, name: str) -> Object:
        usage = {"cpu": f"{self.cpu}m", "memory": "100Mi"}
        containers = [{"name": "iot-ingest", "usage": usage}]
        return {"metadata": {"name": name, "namespace": NAMESPACE}, "timestamp": _now(), "window": "30s", "containers": containers}

    def _in_flight(self, name: str) -> Object:
        pod = {"kind": "Pod", "namespace": NAMESPACE, "name": name, "apiVersion": "/v1"}
        metric = {"name": "iot_ingest_messages_in_flight"}
        return {"describedObject": pod, "metric": metric, "timestamp": _now(), "value": str(self.in_flight)}


_INGEST = "app.kubernetes.io/name=iot-ingest"


def _resources(version: str, name: str, kind: str) -> Object:
    resource = {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [resource]}


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


@contextmanager
def metrics_api(api: Api, folder: Path) -> Iterator[MetricsApi]:
    """Served and registered with the API server while the block runs; it knows no figure at first."""
    made = MetricsApi(api)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = made.answer(self.path.partition("?")[0])
            body = json.dumps(found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's signature
            """Quiet."""

    pair = Authority(folder / "metrics-ca").issue(folder, "metrics")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = []
    try:
        # No kube-proxy is needed: the aggregator resolves an ExternalName itself.
        api.post(_SERVICES, {"metadata": {"name": "metrics"}, "spec": {"type": "ExternalName", "externalName": "localhost"}})
        for group, version in (("metrics.k8s.io", "v1beta1"), ("custom.metrics.k8s.io", "v1beta2")):
            service = {"name": "metrics", "namespace": "kube-system", "port": server.server_port}
            priorities = {"groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": True}
            names.append(f"{version}.{group}")
            spec = {"group": group, "version": version, "service": service, **priorities}
            api.post(_APISERVICES, {"metadata": {"name": names[-1]}, "spec": spec})
        eventually(lambda: all(_available(api, name) for name in names), 60, "the metrics APIs are not available", pause=0.2)
        yield made
    finally:
        for name in names:
            api.delete(f"{_APISERVICES}/{name}")
        api.delete(f"{_SERVICES}/metrics")
        server.shutdown()
        server.server_close()


def _available(api: Api, name: str) -> bool:
    conditions = api.get(f"{_APISERVICES}/{name}").get("status", {}).get("conditions", [])
    return any(item["type"] == "Available" and item["status"] == "True" for item in conditions)
