"""The lists of deploy/ say the same as what they list: images in Harbor, ports of the nodes, places of secrets."""

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
REGISTRY = "192.168.1.100:8080"
LISTED = yaml.safe_load((DEPLOY / "harbor/images.yaml").read_text("utf-8"))
IN_HARBOR = {entry["to"] for entry in LISTED["images"]}
OURS = {entry["to"] for entry in LISTED["archives"]}
BUILT_FROM_HARBOR = {"rke2/iot-timescaledb"}  # `make images ARGS="--database … --push"`, of an image that is there already
RULES = yaml.safe_load((DEPLOY / "ansible/roles/firewall/defaults/main.yaml").read_text("utf-8"))["firewall_rules"]


def images() -> Iterator[tuple[str, str]]:
    """What deploy/ runs, as (project/name, tag), with the defaults of Compose's variables."""
    for file in sorted(DEPLOY.rglob("*.yaml")):
        text = file.read_text("utf-8")
        for written in re.findall(r"^\s+image: [\"']?(\S+?)[\"']?$", text, re.M):
            image = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", written)
            if image.startswith(f"{REGISTRY}/"):
                name, _, tag = image.removeprefix(f"{REGISTRY}/").partition(":")
                yield name, tag
        for name, tag in re.findall(rf"newName: {REGISTRY}/(\S+)\n\s+newTag: [\"']?([^\s\"']+)", text):
            yield name, tag


def test_every_image_that_is_run_comes_to_harbor() -> None:
    missing = {f"{name}:{tag}" for name, tag in images() if name not in OURS | BUILT_FROM_HARBOR and f"{name}:{tag}" not in IN_HARBOR}
    assert missing == set()


def test_every_image_says_what_it_is_for() -> None:
    assert all(entry["for"] for entry in LISTED["images"] + LISTED["archives"])
    assert {entry["to"].partition("/")[0] for entry in LISTED["images"] + LISTED["archives"]} == {"rke2"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEPLOY / "harbor/images.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_images_of_releases_go_where_the_nodes_look(tmp_path: Path) -> None:
    """RKE2 puts Harbor before its own names; registries.yaml sends all others to the project rke2."""
    release = tmp_path / "images.txt"
    names = (
        "rancher/hardened-etcd:v3.6",
        "docker.io/rancher/rke2-runtime:v1",
        "longhornio/longhorn-manager:v1.9",
        "quay.io/a/b:1",
        "busybox:1",
    )
    release.write_text("\n".join(names) + "\n", "ascii")
    said = run("list", "--release-list", str(release)).stdout
    targets = re.findall(rf"^{REGISTRY}/(\S+)  images.txt\n    (\S+)", said, re.M)
    assert targets == [
        ("rancher/hardened-etcd:v3.6", "docker.io/rancher/hardened-etcd:v3.6"),
        ("rancher/rke2-runtime:v1", "docker.io/rancher/rke2-runtime:v1"),
        ("rke2/longhornio/longhorn-manager:v1.9", "docker.io/longhornio/longhorn-manager:v1.9"),
        ("rke2/a/b:1", "quay.io/a/b:1"),
        ("rke2/library/busybox:1", "docker.io/library/busybox:1"),
    ]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ('{image: "docker.io/a/b:latest", digest: "", to: "rke2/a/b:1", for: x}', "a tag is needed"),
        ('{image: "docker.io/a/b", digest: "", to: "rke2/a/b:1", for: x}', "a tag is needed"),
        ('{image: "docker.io/a/b:1", digest: "sha256:12", to: "rke2/a/b:1", for: x}', "not a digest"),
        ('{image: "docker.io/a/b:1", digests: "", to: "rke2/a/b:1", for: x}', "keys are"),
        ('{image: "docker.io/a/b:1", digest: "", to: "rke2/a/b:1\\n", for: x}', "a tag is needed"),
        ("nothing", "lists `images` and `archives`"),
        ("]", "lists `images` and `archives`"),
    ],
)
def test_mistakes_of_the_list_are_said(tmp_path: Path, entry: str, reason: str) -> None:
    listed = tmp_path / "images.yaml"
    listed.write_text(f"images: [{entry}]\narchives: []\n", "ascii")
    done = run("list", "--list", str(listed))
    assert (done.returncode, reason in done.stderr) == (1, True), done.stderr


