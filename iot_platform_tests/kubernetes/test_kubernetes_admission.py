"""Every object of every overlay is admitted by a real API server without a warning, pods of every template and of Dagster runs too."""

from collections.abc import Iterator

import pytest
import yaml

from iot_platform_tests.support.kubernetes.api import ApiError
from iot_platform_tests.support.kubernetes.control_plane import ControlPlane
from iot_platform_tests.support.kubernetes.manifests import NAMESPACE, OVERLAYS, objects, of_kind, templates
from iot_platform_tests.support.kubernetes.runs import run_job
from iot_platform_tests.support.waiting import eventually

pytestmark = pytest.mark.kubernetes
# What dagster-k8s asks for: to launch, look after and terminate runs, and to say why one failed.
NEEDED = [
    *[(verb, "jobs") for verb in ("create", "get", "list", "delete")],
    ("get", "jobs/status"),
    *[(verb, "pods") for verb in ("get", "list", "delete")],
    ("get", "pods/log"),
    ("list", "events"),
]
BEYOND = [("create", "pods"), ("create", "pods/exec"), ("get", "secrets"), ("list", "secrets"), ("get", "configmaps"), ("patch", "jobs")]
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


@pytest.fixture(scope="module")
def namespace(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """Our namespace, its service accounts and the priority classes, which a dry run needs; nothing else."""
    first = [item for item in objects("rke2") if item["kind"] in ("Namespace", "ServiceAccount", "PriorityClass")]
    control_plane.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(first))
    yield control_plane
    control_plane.kubectl("delete", "-f", "-", "--wait=true", given=yaml.safe_dump_all(first))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_admitted(namespace: ControlPlane, overlay: str) -> None:
    given = yaml.safe_dump_all(objects(overlay))
    said, warned = namespace.kubectl_both("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", given=given)
    assert len(said.splitlines()) == len(objects(overlay))
    assert warned == ""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_of_every_template_are_admitted(namespace: ControlPlane, overlay: str) -> None:
    """A Deployment or Job whose pods Pod Security refuses is admitted itself; so the pods are asked for."""
    made = templates(overlay) | {"dagster-run": run_job(overlay)["spec"]["template"]}
    for item in of_kind(overlay, "StatefulSet"):  # its controller adds a volume for each claim
        for claim in (found["metadata"]["name"] for found in item["spec"].get("volumeClaimTemplates", [])):
            volume = {"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-0"}}
            template = made[item["metadata"]["name"]]
            made[item["metadata"]["name"]] = template | {"spec": template["spec"] | {"volumes": [*template["spec"]["volumes"], volume]}}
    for name, template in made.items():
        pod = {"metadata": {**template["metadata"], "name": name}, "spec": template["spec"]}
        namespace.api.post(PODS, pod, dryRun="All")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"securityContext": {"runAsNonRoot": False}}, "runAsNonRoot != true"),
        ({"hostNetwork": True}, "host namespaces"),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "hostPath"),
    ],
)
def test_a_pod_that_may_more_is_refused(namespace: ControlPlane, change: dict[str, object], reason: str) -> None:
    template = run_job("rke2")["spec"]["template"]
    spec = {**template["spec"], **change}
    if "volumes" in change:
        spec["containers"] = [{**template["spec"]["containers"][0], "volumeMounts": []}]
    with pytest.raises(ApiError, match=reason):
        namespace.api.post(PODS, {"metadata": {"name": "refused"}, "spec": spec}, dryRun="All")


def test_a_misspelt_field_is_refused(namespace: ControlPlane) -> None:
    (service, *_) = [item for item in of_kind("rke2", "Service") if item["metadata"]["name"] == "grafana"]
    wrong = {**service, "spec": {**service["spec"], "selektor": {}}}
    refused = namespace.kubectl("apply", "--dry-run=server", "-f", "-", given=yaml.safe_dump(wrong), fails=True)
    assert 'unknown field "spec.selektor"' in refused


def test_who_launches_runs_may_do_that_and_no_more(namespace: ControlPlane) -> None:
    namespace.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(of_kind("rke2", "Role", "RoleBinding")))
    eventually(lambda: allowed(namespace, "dagster-daemon", "create", "jobs"), what="the Role is not seen")
    for account in of_kind("rke2", "ServiceAccount"):
        name = account["metadata"]["name"]
        launches = name in ("dagster-daemon", "dagster-webserver")
        assert [right for right in NEEDED if allowed(namespace, name, *right)] == (NEEDED if launches else []), name
        assert [right for right in BEYOND if allowed(namespace, name, *right)] == [], name


def allowed(control_plane: ControlPlane, account: str, verb: str, what: str) -> bool:
    """Whether the API server would let a service account of ours do this."""
    resource, _, part = what.partition("/")
    attributes = {"namespace": NAMESPACE, "verb": verb, "group": "batch" if resource == "jobs" else ""}
    spec = {
        "user": f"system:serviceaccount:{NAMESPACE}:{account}",
        "groups": ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"],
        "resourceAttributes": attributes | {"resource": resource, "subresource": part},
    }
    review = control_plane.api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
    return bool(review["status"]["allowed"])
