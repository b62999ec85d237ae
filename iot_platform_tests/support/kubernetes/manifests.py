"""The objects of deploy/kubernetes as Kustomize makes them, and what their pods are."""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("dev", "rke2", "managed")
KUBECTL = Path(sys.executable).with_name("kubectl")
NAMESPACE = "iot"

Object = dict[str, Any]


@cache
def rendered(overlay: str) -> str:
    """What `kubectl kustomize` makes of an overlay; it must have nothing to warn of."""
    done = subprocess.run([KUBECTL, "kustomize", FOLDER / "overlays" / overlay], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@cache
def objects(overlay: str) -> tuple[Object, ...]:
    """The overlay's objects."""
    return tuple(yaml.safe_load_all(rendered(overlay)))


def of_kind(overlay: str, *kinds: str) -> list[Object]:
    """Those of these kinds."""
    return [item for item in objects(overlay) if item["kind"] in kinds]


def one(overlay: str, kind: str, name: str) -> Object:
    """The one object; a generated ConfigMap by its name without the hash."""
    found = [item for item in of_kind(overlay, kind) if item["metadata"]["name"] == name]
    found = found or [item for item in of_kind(overlay, kind) if item["metadata"]["name"].rpartition("-")[0] == name]
    assert len(found) == 1, (kind, name)
    return found[0]


def templates(overlay: str) -> dict[str, Object]:
    """Name of the workload → its pod template."""
    return {item["metadata"]["name"]: item["spec"]["template"] for item in of_kind(overlay, "Deployment", "StatefulSet", "Job")}


def containers(template: Object) -> Iterator[Object]:
    """Of a pod template, the ones that only initialise among them."""
    yield from template["spec"].get("initContainers", [])
    yield from template["spec"]["containers"]


def instance(overlay: str = "rke2") -> Object:
    """Dagster's instance settings (dagster.yaml) in the cluster."""
    return dict(yaml.safe_load(one(overlay, "ConfigMap", "dagster-instance")["data"]["dagster.yaml"]))


def example_secrets() -> list[Object]:
    """The Secrets of secrets.example.yaml."""
    return list(yaml.safe_load_all((FOLDER / "secrets.example.yaml").read_text("utf-8")))
