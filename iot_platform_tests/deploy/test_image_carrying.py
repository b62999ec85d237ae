"""deploy/harbor/images.py between two real registries: digests stay, interruptions and damage are seen."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from iot_platform.local import leftovers
from iot_platform.local.supervisor import Supervisor
from iot_platform_tests.support.deploy import tools
from iot_platform_tests.support.deploy.registry import Registry
from iot_platform_tests.support.waiting import eventually

pytestmark = pytest.mark.deploy
PROGRAM = tools.CHECKOUT / "deploy/harbor/images.py"
NAMES = ("rke2/two-platforms:1", "rke2/one:1.2", "rke2/iot-ingest:c0ffee")


@dataclass
class World:
    """Two registries, and a list of three images: an index of two platforms, one image, an archive of our own build."""

    public: Registry
    harbor: Registry
    crane: Path
    folder: Path

    @property
    def list_file(self) -> Path:
        return self.folder / "images.yaml"

    def command(self, *arguments: str) -> list[str]:
        where = ["--list", str(self.list_file), "--registry", self.harbor.host, "--crane", str(self.crane), "--tag", "c0ffee"]
        return [sys.executable, str(PROGRAM), *arguments, *where]

    def run(self, *arguments: str, fails: bool = False) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def ask(self, *arguments: str) -> str:
        return subprocess.run([self.crane, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    def make(self, name: str, content: bytes, platform: str = "linux/amd64") -> str:
        """An image of one layer in the public registry."""
        layer = self.folder / "layer.tar"
        with tarfile.open(layer, "w") as archive:
            member = tarfile.TarInfo("data")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        reference = f"{self.public.host}/{name}"
        self.ask("append", "--new_layer", str(layer), "--new_tag", reference, "--oci-empty-base")
        self.ask("mutate", "--set-platform", platform, "--tag", reference, reference)
        return reference

    def digests(self, registry: Registry) -> list[str]:
        tags = [self.ask("ls", f"{registry.host}/{name.partition(':')[0]}") for name in NAMES]
        assert tags == [name.partition(":")[2] for name in NAMES]
        return [self.ask("digest", f"{registry.host}/{name}") for name in NAMES]


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Registry, Registry]]:
    folder = tmp_path_factory.mktemp("registries")
    crane = tools.installed(tools.crane, folder / "install.log")
    root = tools.installed(tools.registry_root, folder / "install.log")
    supervisor = Supervisor(folder, die_with_parent=True)
    supervisor.ensure_running()
    try:
        public, harbor = (Registry(name, root, folder, supervisor) for name in ("public", "harbor"))
        public.start()
        harbor.start()
        yield crane, public, harbor
    finally:
        supervisor.shutdown()
        leftovers.end(folder)


@pytest.fixture
def world(registries: tuple[Path, Registry, Registry], tmp_path: Path) -> World:
    """Both registries are empty but for the three images in the public one."""
    crane, public, harbor = registries
    for registry in (public, harbor):
        registry.stop()
        shutil.rmtree(registry.folder / "docker", ignore_errors=True)
        registry.start()
    made = World(public, harbor, crane, tmp_path)
    parts = [made.make(f"parts/two-platforms:{name}", name.encode() * 100, f"linux/{name}") for name in ("amd64", "arm64")]
    index = f"{public.host}/rke2/two-platforms:1"
    made.ask("index", "append", *(option for part in parts for option in ("--manifest", part)), "--tag", index, "--docker-empty-base")
    one = made.make("rke2/one:1.2", os.urandom(3_000_000))
    ours = made.make("rke2/iot-ingest:c0ffee", b"ours")
    made.ask("pull", "--format=oci", ours, str(tmp_path / "layout"))
    with tarfile.open(tmp_path / "ingest.oci.tar", "w") as archive:
        archive.add(tmp_path / "layout", ".")
    rows = [
        f'  - image: {image}\n    digest: ""\n    to: {name}\n    for: "test"\n' for image, name in ((index, NAMES[0]), (one, NAMES[1]))
    ]
    archives = f'archives:\n  - archive: {tmp_path}/ingest.oci.tar\n    to: rke2/iot-ingest\n    for: "ours"\n'
    made.list_file.write_text("# kept\nimages:\n" + "".join(rows) + archives, "ascii")
    return made


def test_copies_keep_their_digests(world: World) -> None:
    assert "no digest in the list" in world.run("copy", fails=True)
    text = world.list_file.read_text("ascii")
    world.run("pin")
    pinned = world.list_file.read_text("ascii")
    assert [line for line in pinned.splitlines() if "digest:" not in line] == [line for line in text.splitlines() if "digest:" not in line]
    assert pinned.count("sha256:") == 2
    assert world.run("copy", "--dry-run").count("would be copied") == 2
    assert world.run("copy").count("copied: sha256:") == 2
    assert world.digests(world.harbor) == world.digests(world.public)
    assert world.run("copy").count("is there") == 3
    assert world.run("verify").count("whole") == 3


def test_a_tag_that_moved_changes_nothing(world: World) -> None:
    world.run("pin")
    expected = world.digests(world.public)
    world.make(NAMES[1], b"another")
    world.run("copy")
    assert world.digests(world.harbor) == expected != world.digests(world.public)


def test_images_are_carried(world: World, tmp_path: Path) -> None:
    world.run("pin")
    expected = world.digests(world.public)
    disk = tmp_path / "disk"
    assert world.run("carry", str(disk), "--dry-run").count("would be carried") == 3
    assert not disk.exists()
    world.harbor.stop()
    assert world.run("carry", str(disk)).count("carried: sha256:") == 3
    assert world.run("carry", str(disk)).count("is there") == 3
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=disk, check=True)
    world.public.stop()
    world.harbor.start()
    assert world.run("push", str(disk), "--dry-run").count("would be pushed") == 3
    assert world.run("push", str(disk)).count("pushed: sha256:") == 3
    assert world.digests(world.harbor) == expected
    assert world.run("push", str(disk)).count("is there") == 3
    assert world.run("verify", str(disk)).count("whole") == 3


def test_what_was_broken_off_or_left_out_is_carried_later(world: World, tmp_path: Path) -> None:
    world.run("pin")
    disk = tmp_path / "disk"
    world.run("carry", str(disk), "--only", "one")
    world.run("carry", str(disk), "--only", "two-platforms")
    assert {entry["to"] for entry in json.loads((disk / "images.json").read_text("utf-8"))} == {NAMES[0], NAMES[1]}
    (disk / "images.json").write_text((disk / "images.json").read_text("utf-8")[:30], "utf-8")  # killed while it was written
    (disk / "rke2_one_1.2").rename(disk / "rke2_one_1.2.part")
    shutil.rmtree(disk / "rke2_one_1.2.part/blobs")
    said = world.run("carry", str(disk))
    assert (said.count("is there"), said.count("carried:")) == (1, 2)
    world.run("push", str(disk))
    assert world.digests(world.harbor) == world.digests(world.public)


@pytest.mark.parametrize("damage", ["changed", "cut off", "gone"])
def test_damage_on_the_way_is_seen(world: World, tmp_path: Path, damage: str) -> None:
    world.run("pin")
    disk = tmp_path / "disk"
    world.run("carry", str(disk))
    blob = max((disk / "rke2_one_1.2/blobs/sha256").iterdir(), key=lambda file: file.stat().st_size)
    content = blob.read_bytes()
    if damage == "gone":
        blob.unlink()
    else:
        blob.write_bytes(content[:-1] if damage == "cut off" else content[:-1] + bytes([content[-1] ^ 1]))
    said = world.run("push", str(disk), fails=True)
    assert f"rke2/one:1.2 FAILED: {disk}/rke2_one_1.2: not as it was written" in said
    assert said.count("pushed: sha256:") == 2
    said = world.run("carry", str(disk))  # as the message says
    assert (said.count("is there"), said.count("carried:")) == (2, 1)
    world.run("push", str(disk))
    assert world.digests(world.harbor) == world.digests(world.public)


def test_a_push_that_was_killed_is_finished_by_the_next(world: World, tmp_path: Path) -> None:
    world.make(NAMES[1], os.urandom(40_000_000))
    world.run("pin")
    disk = tmp_path / "disk"
    world.run("carry", str(disk))
    uploads = world.harbor.folder / "docker/registry/v2/repositories/rke2/one/_uploads"
    with subprocess.Popen(world.command("push", str(disk)), start_new_session=True, stdout=subprocess.DEVNULL) as process:
        eventually(lambda: any(file.stat().st_size > 0 for file in uploads.glob("*/data")), pause=0.002, what="no upload began")
        os.killpg(process.pid, signal.SIGKILL)
    assert subprocess.run([world.crane, "digest", f"{world.harbor.host}/{NAMES[1]}"], capture_output=True, check=False).returncode != 0
    world.run("push", str(disk))
    assert world.digests(world.harbor) == world.digests(world.public)


def test_a_part_that_harbor_lost_is_found_and_healed(world: World, tmp_path: Path) -> None:
    world.run("pin")
    disk = tmp_path / "disk"
    world.run("carry", str(disk))
    world.run("push", str(disk))
    index = json.loads(world.ask("manifest", f"{world.harbor.host}/{NAMES[0]}"))
    world.ask("delete", f"{world.harbor.host}/rke2/two-platforms@{index['manifests'][0]['digest']}")
    assert world.run("push", str(disk)).count("is there") == 3
    assert f"{NAMES[0]} FAILED" in world.run("verify", str(disk), fails=True)
    world.run("push", str(disk), "--again", "--only", "two-platforms")
    assert world.run("verify", str(disk)).count("whole") == 3
    world.ask("delete", f"{world.harbor.host}/rke2/two-platforms@{index['manifests'][1]['digest']}")
    world.run("copy", "--again", "--only", "two-platforms")
    assert world.run("verify").count("whole") == 3


def test_release_lists_go_where_the_nodes_look(world: World, tmp_path: Path) -> None:
    release = tmp_path / "rke2-images.txt"
    release.write_text(f"# a release\n{world.public.host}/rke2/one:1.2\n", "ascii")
    world.list_file.write_text("images: []\narchives: []\n", "ascii")
    assert world.run("copy", "--release-list", str(release)).count("copied: sha256:") == 1
    assert world.ask("ls", f"{world.harbor.host}/rke2/rke2/one") == "1.2"
