"""The programs that deployment is done with, each installed once into the cache: Compose, crane, Ansible, registries, root file systems."""

import hashlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import NETWORK, Note, cached, debian_mirror, run_logged
from iot_platform.settings import Settings
from iot_platform_tests.support.brokers import debian, packages
from iot_platform_tests.support.brokers.packages import needs

CHECKOUT = Path(__file__).parents[3]
OURS = Path(__file__).parent
RELEASE = "trixie"
NODE_PACKAGES = "chrony,iproute2,kmod,netplan.io,open-iscsi,python3,python3-apt,systemd,systemd-sysv,ufw"


def installed(install: Callable[[Path, Path, Note], Path], log: Path) -> Path:
    """What `install` returns; the test is skipped where it cannot be had here."""
    try:
        return install(Settings().cache_dir, log, lambda _: None)
    except LocalStackError as error:
        pytest.skip(f"not run: {error}")


def go_program(package: str, version: str, cache_dir: Path, log: Path, note: Note) -> Path:
    """A program out of a Go module, without its debugging symbols."""
    name = package.rpartition("/")[2]
    with cached(cache_dir / f"{name}-{version}", note) as new:
        if new is not None:
            command = [needs("go"), "install", "-trimpath", "-ldflags=-s", f"{package}@{version}"]
            run_logged(command, log, note, what=f"building {name}", environment={"GOBIN": str(new)}, hint=NETWORK)
    return cache_dir / f"{name}-{version}" / name


crane = partial(go_program, "github.com/google/go-containerregistry/cmd/crane", "v0.22.1")
sops = partial(go_program, "github.com/getsops/sops/v3/cmd/sops", "v3.13.3")


def compose(cache_dir: Path, log: Path, note: Note) -> Path:
    """Docker Compose 5, newer than any Debian has; ten minutes of processor time to build. `go install` refuses its module."""
    package, version = "github.com/docker/compose/v5/cmd", "v5.5.0"
    with cached(cache_dir / f"docker-compose-{version}", note) as new:
        if new is not None:
            module = new / "module"
            module.mkdir()
            go = [needs("go"), "-C", str(module)]
            built = ["build", "-ldflags=-s", "-o", str(new / "docker-compose"), package]
            for arguments in (["mod", "init", "compose"], ["get", f"{package}@{version}"], built):
                run_logged([*go, *arguments], log, note, what="building Docker Compose", hint=NETWORK)
    return cache_dir / f"docker-compose-{version}" / "docker-compose"


def registry_root(cache_dir: Path, log: Path, note: Note) -> Path:
    """A root file system with Debian's docker-registry."""
    debian.require_root()
    return debian.install(RELEASE, ("docker-registry",), cache_dir / f"docker-registry-{RELEASE}", log, note, user="root")


def ansible(cache_dir: Path, log: Path, note: Note) -> Path:
    """The folder of ansible-playbook and ansible-lint, as deploy/ansible/requirements.txt pins them."""
    requirements = CHECKOUT / "deploy/ansible/requirements.txt"
    pins = [line for line in requirements.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    target = cache_dir / "-".join(pin.replace("==", "-") for pin in pins)
    with cached(target, note) as new:
        if new is not None:
            run_logged([sys.executable, "-m", "venv", str(new)], log, note, what="making a venv")
            command = [
                str(new / "bin/python"),
                "-m",
                "pip",
                "install",
                "--no-compile",
                "--disable-pip-version-check",
                "-r",
                str(requirements),
            ]
            run_logged(command, log, note, what="installing Ansible", hint=NETWORK)
            for script in (new / "bin").glob("ansible*"):  # the folder gets another name
                script.write_text(script.read_text("utf-8").replace(str(new), str(target)), "utf-8")
    return target / "bin"


def node_root(cache_dir: Path, log: Path, note: Note) -> Path:
    """A Debian 13 root file system with the packages that a node has."""
    debian.require_root()
    target = cache_dir / f"node-{RELEASE}"
    with cached(target, note) as new:
        if new is not None:
            private = ["unshare", "--mount", "--propagation", "private"]
            command = [needs("debootstrap"), "--variant=minbase", f"--include={NODE_PACKAGES}", RELEASE, str(new), debian_mirror()]
            run_logged([*private, *command], log, note, what="debootstrap", hint=NETWORK)
    return target


def our_go_program(name: str, cache_dir: Path, log: Path, note: Note, package: str = ".") -> Path:
    """One whose module is a folder beside this file; built anew when that changes."""
    module = OURS / name
    version = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(module.iterdir()))).hexdigest()[:12]
    return packages.go(module, package, cache_dir / f"{name}-{version}", log, note) / "broker"


registries_reader = partial(our_go_program, "registries")
"""Reads a registries.yaml by RKE2's own types, and refuses what RKE2 would pass over."""
argocd_health = partial(our_go_program, "argocd_health")
"""What ArgoCD shows of objects, by its own functions; six minutes of processor time to build."""
metrics_adapter = partial(our_go_program, "metrics_adapter", package="sigs.k8s.io/prometheus-adapter/cmd/adapter")
"""prometheus-adapter of the version in deploy/harbor/images.yaml; minutes of processor time to build."""