def test_a_releases_list_that_is_not_there_is_named_with_where_it_comes_from(tmp_path: Path) -> None:
    done = run("list", "--release-list", str(tmp_path / "rke2-images-core.linux-amd64.txt"))
    assert (done.returncode, "is not there: it is one of the files of" in done.stderr) == (1, True), done.stderr


def test_two_images_for_one_place_are_refused(tmp_path: Path) -> None:
    release = tmp_path / "images.txt"
    release.write_text("docker.io/a/b:1\nquay.io/a/b:1\n", "ascii")
    assert "two images for one place: rke2/a/b:1" in run("list", "--release-list", str(release)).stderr
    release.write_text("quay.io/a/b:1\nquay.io/a_b:1\n", "ascii")  # one folder on the disk that is carried
    assert "two images for one place: rke2/a/b:1" in run("list", "--release-list", str(release)).stderr


def test_a_name_that_no_image_has_is_said() -> None:
    """Nothing was copied then, and the exit code must not say otherwise."""
    for command in (["copy"], ["verify"], ["list"]):
        done = run(*command, "--only", "garfana")
        assert (done.returncode, "no image has 'garfana'" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("damage", ["SHA256SUMS", "images.json"])
def test_a_carried_folder_whose_lists_are_damaged(tmp_path: Path, damage: str) -> None:
    (tmp_path / "images.json").write_text("[]\n")
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'[]' + bytes([10])).hexdigest()}  images.json\n")
    assert run("push", str(tmp_path)).returncode == 0
    (tmp_path / damage).write_bytes(b"\xff half a li")
    done = run("push", str(tmp_path))
    assert (done.returncode, "as it was written: carry it again" in done.stderr) == (1, True), done.stderr


