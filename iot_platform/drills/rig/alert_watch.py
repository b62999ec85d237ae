"""Prometheus, Alertmanager, `iot metrics` and a receiver beside a drill's servers: which alert was told when, which of them nothing was
wrong for, and when each end was told."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import yaml

from iot_platform import ingest_pages
from iot_platform.drills.alert_plan import LIVE, Live, of_drill
from iot_platform.drills.rig.drill_run import DrillError, DrillRun
from iot_platform.drills.rig.paced_rules import paced_groups
from iot_platform.local import probes
from iot_platform.local.errors import LocalStackError, NotReadyError
from iot_platform.local.monitoring import RULES, Monitoring, require_installed
from iot_platform.local.ports import LOOPBACK, free_ports

READY_SECONDS: Final = 60.0
TOLD_SECONDS: Final = 420.0
ENDED_SECONDS: Final = 600.0
TENANT_LATE_SECONDS: Final = 60.0
"""Messages that waited so long are late for TenantLate, however fast they are drained then."""
COMMITS_SECONDS: Final = 330.0
"""`iot metrics` looks at the commits of the last five minutes."""
METRICS: Final = "metrics"
PACED: Final = "divided_by"
PACED_SCRAPE_SECONDS: Final = 1
REFUSING: Final = "/refusing"
"""A second receiver, which a drill can make refuse."""


def obstacle() -> str:
    """Why alerts cannot be watched here; "" where they can."""
    try:
        require_installed()
    except LocalStackError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Notice:
    """One alert in one notification. `divided_by`: the pace of its rule; `labels`: all that tell it from others."""

    at: float
    alert: str
    divided_by: float
    labels: frozenset[tuple[str, str]]
    fires: bool


@dataclass
class Fault:
    """A fault, the alerts that must tell of it, and those that may: name → why."""

    what: str
    alerts: frozenset[str]
    excused: Mapping[str, str]
    began: float
    recovered: float | None = None
    closed: bool = False
    ended: dict[str, float | None] = field(default_factory=dict)
    """When each alert's end was told, once that was awaited."""

    def recover(self) -> None:
        """Its cause is undone, although its block goes on."""
        self.recovered = time.monotonic()


