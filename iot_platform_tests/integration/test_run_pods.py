"""The launcher of run pods, and an API server that refuses, forgets, contradicts itself or does not answer at all."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster_k8s.job import get_job_name_from_run_id
from structlog.testing import CapturingLogger

from iot_platform.orchestration import run_pods
from iot_platform.orchestration.dagster_private import LaunchRunContext
from iot_platform.orchestration.run_pods import RunPodLauncher
from iot_platform_tests.support.servers.kubernetes_jobs import KubernetesJobs
from iot_platform_tests.support.waiting import eventually

NAMESPACE = "iot"
KILLED = {"name": "dagster", "image": "i", "imageID": "", "ready": False, "restartCount": 0} | {
    "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
}
QUOTA = 'Error creating: pods "x" is forbidden: exceeded quota: full'


class Runs:
    """An instance with this launcher, and what the tests ask of it."""

    def __init__(self, folder: Path, instance: DagsterInstance) -> None:
        self.api = KubernetesJobs(NAMESPACE)
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "clusters": [{"name": "c", "cluster": {"server": self.api.url}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "users": [{"name": "u", "user": {}}],
                    "current-context": "c",
                }
            )
        )
        self.instance = instance
        self.launcher = self.made()

    def made(self) -> RunPodLauncher:
        """One more, as after a restart of the process that launches."""
        launcher = RunPodLauncher(
            service_account_name="dagster-run",
            instance_config_map="none",
            dagster_home="/tmp",  # noqa: S108 - of the pod
            job_namespace=NAMESPACE,
            load_incluster_config=False,
            kubeconfig_file=str(self.kubeconfig),
        )
        launcher.register_instance(self.instance)
        return launcher

    def starting(self) -> tuple[str, str]:
        """A run that Dagster is about to launch: its id and its Job's name."""
        origin = JobPythonOrigin("drain", RepositoryPythonOrigin("python", ModuleCodePointer("none", "none"), "image:1", [], {}))
        run = DagsterRun("drain", run_id=str(uuid.uuid4()), status=DagsterRunStatus.STARTING, job_code_origin=origin)
        self.instance.add_run(run)
        return run.run_id, get_job_name_from_run_id(run.run_id)  # type: ignore[no-untyped-call]

    def launch(self) -> tuple[str, str]:
        """The same, launched."""
        run_id, job = self.starting()
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        self.launcher.launch_run(LaunchRunContext(run, workspace=None))
        assert job in self.api.jobs
        return run_id, job

    def status(self, run_id: str) -> DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def told(self, run_id: str) -> str:
        """What stands in the run's log."""
        return "\n".join(entry.message for entry in self.instance.all_logs(run_id)) + "\n".join(
            str(entry.dagster_event.message) for entry in self.instance.all_logs(run_id) if entry.dagster_event
        )

    def fails(self, run_id: str) -> str:
        """The run's log, once it failed."""
        eventually(lambda: self.status(run_id) == DagsterRunStatus.FAILURE, 10, lambda: self.told(run_id))
        return self.told(run_id)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterInstance]:
    with DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as made:
        yield made


