"""The part of a Kubernetes API that a launcher of runs uses, with state, for answers that a real API server does not give on demand."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]


class KubernetesJobs:
    """Jobs, pods and events of one namespace. `refuse` gives a status for a method and path, 0 for no answer at all, None to serve it."""

    def __init__(self, namespace: str) -> None:
        self.jobs: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.events: list[Object] = []
        self.refuse: Callable[[str, str], int | None] = lambda _method, _path: None
        self.closed = threading.Event()
        self.hung = threading.Event()
        fake, root = self, f"/namespaces/{namespace}/"

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                address = urlsplit(self.path)
                status = fake.refuse(self.command, address.path)
                if status == 0:
                    fake.hung.set()
                    fake.closed.wait()
                    return
                if status is None:
                    query = {key: value[0] for key, value in parse_qs(address.query).items()}
                    status, found = fake.serve(self.command, address.path.partition(root)[2], query, json.loads(body) if body else {})
                else:
                    found = {"kind": "Status", "code": status, "message": "not today"}
                content = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def pod(self, job: str, phase: str, **status: Any) -> None:
        """The Job's pod, in this state."""
        labels = {"job-name": job}
        self.pods[f"{job}-x"] = {"metadata": {"name": f"{job}-x", "labels": labels}, "status": {"phase": phase, **status}}

    def warn(self, name: str, reason: str, message: str) -> None:
        """An event about an object."""
        self.events.append(
            {
                "metadata": {"name": f"e{len(self.events)}"},
                "involvedObject": {"name": name},
                "type": "Warning",
                "reason": reason,
                "message": message,
            }
        )

    def serve(self, method: str, path: str, query: dict[str, str], given: Object) -> tuple[int, Object]:
        """Status and answer."""
        kind, _, name = path.partition("/")
        held = {"jobs": self.jobs, "pods": self.pods}.get(kind, {})
        if method == "POST":
            held[given["metadata"]["name"]] = given
            return 201, given
        if method == "DELETE":
            return (404, {}) if held.pop(name, None) is None else (200, {"kind": "Status"})
        wanted = dict(part.split("=") for part in (query.get("labelSelector") or query.get("fieldSelector") or "").split(",") if part)
        if kind == "events":
            return 200, {"items": [event for event in self.events if event["involvedObject"]["name"] == wanted["involvedObject.name"]]}
        found = [item for item in held.values() if wanted.items() <= item["metadata"]["labels"].items()]
        return 200, {"items": found}