class AlertWatch:
    """What the receiver was told, and by which faults it is explained."""

    def __init__(self, run: DrillRun) -> None:
        self._run = run
        self.plan = of_drill(run.name)
        self._began = time.monotonic()
        self._notices: list[Notice] = []
        self._faults: list[Fault] = []
        self.unexplained: list[Notice] = []
        self.refusing = False
        """Whether the second receiver answers 500."""
        self.exporter_port = 0

    def take(self, document: Mapping[str, Any]) -> None:
        """A notification of Alertmanager. One that nothing explains at this moment is a false alarm."""
        now = time.monotonic()
        for alert in document["alerts"]:
            labels = dict(alert["labels"])
            name, factor = labels["alertname"], float(labels.get(PACED, 1))
            notice = Notice(now, name, factor, frozenset(labels.items()), alert["status"] == "firing")
            if notice.fires and not self._active(notice) and not self._explained(name):
                self.unexplained.append(notice)
            self._notices.append(notice)

    def _active(self, notice: Notice) -> bool:
        """Whether this very alert was told already and has not ended."""
        return next((other.fires for other in self._notices[::-1] if other.labels == notice.labels), False)

    def _explained(self, name: str) -> bool:
        return any(name in fault.alerts or name in fault.excused for fault in self._faults if not fault.closed)

    def start_exporter(self, **variables: str) -> None:
        """`iot metrics`, with these variables (IOT_…); anew where it runs already."""
        if self._run.stack.pids().get(METRICS):
            self._run.stack.remove_program(METRICS)
        port = {"IOT_METRICS_PORT": str(self.exporter_port)}
        self._run.stack.add_program(METRICS, "-m", "iot_platform.cli.main", "metrics", **port, **variables)
        _await(self._run, f"http://{LOOPBACK}:{self.exporter_port}/healthz")

    def nothing_late(self) -> bool:
        """Whether no tenant's newest commits had waited, as TenantLate tells it. What a drill left behind is not the next one's fault."""
        page = ingest_pages.samples(f"http://{LOOPBACK}:{self.exporter_port}")
        return all(value < TENANT_LATE_SECONDS for name, value in page if name == "iot_tenant_freshness_seconds")

    # -- faults ------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def fault(self, what: str, *alerts: str, excused: Mapping[str, str] | None = None) -> Iterator[Fault]:
        """A fault for the length of the block, which these alerts must tell of. `excused`: alerts that may come with it → why."""
        if unknown := {alert for alert in alerts if alert not in self.plan and LIVE[alert].divided_by != 1}:
            raise DrillError(f"alert_plan.py does not give these alerts to {self._run.name}: {sorted(unknown)}")
        with self._run.fault(what) as made:
            fault = Fault(what, frozenset(alerts), dict(excused or {}), made.began)
            self._faults.append(fault)
            try:
                yield fault
            finally:
                fault.recovered = fault.recovered or time.monotonic()

    def await_told(self, *faults: Fault, seconds: float = TOLD_SECONDS) -> None:
        """Until the alerts of these faults have arrived; notes how long after the fault each came."""
        self._await("arrives", seconds, faults, self._told_at)

    def await_ended(self, *faults: Fault, seconds: float = ENDED_SECONDS) -> None:
        """Until the ends of these faults' alerts have arrived, after which nothing explains them any more. All faults unless given."""
        several = faults or tuple(fault for fault in self._faults if not fault.closed)
        self._await("ends", seconds, several, self._ended_at)
        for fault in several:
            fault.closed, fault.ended = True, {alert: self._ended_at(fault, alert) for alert in fault.alerts}

    def _await(self, what: str, seconds: float, faults: tuple[Fault, ...], at: Callable[[Fault, str], float | None]) -> None:
        deadline = time.monotonic() + seconds
        while missing := [(fault, alert) for fault in faults for alert in sorted(fault.alerts) if at(fault, alert) is None]:
            names = ", ".join(alert for _, alert in missing)
            if time.monotonic() > deadline:
                raise DrillError(f"not within {seconds:.0f} s {what}: {names}")
            self._run.show(f"until it {what}: {names} (another {deadline - time.monotonic():.0f} s)")
            time.sleep(0.5)

    def _told_at(self, fault: Fault, alert: str) -> float | None:
        """When the first notification of it at its pace came."""
        factor = LIVE[alert].divided_by
        times = (n.at for n in self._notices if (n.alert, n.divided_by) == (alert, factor) and n.fires and n.at >= fault.began)
        return next(times, None)

    def _ended_at(self, fault: Fault, alert: str) -> float | None:
        """When the last of its kind was told to have ended; None while one fires."""
        factor, firing, at = LIVE[alert].divided_by, set[frozenset[tuple[str, str]]](), None
        for notice in list(self._notices):
            if (notice.alert, notice.divided_by) == (alert, factor):
                (firing.add if notice.fires else firing.discard)(notice.labels)
                if notice.at >= fault.began:
                    at = notice.at
        return None if firing or self._told_at(fault, alert) is None else at

    # -- afterwards --------------------------------------------------------------------------------------------
    def conclude(self) -> None:
        """Put what was seen into the outcome; whatever the plan wants and did not come fails the drill, and so does a false alarm."""
        seen: set[str] = set()
        for fault in self._faults:
            for alert in sorted(fault.alerts):
                told, ended = self._told_at(fault, alert), fault.ended.get(alert)
                if told is None:
                    continue
                seen.add(alert)
                after = None if ended is None or fault.recovered is None else max(0.0, ended - fault.recovered)
                self._run.sightings.append(asdict(Sighting(alert, fault.what, LIVE[alert].divided_by, told - fault.began, after)))
                self._run.check(ended is not None, f"{alert} has not ended")
        missing = sorted(self.plan.keys() - seen)
        self._run.check(not missing, f"alerts that did not arrive: {missing}")
        excused = {alert: why for fault in self._faults for alert, why in fault.excused.items()}
        for alert in sorted({notice.alert for notice in self._notices if notice.fires} & excused.keys()):
            self._run.note(f"{alert} came along, as it may: {excused[alert]}")
        self._run.note(f"false alarms: {len(self.unexplained)}")
        shown = [
            f"{n.alert} after {n.at - self._began:.0f} s ({', '.join(f'{k}={v}' for k, v in sorted(n.labels) if k != 'alertname')})"
            for n in self.unexplained
        ]
        self._run.check(not shown, f"false alarms: {'; '.join(shown)}")