def write_archive(file: Path, labels: dict[str, str]) -> None:
    """An OCI archive, as buildah writes one, of an image without layers."""
    files = {}

    def blob(content: object) -> dict[str, object]:
        data = json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        files[f"blobs/sha256/{digest}"] = data
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest = blob({"schemaVersion": 2, "config": blob({"config": {"Labels": labels}}), "layers": []})
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    with tarfile.open(file, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def ours(folder: Path, **versions: str | None) -> list[str]:
    """The options for a list of our own archives, each with its version as label."""
    rows = []
    for name, version in versions.items():
        if version is not None:
            write_archive(folder / f"{name}.oci.tar", {"org.opencontainers.image.version": version} if version else {})
        rows.append({"archive": str(folder / f"{name}.oci.tar"), "to": f"rke2/iot-{name}", "for": "ours"})
    (folder / "images.yaml").write_text(yaml.safe_dump({"images": [], "archives": rows}), "utf-8")
    return ["--list", str(folder / "images.yaml")]


def test_our_images_have_the_tag_that_they_were_built_with(tmp_path: Path) -> None:
    """Not the work tree's commit, which may be a later one."""
    options = ours(tmp_path, ingest="c0ffee123456", platform="c0ffee123456")
    assert run("tag", *options).stdout == "c0ffee123456\n"
    targets = re.findall(rf"^{REGISTRY}/(\S+)", run("list", *options).stdout, re.M)
    assert targets == ["rke2/iot-ingest:c0ffee123456", "rke2/iot-platform:c0ffee123456"]
    assert run("tag", "--tag", "1.0", *options).stdout == "1.0\n"


@pytest.mark.parametrize("platform", ["ba5eba11abcd", None])
def test_images_of_two_builds_are_no_release(tmp_path: Path, platform: str | None) -> None:
    done = run("tag", *ours(tmp_path, ingest="c0ffee123456", platform=platform))
    assert (done.returncode, done.stdout, "not of one build" in done.stderr) == (1, "", True), done.stderr


@pytest.mark.parametrize("version", ["", "unknown"])
def test_an_archive_without_its_version_gets_no_tag(tmp_path: Path, version: str) -> None:
    done = run("list", *ours(tmp_path, ingest=version))
    assert (done.returncode, "has no label org.opencontainers.image.version" in done.stderr) == (1, True), done.stderr


def test_an_archive_that_was_cut_off_is_named(tmp_path: Path) -> None:
    options = ours(tmp_path, ingest="c0ffee123456")
    archive = tmp_path / "ingest.oci.tar"
    archive.write_bytes(archive.read_bytes()[:700])
    done = run("list", *options)
    assert (done.returncode, done.stderr.startswith(f"error: {archive}: ")) == (1, True), done.stderr


@pytest.mark.parametrize("index", ["{}", "[]", '{"manifests": []}', '{"manifests": null}', "null"])
def test_an_archive_of_something_else_is_named(tmp_path: Path, index: str) -> None:
    options = ours(tmp_path, ingest="c0ffee123456")
    with tarfile.open(tmp_path / "ingest.oci.tar", "w") as archive:
        member = tarfile.TarInfo("index.json")
        member.size = len(index)
        archive.addfile(member, io.BytesIO(index.encode()))
    done = run("list", *options)
    assert (done.returncode, done.stderr.startswith(f"error: {tmp_path}/ingest.oci.tar: ")) == (1, True), done.stderr


def test_the_build_labels_images_with_the_tag_that_it_gives_them() -> None:
    assert (DEPLOY / "docker/Dockerfile").read_text("utf-8").count('org.opencontainers.image.version="${VERSION}"') == len(OURS)
    build = (DEPLOY / "docker/build.py").read_text("utf-8")
    assert '"VERSION": version.name' in build
    assert 'f"{options.registry}/iot-{target}:{version.name}"' in build


@pytest.mark.parametrize("page", ["nodes.md", "nodes.zh-CN.md"])
def test_the_page_has_the_firewalls_rules(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    rows = {tuple(row) for row in re.findall(r"^\| `(\w+)` \| ([\d:]+|any)/(\w+) \| `(\w+)` \|", text, re.M)}
    source = {"firewall_lan": "lan", "firewall_nodes": "nodes", "firewall_servers": "rke2_servers", "firewall_pods": "pods"}
    ruled = {(source[re.findall(r"\w+", rule["from"])[0]], rule["port"] or "any", rule["protocol"], rule["on"]) for rule in RULES}
    assert rows == ruled


@pytest.mark.parametrize("page", ["nodes.md", "nodes.zh-CN.md"])
@pytest.mark.parametrize("command", ["copy", "carry"])
def test_the_page_brings_the_images_of_all_that_the_nodes_run(page: str, command: str) -> None:
    server = (DEPLOY / "ansible/roles/rke2/templates/server.yaml").read_text("utf-8")
    chosen = re.findall(r"^(?:cni|ingress-controller): \W*([\w-]+)", server, re.M)
    assert len(chosen) == 2
    text = (ROOT / "docs" / page).read_text("utf-8").replace("\\\n", " ")
    (line,) = re.findall(rf"^python3 deploy/harbor/images.py {command} (.*--release-list.*)$", text, re.M)
    lists = {f"rke2-images-{name}.linux-amd64.txt" for name in ("core", *chosen)} | {"longhorn-images.txt"}
    assert set(re.findall(r"--release-list (\S+)", line)) == lists
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()  # else `make images` would call the work tree dirty
    assert all(any(fnmatch(name, pattern) for pattern in ignored) for name in lists)


def test_secrets_are_outside_the_checkout() -> None:
    """What is in deploy/ holds no password, key or token of an installation."""
    values = yaml.safe_load((DEPLOY / "ansible/group_vars/all.yaml").read_text("utf-8"))
    assert values["secrets_dir"].endswith(".config/iot-platform")
    written = [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix in {".pem", ".key", ".age"}]
    assert written == []
    texts = (path.read_text("utf-8", "replace") for path in DEPLOY.rglob("*") if path.is_file())
    assert not any("AGE-SECRET-KEY-1" in text or "BEGIN PRIVATE KEY" in text for text in texts)
