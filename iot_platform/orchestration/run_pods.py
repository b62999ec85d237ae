"""Dagster's launcher of runs as Kubernetes Jobs, which also says why a run's pod does not come; deploy/kubernetes names the class.

Dagster learns that the API refused the Job. That it refused the Job's *pod* (quota, Pod Security), that no node has room for it, or that it
ended before the run began, stands with the API only, and Dagster alone leaves such a run STARTING until the start timeout.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dagster import DagsterRun, DagsterRunStatus, RunsFilter
from dagster_k8s.client import DagsterKubernetesClient, PatchedApiClient
from dagster_k8s.job import get_job_name_from_run_id
from dagster_k8s.launcher import K8sRunLauncher
from kubernetes.client import BatchV1Api, CoreV1Api

from iot_platform.logs import get_logger
from iot_platform.orchestration.dagster_private import LaunchRunContext

log = get_logger("run-pods")

LOOK_SECONDS = 3.0
"""Between two looks at the runs that were launched and have not begun."""
GIVE_UP_SECONDS = 600.0
"""Beyond every start timeout: Dagster has ended the run by then."""
REQUEST_SECONDS = 10.0
_REFUSED = "FailedCreate"
_FOR_GOOD = (" is forbidden: ", " is invalid: ", " denied the request")
"""In what the Job controller says of a refused pod. Other trouble (a conflict on the quota, a busy server) it gets over itself."""
_ENDED = ("BackoffLimitExceeded", "DeadlineExceeded")


@dataclass
class _Awaited:
    """A run that was launched: since when (monotonic), and what was said of it already."""

    since: float
    told: set[str] = field(default_factory=set)


class TimedClient(PatchedApiClient):
    """Requests that end: one without a limit waits for ever for a server that lost power, and with it the thread that sent it."""

    def request(self, method: str, url: str, **options: Any) -> Any:
        """See ApiClient."""
        options["_request_timeout"] = options.get("_request_timeout") or REQUEST_SECONDS
        return super().request(method, url, **options)


class RunPodLauncher(K8sRunLauncher):
    """A K8sRunLauncher (configured as that) that reports, within a few seconds, what keeps a run from beginning.

    A pod that the API refuses, or that ends too early, fails its run. A pod that waits (for room on a node, for its image) is told in the
    run's log and goes on waiting, until Dagster's start timeout. The Job of a run that failed without its pod goes: no worker comes when
    nobody waits for it, and none stands before the next run's in the line for a node.
    """

    def __init__(self, *arguments: Any, **configuration: Any) -> None:
        super().__init__(*arguments, **configuration)
        client = TimedClient()
        self._api_client = DagsterKubernetesClient.production_client(  # type: ignore[no-untyped-call]
            core_api_override=CoreV1Api(client), batch_api_override=BatchV1Api(client)
        )
        self._awaited: dict[str, _Awaited] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def launch_run(self, context: LaunchRunContext) -> None:
        """See K8sRunLauncher; does not wait for the pod."""
        super().launch_run(context)
        with self._lock:
            self._awaited[context.dagster_run.run_id] = _Awaited(time.monotonic())
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="run-pods", daemon=True)
                self._thread.start()

    # -- private ---------------------------------------------------------------------------------------------
    def _watch(self) -> None:
        """Until nobody is awaited any more."""
        self._take_over()
        while True:
            time.sleep(LOOK_SECONDS)
            with self._lock:
                looks = dict(self._awaited)
            for run_id, awaited in looks.items():
                done = time.monotonic() > awaited.since + GIVE_UP_SECONDS
                try:
                    done = self._look(run_id, awaited) or done
                except Exception as error:  # the API or the storage is away: looked at again
                    _note(run_id, error, awaited.told)
                with self._lock:
                    if done and self._awaited.get(run_id) is awaited:
                        del self._awaited[run_id]
            with self._lock:
                if not self._awaited:
                    self._thread = None
                    return

    def _take_over(self) -> None:
        """Runs that a process before this one launched, and which have not begun."""
        try:
            runs = self._instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTING]))
        except Exception as error:  # the storage is away; Dagster's start timeout remains
            _note("", error, set())
            return
        with self._lock:
            for run in runs:
                self._awaited.setdefault(run.run_id, _Awaited(time.monotonic()))

    def _look(self, run_id: str, awaited: _Awaited) -> bool:
        """Says what is new; whether the run needs no more looks."""
        record = self._instance.get_run_record_by_id(run_id)
        if record is None:
            return True
        run = record.dagster_run
        job: str = get_job_name_from_run_id(run_id)  # type: ignore[no-untyped-call]
        namespace = self.get_container_context_for_run(run).namespace or self.job_namespace
        never_began = run.is_finished and record.start_time is None
        if not never_began and run.status not in (DagsterRunStatus.STARTING, DagsterRunStatus.CANCELING):
            return True
        pods = self._api_client.get_pods_in_job(job, namespace)
        if run.status != DagsterRunStatus.STARTING:
            if run.is_finished and all(pod.status.phase == "Pending" for pod in pods):  # the start timeout; or none wanted to wait
                self._api_client.delete_job(job_name=job, namespace=namespace)
            return run.is_finished
        warnings = list(self._warnings(namespace, pods[0].metadata.name if pods else job))
        for text in (f"{reason}: {message}" for reason, message in warnings):
            if text not in awaited.told:
                self._instance.report_engine_event(text, run, cls=type(self))
                awaited.told.add(text)
        if pods:
            return self._fail(run, "The run's pod ended before the run began", _end_of(pods[0]))
        refused = next((message for reason, message in warnings if _is_final(reason, message)), None)
        if refused is None or self._api_client.get_pods_in_job(job, namespace):  # it came since
            return False
        self._api_client.delete_job(job_name=job, namespace=namespace)
        return self._fail(run, "Kubernetes refuses the run's pod", refused)

    def _fail(self, run: DagsterRun, what: str, why: str | None) -> bool:
        """Whether there is a reason to, and the run is failed."""
        if why is None:
            return False
        now = self._instance.get_run_by_id(run.run_id)
        if now is not None and now.status == DagsterRunStatus.STARTING:  # and no worker reported in the meantime
            self._instance.report_run_failed(run, f"{what}: {why}")
        return True

    def _warnings(self, namespace: str, name: str) -> Iterator[tuple[str, str]]:
        """Reason and text of what Kubernetes warns of an object."""
        selector = f"involvedObject.name={name},type=Warning"
        for event in self._api_client.core_api.list_namespaced_event(namespace=namespace, field_selector=selector).items:
            yield str(event.reason), str(event.message)


def _is_final(reason: str, message: str) -> bool:
    """Whether a Job of which this is said gets no pod any more, unless somebody changes something."""
    return reason in _ENDED or (reason == _REFUSED and any(words in message for words in _FOR_GOOD))


def _end_of(pod: Any) -> str | None:
    """How a pod failed (evicted, out of memory); None where it did not."""
    if pod.status.phase != "Failed":
        return None
    ended = [item.state.terminated for item in pod.status.container_statuses or () if item.state and item.state.terminated]
    said = [pod.status.reason, pod.status.message, *(f"{end.reason}, exit code {end.exit_code}" for end in ended)]
    return "; ".join(part for part in said if part) or "no reason given"


def _note(run_id: str, error: Exception, told: set[str]) -> None:
    problem = " ".join(str(error).splitlines()[:2])  # of an answer: its status and reason
    if problem not in told:  # an hour without the API is one line of a run, not one every look
        told.add(problem)
        log.warning("run_pod_not_seen", run_id=run_id, problem=problem)
