"""deploy/argocd: objects as ArgoCD's own schemas want them, and the order of its waves."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from iot_platform.local.install import NETWORK, Note, run_logged, which
from iot_platform_tests.support.brokers.packages import needs
from iot_platform_tests.support.deploy import tools
from iot_platform_tests.support.deploy.tools import CHECKOUT
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]
FOLDER = CHECKOUT / "deploy/argocd"
VERSION = "v3.5.7"
SERVER = "https://kubernetes.default.svc"
Object = dict[str, Any]


def objects(file: Path) -> list[Object]:
    return [item for item in yaml.safe_load_all(file.read_text("utf-8")) if item]


OURS = [item for file in (*FOLDER.glob("*.yaml"), *FOLDER.glob("applications/*.yaml")) for item in objects(file)]
APPLICATIONS = {item["metadata"]["name"]: item for item in OURS if item["kind"] == "Application"}
PROJECTS = {item["metadata"]["name"]: item for item in OURS if item["kind"] == "AppProject"}


def argocd_module(_cache_dir: Path, log: Path, note: Note) -> Path:
    """ArgoCD's source, as Go keeps modules: its manifests are what its release installs."""
    command = [needs("go"), "mod", "download", "-json", f"github.com/argoproj/argo-cd/v3@{VERSION}"]
    run_logged(command, log, note, what="downloading ArgoCD's module", environment={"GOFLAGS": "-mod=mod"}, hint=NETWORK)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return Path(json.loads(done.stdout)["Dir"])


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tools.installed(argocd_module, tmp_path_factory.mktemp("argocd") / "install.log")


def kubectl() -> Path:
    """Of the tests' packages, or of the machine."""
    own = Path(sys.executable).with_name("kubectl")
    found = own if own.exists() else which("kubectl")
    if found is None:
        pytest.skip("not run: there is no kubectl")
    return Path(found)


def built(folder: Path) -> list[Object]:
    """What Kustomize makes of it, without a warning."""
    done = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def complaints(value: object, schema: Object, path: str) -> Iterator[str]:
    """What a strict API server would say: unknown and missing fields, wrong types and values."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    if schema.get("type") in kinds and not isinstance(value, kinds[schema["type"]]):
        yield f"{path}: {value!r} is no {schema['type']}"
    elif schema.get("enum") and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from complaints(item, schema["items"], f"{path}[{number}]")
    elif isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name in set(schema.get("required", [])) - set(value):
            yield f"{path}.{name} is missing"
        for name, item in value.items():
            if name not in known and not others:
                yield f"{path}.{name} is unknown"
            else:
                yield from complaints(item, known.get(name) or others, f"{path}.{name}")


def schema_of(release: Path, kind: str) -> Object:
    definition = yaml.safe_load((release / f"manifests/crds/{kind.lower()}-crd.yaml").read_text("utf-8"))
    schema: Object = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return schema


@pytest.mark.parametrize("item", OURS, ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
def test_argocd_knows_every_field(release: Path, item: Object) -> None:
    schema = schema_of(release, item["kind"])
    assert list(complaints(item, schema, item["kind"])) == []
    wrong = {**item, "spec": {**item["spec"], "sourceRepo": "x"}}
    assert list(complaints(wrong, schema, item["kind"])) == [f"{item['kind']}.spec.sourceRepo is unknown"]


def test_applications_are_within_their_projects() -> None:
    assert {item["spec"]["source"]["repoURL"] for item in APPLICATIONS.values()} == {"https://git.example/iot-platform.git"}
    for item in APPLICATIONS.values():
        project = PROJECTS[item["spec"]["project"]]["spec"]
        assert item["spec"]["source"]["repoURL"] in project["sourceRepos"]
        assert item["spec"]["destination"] in project["destinations"]
        assert item["spec"]["destination"]["server"] == SERVER
        assert (CHECKOUT / item["spec"]["source"]["path"]).is_dir()


def test_the_platform_comes_after_what_it_stands_on() -> None:
    waves = {
        name: int(item["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0)) for name, item in APPLICATIONS.items()
    }
    assert waves.pop("root") == 0
    assert waves == {"argocd": -1, "longhorn": 0, "metrics-adapter": 0, "iot-platform": 1}


@pytest.fixture(scope="module")
def installed(release: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """deploy/argocd/install with the release's manifest in its place."""
    folder = shutil.copytree(FOLDER / "install", tmp_path_factory.mktemp("install") / "install")
    shutil.copy(release / "manifests/install.yaml", folder)
    return built(folder)


def test_argocd_syncs_our_endpoint_slices(installed: list[Object]) -> None:
    (settings,) = [item["data"] for item in installed if (item["kind"], item["metadata"]["name"]) == ("ConfigMap", "argocd-cm")]
    excluded = [
        (group, kind)
        for entry in yaml.safe_load(settings["resource.exclusions"])
        for group in entry["apiGroups"]
        for kind in entry["kinds"]
    ]
    assert not {("discovery.k8s.io", "EndpointSlice"), ("discovery.k8s.io", "*"), ("*", "EndpointSlice")} & set(excluded)
    assert {item["metadata"]["namespace"] for item in installed if item["kind"] == "Deployment"} == {"argocd"}


