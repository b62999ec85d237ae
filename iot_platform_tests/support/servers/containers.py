"""The images of `make images`, built by the first test that asks, and containers of them as an installation runs them: not root,
read-only, no capabilities."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from iot_platform.local.install import install_packages, which
from iot_platform.local.program import Program
from iot_platform.settings import Settings

ROOT = Path(__file__).parents[3]
BUILD = ROOT / "deploy" / "docker" / "build.py"
_HARDENED = ("--rm", "--network=host", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--init")


@dataclass(frozen=True)
class Image:
    """One that was built: its name in the storage, its digest, and what lies beside it."""

    name: str
    digest: str
    archive: Path
    bill: Path


class Containers:
    """podman on the storage that the images were built in."""

    def __init__(self, images: Mapping[str, Image], environment: Mapping[str, str]) -> None:
        self.images = images
        self._environment = {**os.environ, **environment}

    def podman(self, *arguments: str) -> str:
        """Its standard output. Raises CalledProcessError."""
        done = subprocess.run(["podman", *arguments], check=True, stdout=subprocess.PIPE, text=True, env=self._environment)
        return done.stdout.strip()

    def run(self, target: str, *command: str, options: Sequence[str] = ()) -> str:
        """Run a program to its end; what it printed. Fails the test with that, unless it ends well."""
        return self._ended_well("run", *_HARDENED, *options, self.images[target].name, *command)

    def inside(self, name: str, *command: str) -> str:
        """Run a program in a container that runs: a health check."""
        return self._ended_well("exec", name, *command)

    def program(self, name: str, target: str, *command: str, stop_seconds: int, options: Sequence[str] = ()) -> Program:
        """A container that the supervisor of the servers runs. It outlives a podman that was killed, until `close`."""
        argv = ("podman", "run", f"--name={name}", "--replace", *_HARDENED, *options, self.images[target].name, *command)
        return Program(name, argv, ROOT, self._environment, stop_seconds=stop_seconds, restart=False)

    def root(self, target: str) -> Path:
        """The image's file system, mounted."""
        return Path(self.podman("image", "mount", self.images[target].name))

    def close(self) -> None:
        """Remove every container in this storage, which is ours alone."""
        self.podman("rm", "--all", "--force", "--time", "5")
        self.podman("image", "unmount", "--all", "--force")

    def _ended_well(self, *arguments: str) -> str:
        done = subprocess.run(["podman", *arguments], check=False, capture_output=True, text=True, env=self._environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """See Containers. Needs root; installs buildah, debootstrap, podman and runc where they are missing."""
    folder = tmp_path_factory.mktemp("images")
    needed = {"podman": "runs the images", "runc": "is podman's runtime", "catatonit": "is podman's init"}
    install_packages({name: why for name, why in needed.items() if which(name) is None}, folder / "install.log", lambda _: None)
    images = build(folder)
    made = Containers(
        images, {"CONTAINERS_STORAGE_CONF": str(Settings().local_dir / "images" / "storage.conf"), **_podman_configuration(folder)}
    )
    yield made
    made.close()


def build(folder: Path, *options: str) -> dict[str, Image]:
    """Build into a folder; target → image."""
    done = subprocess.run([sys.executable, str(BUILD), f"--output={folder}", *options], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for line in done.stdout.splitlines():
        name, *rest = line.split()
        if name.startswith("localhost/iot-"):
            target = name.removeprefix("localhost/iot-").split(":")[0]
            found[target] = Image(name, rest[0], folder / f"{target}.oci.tar", folder / f"{target}.sbom.json")
    return found


def _podman_configuration(folder: Path) -> dict[str, str]:
    """For machines without systemd; and no more open files than we may have ourselves, or runc may not set them."""
    files, processes = (_at_most(resource.getrlimit(kind)[1]) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    file = folder / "containers.conf"
    file.write_text(
        f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]\nlog_driver = "k8s-file"\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n',
        "utf-8",
    )
    return {"CONTAINERS_CONF": str(file)}


def _at_most(limit: int, enough: int = 16_384) -> int:
    return enough if limit == resource.RLIM_INFINITY else min(limit, enough)