@dataclass(frozen=True)
class Sighting:
    """An alert that was told `told_seconds` after its fault began, and ended `ended_seconds` after the recovery (None: not yet)."""

    alert: str
    fault: str
    divided_by: float
    told_seconds: float
    ended_seconds: float | None


@contextlib.contextmanager
def watching(run: DrillRun, **exporter: str) -> Iterator[AlertWatch]:
    """Two Prometheus: one with the rules of deploy/prometheus and their own intervals, one with those that the plan wants at another pace.
    Every alert is a notification of its own, without a wait. `exporter`: variables of `iot metrics` (IOT_…)."""
    watch = AlertWatch(run)
    stack = run.stack
    prometheus, paced, alertmanager, watch.exporter_port = free_ports(4)
    with _receiver(watch) as receiver:
        targets = {f"{LOOPBACK}:{watch.exporter_port}": {"part": "platform"}}
        targets |= {stack.ingest_url(name).removeprefix("http://"): {"part": "ingest"} for name in stack.ingests}
        hooks = [{"url": f"{receiver}{path}", "send_resolved": True} for path in ("/", REFUSING)]
        waits = {"group_by": ["..."], "group_wait": "1s", "group_interval": "1s", "repeat_interval": "4h"}
        folder = stack.folder / f"monitoring-{run.name}"
        real = Monitoring(folder, prometheus, alertmanager, targets, {"webhook_configs": hooks}, waits)
        fast = Monitoring(
            folder / "paced", paced, alertmanager, targets, {}, {}, PACED_SCRAPE_SECONDS, _paced_rules(folder / "rules", watch.plan)
        )
        programs = (
            (real.alertmanager(), real.alertmanager_url),
            (real.prometheus(), real.prometheus_url),
            (fast.prometheus("prometheus-paced"), fast.prometheus_url),
        )
        try:
            watch.start_exporter(**exporter)
            run.await_true("no tenant's messages of the drill before count as late any more", watch.nothing_late, COMMITS_SECONDS)
            for program, url in programs:
                stack.supervisor.apply(program)
                _await(run, f"{url}/-/ready")
            yield watch
        finally:
            watch.conclude()
            for program, _ in programs:
                stack.supervisor.remove(program.name)
            if METRICS in stack.pids():
                stack.remove_program(METRICS)


@contextlib.contextmanager
def _receiver(watch: AlertWatch) -> Iterator[str]:
    """Its URL."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            second = self.path == REFUSING
            if not second:
                watch.take(json.loads(body))
            self.send_response(500 if second and watch.refusing else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's signature
            """Quiet."""

    with ThreadingHTTPServer((LOOPBACK, 0), Receiver) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        try:
            yield f"http://{LOOPBACK}:{server.server_address[1]}"
        finally:
            server.shutdown()


def _paced_rules(folder: Path, plan: Mapping[str, Live]) -> Path:
    """The rules that the plan wants at another pace, as files."""
    folder.mkdir(parents=True, exist_ok=True)
    factors = {alert: live.divided_by for alert, live in plan.items() if live.divided_by != 1}
    ages = frozenset(alert for alert, live in plan.items() if live.ages)
    for file in sorted(RULES.glob("*.yaml")):
        groups = paced_groups(yaml.safe_load(file.read_text("utf-8"))["groups"], factors, ages, PACED)
        (folder / file.name).write_text(yaml.safe_dump({"groups": groups}, allow_unicode=True, sort_keys=False), "utf-8")
    return folder


def _await(run: DrillRun, url: str) -> None:
    run.await_true(f"{url} answers", partial(_answers, url), READY_SECONDS)


def _answers(url: str) -> bool:
    try:
        probes.http(url)
    except NotReadyError:
        return False
    return True