def test_argocds_images_are_in_harbors_list(installed: list[Object]) -> None:
    listed = {entry["image"] for entry in yaml.safe_load((CHECKOUT / "deploy/harbor/images.yaml").read_text("utf-8"))["images"]}
    used = {match for item in installed for match in re.findall(r"'image': '([^']+)'", str(item.get("spec", {}).get("template", "")))}
    assert used
    assert used - listed == set()


@pytest.fixture(scope="module")
def platform() -> list[Object]:
    if not (CHECKOUT / "deploy/kubernetes/overlays/rke2").exists():
        pytest.skip("not run: deploy/kubernetes is not here")
    return built(FOLDER / "platform")


def wave(item: Object) -> int:
    return int(item["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))


def test_the_schema_comes_before_the_code_and_what_waits_for_others_last(platform: list[Object]) -> None:
    by_wave = {number: {item["kind"] for item in platform if wave(item) == number} for number in range(-1, 4)}
    assert by_wave[-1] == {"Namespace", "PriorityClass", "StorageClass"}
    assert by_wave[1] == {"Job"}
    assert by_wave[2] == {"Deployment", "StatefulSet"}
    assert by_wave[3] == {"Ingress", "HorizontalPodAutoscaler"}
    assert {"ConfigMap", "ServiceAccount", "Service", "NetworkPolicy", "EndpointSlice"} <= by_wave[0]
    (job,) = [item["metadata"]["annotations"] for item in platform if item["kind"] == "Job"]
    assert job["argocd.argoproj.io/hook"] == "Sync"
    assert job["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"


def test_the_project_allows_every_object_of_the_platform(platform: list[Object]) -> None:
    spec = PROJECTS["iot"]["spec"]
    allowed = {entry["kind"] for entry in spec["clusterResourceWhitelist"]}
    assert {item["kind"] for item in platform if "namespace" not in item["metadata"]} == allowed
    assert {item["metadata"]["namespace"] for item in platform if "namespace" in item["metadata"]} == {"iot"}
    assert "Secret" not in {item["kind"] for item in platform}


def test_a_release_changes_the_images_and_what_runs_are_started_with(tmp_path: Path) -> None:
    if not (CHECKOUT / "deploy/kubernetes/overlays/rke2").exists():
        pytest.skip("not run: deploy/kubernetes is not here")
    for part in ("deploy", "grafana"):
        shutil.copytree(CHECKOUT / part, tmp_path / part)
    program = tmp_path / "deploy/argocd/release.py"
    before = (tmp_path / "deploy/kubernetes/overlays/rke2/kustomization.yaml").read_bytes()
    for tag in ("latest", "not-built", "unknown", "", "версия", "a b", "1\n", "x" * 129):
        assert subprocess.run([sys.executable, program, tag], capture_output=True, check=False).returncode == 1
    assert (tmp_path / "deploy/kubernetes/overlays/rke2/kustomization.yaml").read_bytes() == before
    dirty = subprocess.run([sys.executable, program, "123456789012-dirty"], capture_output=True, text=True, check=True)
    assert "is no commit" in dirty.stderr
    subprocess.run([sys.executable, program, "123456789012"], check=True)
    text = json.dumps(built(tmp_path / "deploy/argocd/platform"))
    for name in ("iot-ingest", "iot-platform"):
        assert set(re.findall(rf'"192\.168\.1\.100:8080/rke2/{name}:([^"]+)"', text)) == {"123456789012"}
    current = re.findall(r'"name": "DAGSTER_CURRENT_IMAGE", "value": "([^"]+)"', text)
    assert current == ["192.168.1.100:8080/rke2/iot-platform:123456789012"]


def test_a_real_api_server_takes_argocd_and_its_applications(
    release: Path, installed: list[Object], request: pytest.FixtureRequest
) -> None:
    """With the control plane that tests of deploy/kubernetes build: ArgoCD's definitions and objects, then ours."""
    try:
        cluster: Any = request.getfixturevalue("control_plane")
    except pytest.FixtureLookupError:
        pytest.skip("not run: there is no control plane here")
    definitions = [item for item in installed if item["kind"] == "CustomResourceDefinition"]
    assert {item["spec"]["names"]["kind"] for item in definitions} >= {"Application", "AppProject"}
    first = [item for item in installed if item["kind"] in {"Namespace", "CustomResourceDefinition"}]
    for items in (first, [item for item in installed if item not in first]):
        cluster.kubectl("apply", "--server-side", "-f", "-", given=yaml.safe_dump_all(items))
    names = [item["metadata"]["name"] for item in definitions]
    path = "jsonpath={.items[*].status.conditions[?(@.type=='Established')].status}"
    eventually(lambda: cluster.kubectl("get", "crd", *names, "-o", path).split() == ["True"] * len(names), what="not established")
    for item in (*PROJECTS.values(), *APPLICATIONS.values()):
        cluster.kubectl("apply", "--server-side", "-f", "-", given=yaml.safe_dump(item))
    wrong = {**APPLICATIONS["root"], "spec": {**APPLICATIONS["root"]["spec"], "proj": "iot"}}
    assert "proj" in cluster.kubectl("apply", "--server-side", "-f", "-", given=yaml.safe_dump(wrong), fails=True)
