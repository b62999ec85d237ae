"""Dagster's launcher of runs as Kubernetes Jobs, which also says why a run's pod does not come; deploy/kubernetes names the class.

Dagster learns that the API refused the Job. That it refused the Job's *pod* (quota, Pod Security), or that no node has room for it, stands
in events only, and Dagster alone leaves such a run STARTING until the start timeout.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dagster import DagsterRun, DagsterRunStatus
from dagster_k8s.job import get_job_name_from_run_id
from dagster_k8s.launcher import K8sRunLauncher

from iot_platform.logs import get_logger
from iot_platform.orchestration.dagster_private import LaunchRunContext

log = get_logger("run-pods")

LOOK_SECONDS = 3.0
"""Between two looks at the runs that were launched and have not begun."""
GIVE_UP_SECONDS = 600.0
"""Beyond every start timeout: Dagster has ended the run by then."""
_REFUSED = "FailedCreate"


@dataclass
class _Awaited:
    """A run that was launched: since when (monotonic), and what was said of it already."""

    since: float
    told: set[str] = field(default_factory=set)


class RunPodLauncher(K8sRunLauncher):
    """A K8sRunLauncher (configured as that) that reports, within a few seconds, what keeps a run from beginning.

    A pod that the API refuses fails its run, and its Job goes, so that no worker comes when nobody waits for it. A pod that waits (for room
    on a node, for its image) is told in the run's log and goes on waiting, until Dagster's start timeout.
    """

    def __init__(self, *arguments: Any, **configuration: Any) -> None:
        super().__init__(*arguments, **configuration)
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
        while True:
            time.sleep(LOOK_SECONDS)
            with self._lock:
                looks = dict(self._awaited)
            for run_id, awaited in looks.items():
                done = time.monotonic() > awaited.since + GIVE_UP_SECONDS
                try:
                    done = self._look(run_id, awaited) or done
                except Exception as error:  # the API or the storage is away: looked at again
                    log.warning("run_pod_not_seen", run_id=run_id, problem=str(error).split("\n", 1)[0])
                with self._lock:
                    if done:
                        del self._awaited[run_id]
            with self._lock:
                if not self._awaited:
                    self._thread = None
                    return

    def _look(self, run_id: str, awaited: _Awaited) -> bool:
        """Says what is new; whether the run needs no more looks."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.status != DagsterRunStatus.STARTING:
            return True
        job: str = get_job_name_from_run_id(run_id)  # type: ignore[no-untyped-call]
        namespace = self.get_container_context_for_run(run).namespace or self.job_namespace
        pods = self._api_client.get_pod_names_in_job(job, namespace)
        for reason, message in self._warnings(namespace, pods[0] if pods else job):
            if message not in awaited.told:
                awaited.told.add(message)
                self._instance.report_engine_event(f"{reason}: {message}", run, cls=type(self))
                if reason == _REFUSED and not pods:
                    self._refuse(run, job, namespace, message)
                    return True
        return False

    def _refuse(self, run: DagsterRun, job: str, namespace: str, message: str) -> None:
        self._api_client.delete_job(job_name=job, namespace=namespace)
        self._instance.report_run_failed(run, f"Kubernetes refuses the run's pod: {message}")

    def _warnings(self, namespace: str, name: str) -> Iterator[tuple[str, str]]:
        """Reason and text of what Kubernetes warns of an object."""
        selector = f"involvedObject.name={name},type=Warning"
        for event in self._api_client.core_api.list_namespaced_event(namespace=namespace, field_selector=selector).items:
            yield str(event.reason), str(event.message)