@pytest.fixture
def runs(tmp_path: Path, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    monkeypatch.setattr(run_pods, "LOOK_SECONDS", 0.05)
    made = Runs(tmp_path, instance)
    yield made
    for run in instance.get_runs():
        instance.delete_run(run.run_id)
    eventually(lambda: not made.launcher._awaited, 10)
    made.api.close()


@pytest.mark.parametrize(
    "why",
    [
        QUOTA,
        'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
        'Error creating: Pod "x" is invalid: spec.containers[0].image: Required value',
        'Error creating: admission webhook "images.policy" denied the request: not from Harbor',
    ],
)
def test_a_refused_pod_fails_its_run(runs: Runs, why: str) -> None:
    run_id, job = runs.launch()
    runs.api.warn(job, "FailedCreate", why)
    assert f"refuses the run's pod: {why}" in runs.fails(run_id)
    assert not runs.api.jobs


@pytest.mark.parametrize(
    "trouble",
    [
        'Error creating: Operation cannot be fulfilled on resourcequotas "full": the object has been modified; please apply your changes',
        "Error creating: Internal error occurred: failed calling webhook",
        "Error creating: etcdserver: request timed out",
    ],
)
def test_what_the_job_controller_gets_over_itself_fails_no_run(runs: Runs, trouble: str) -> None:
    run_id, job = runs.launch()
    runs.api.warn(job, "FailedCreate", trouble)
    eventually(lambda: trouble in runs.told(run_id), 10)
    runs.api.pod(job, "Pending")
    runs.api.warn(f"{job}-x", "Failed", "seen after it")
    eventually(lambda: "seen after it" in runs.told(run_id), 10)
    assert (runs.status(run_id), list(runs.api.jobs)) == (DagsterRunStatus.STARTING, [job])


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_refusal_is_not_forgotten_because_the_api_stumbled(runs: Runs, method: str) -> None:
    answers = [401, 403, 409, 410, 422, 429, 500, 503]
    run_id, job = runs.launch()
    runs.api.refuse = lambda asked, _path: answers.pop() if asked == method and answers else None
    runs.api.warn(job, "FailedCreate", QUOTA)
    runs.fails(run_id)
    assert (answers, list(runs.api.jobs)) == ([], [])


def test_a_job_that_somebody_deleted_is_no_obstacle(runs: Runs) -> None:
    run_id, job = runs.launch()
    runs.api.jobs.clear()
    runs.api.warn(job, "FailedCreate", QUOTA)
    assert "exceeded quota" in runs.fails(run_id)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"reason": "Evicted", "message": "The node was low on resource: memory."}, "Evicted; The node was low"),
        ({"containerStatuses": [KILLED]}, "OOMKilled, exit code 137"),
    ],
)
def test_a_pod_that_ended_before_its_run_began(runs: Runs, status: dict[str, object], why: str) -> None:
    run_id, job = runs.launch()
    runs.api.pod(job, "Failed", **status)
    assert why in runs.fails(run_id)
    assert job in runs.api.jobs, "its log is still wanted"


def test_a_pod_that_was_deleted_while_it_started(runs: Runs) -> None:
    run_id, job = runs.launch()
    runs.api.warn(job, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    assert "backoff limit" in runs.fails(run_id)


@pytest.mark.parametrize("phase", [None, "Pending", "Running", "Failed"])
def test_the_job_of_a_run_that_nobody_waits_for_goes(runs: Runs, phase: str | None) -> None:
    """Unless its pod works, or worked: then its log is wanted."""
    run_id, job = runs.starting()
    if phase:
        runs.api.pod(job, phase)
    run = runs.instance.get_run_by_id(run_id)
    assert run is not None
    runs.launcher.launch_run(LaunchRunContext(run, workspace=None))
    runs.instance.report_run_failed(run, "Run timed out due to taking longer than 180 seconds to start.")
    eventually(lambda: not runs.launcher._awaited, 10)
    assert list(runs.api.jobs) == ([job] if phase in ("Running", "Failed") else [])


def test_a_run_that_began_is_left_alone(runs: Runs) -> None:
    """Even when Dagster calls it failed: its pod may still be draining."""
    run_id, job = runs.starting()
    run = runs.instance.get_run_by_id(run_id)
    assert run is not None
    runs.instance.report_dagster_event(DagsterEvent(DagsterEventType.RUN_START.value, "drain"), run_id)
    runs.launcher.launch_run(LaunchRunContext(run, workspace=None))
    runs.instance.report_run_failed(run, "the API server was away")
    eventually(lambda: not runs.launcher._awaited, 10)
    assert list(runs.api.jobs) == [job]


def test_runs_of_the_process_before_are_looked_at(runs: Runs) -> None:
    run_id, job = runs.starting()
    runs.api.warn(job, "FailedCreate", QUOTA)
    runs.launcher = runs.made()
    runs.launch()
    assert "exceeded quota" in runs.fails(run_id)


def test_a_server_that_never_answers_holds_nobody_up(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_pods, "REQUEST_SECONDS", 0.2)
    run_id, job = runs.launch()
    runs.api.refuse = lambda _method, _path: 0
    assert runs.api.hung.wait(10)
    runs.api.warn(job, "FailedCreate", QUOTA)
    runs.api.refuse = lambda _method, _path: None
    runs.fails(run_id)


def test_trouble_is_said_once(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(run_pods, "log", log)
    asked: list[str] = []

    def refuse(_method: str, path: str) -> int:
        asked.append(path)
        return 403

    run_id, _ = runs.launch()
    runs.api.refuse = refuse
    eventually(lambda: len(asked) > 5, 10)
    assert [call.kwargs["problem"] for call in log.calls if call.kwargs["run_id"] == run_id] == ["(403) Reason: Forbidden"]
