"""Prometheus, Alertmanager, `iot metrics` and a receiver beside a drill's servers: when which alert was told, and when its end was."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.local import probes
from iot_platform.local.errors import LocalStackError, NotReadyError
from iot_platform.local.monitoring import Monitoring, require_installed
from iot_platform.local.ports import LOOPBACK, free_ports

READY_SECONDS: Final = 60.0
METRICS: Final = "metrics"


def obstacle() -> str:
    """Why alerts cannot be watched here; "" where they can."""
    try:
        require_installed()
    except LocalStackError as error:
        return str(error)
    return ""


class AlertWatch:
    """What the receiver was told: by alert, time.monotonic() of the first notification, and of its end."""

    def __init__(self, run: DrillRun) -> None:
        self._run = run
        self.fired: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.expected: set[str] = set()

    def take(self, document: dict[str, list[dict[str, object]]]) -> None:
        """A notification of Alertmanager."""
        now = time.monotonic()
        for alert in document["alerts"]:
            labels = alert["labels"]
            name = str(labels["alertname"]) if isinstance(labels, dict) else ""
            if alert["status"] == "firing":
                self.fired.setdefault(name, now)
                self.ended.pop(name, None)
            else:
                self.ended[name] = now

    def expect(self, *names: str, since: float, seconds: float) -> None:
        """Wait until these have been told; notes how long after the fault each came."""
        self.expected.update(names)
        for name in names:
            self._run.await_true(f"the alert {name} arrives", partial(self.fired.__contains__, name), seconds, since=since)
            self._run.note(f"{name}: told after {self.fired[name] - since:.0f} s")

    def expect_end(self, *names: str, since: float, seconds: float) -> None:
        """Wait until their end has been told; notes how long after the recovery."""
        for name in names:
            self._run.await_true(f"the end of {name} arrives", partial(self.ended.__contains__, name), seconds, since=since)
            self._run.note(f"{name}: ended {max(0.0, self.ended[name] - since):.0f} s after the recovery")


@contextlib.contextmanager
def watching(run: DrillRun) -> Iterator[AlertWatch]:
    """With the rules of deploy/prometheus and their own intervals; every alert is a notification of its own, without a wait."""
    watch = AlertWatch(run)

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            watch.take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's signature
            """Quiet."""

    stack = run.stack
    prometheus, alertmanager, page = free_ports(3)
    with ThreadingHTTPServer((LOOPBACK, 0), Receiver) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        ingest = stack.ingest_url().removeprefix("http://")
        targets = {ingest: {"part": "ingest"}, f"{LOOPBACK}:{page}": {"part": "platform"}}
        hook = {"webhook_configs": [{"url": f"http://{LOOPBACK}:{server.server_address[1]}/", "send_resolved": True}]}
        waits = {"group_by": ["..."], "group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h"}
        monitoring = Monitoring(stack.folder / "monitoring", prometheus, alertmanager, targets, hook, waits)
        stack.add_program(METRICS, "-m", "iot_platform.cli.main", "metrics", IOT_METRICS_PORT=str(page))
        try:
            _await(run, f"http://{LOOPBACK}:{page}/healthz")
            for program, url in zip(monitoring.programs(), (monitoring.alertmanager_url, monitoring.prometheus_url), strict=True):
                stack.supervisor.apply(program)
                _await(run, f"{url}/-/ready")
            yield watch
        finally:
            for program in monitoring.programs():
                stack.supervisor.remove(program.name)
            stack.remove_program(METRICS)
            server.shutdown()
    run.check(set(watch.fired) <= watch.expected, f"alerts that nothing was wrong for: {sorted(set(watch.fired) - watch.expected)}")


def _await(run: DrillRun, url: str) -> None:
    run.await_true(f"{url} answers", partial(_answers, url), READY_SECONDS)


def _answers(url: str) -> bool:
    try:
        probes.http(url)
    except NotReadyError:
        return False
    return True
