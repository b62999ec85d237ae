"""Builds the images by buildah, each with its bill of materials: OCI archives in dist/images, the same digest for the same commit.

    sudo .venv/bin/python deploy/docker/build.py [--base IMAGE] [--database IMAGE] [--push] [ingest] [platform] [timescaledb]

Without --base the base is a Debian 13 root made by debootstrap from this machine's own apt mirror, once, and kept in IOT_CACHE_DIR.
"""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import NETWORK, cached, debian_mirror, install_packages, run_logged
from iot_platform.settings import Settings

SOURCE = Path(__file__).resolve().parents[2]
TARGETS = ("ingest", "platform")
DATABASE_TARGET = "timescaledb"
RELEASE = "trixie"
LOCAL_BASE = "localhost/debian:13"
REGISTRY = "192.168.1.100:8080/rke2"
_NEEDED = {"buildah": "builds the images", "debootstrap": "makes their base"}
_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "timeout", "default-timeout")


@dataclass(frozen=True)
class Version:
    """Of the work tree, for the images' labels; `created` is the commit's time."""

    name: str
    revision: str
    created: str


class Builder:
    """buildah with a storage of its own below `folder`; by root, without a daemon and without namespaces (chroot isolation)."""

    def __init__(self, folder: Path, log: Path, *, plain_http: bool = False) -> None:
        """With `plain_http` registries are spoken to without TLS."""
        self.folder, self.log = folder, log
        self._registries = ["--tls-verify=false"] if plain_http else []
        folder.mkdir(parents=True, exist_ok=True)
        driver = "overlay" if _overlay_works(folder) else "vfs"
        storage = folder / "storage.conf"
        storage.write_text(f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/{driver}"\nrunroot = "{folder}/run"\n', "utf-8")
        self.environment = {"CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot"}

    def buildah(self, *arguments: str) -> str:
        """Its standard output. Raises CalledProcessError, after what it said."""
        command = ["buildah", *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **self.environment})
        return done.stdout.strip()

    def import_base(self) -> str:
        """The debootstrap root as an image. Raises LocalStackError."""
        if LOCAL_BASE in self.buildah("images", "--noheading", "--format", "{{.Name}}:{{.Tag}}").splitlines():
            return LOCAL_BASE
        archive = Settings().cache_dir / f"debian-{RELEASE}.tar" / "root.tar"
        with cached(archive.parent, say) as made:
            if made is not None:
                self._debootstrap(made / archive.name)
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, str(archive), "/")
        self.buildah("commit", "--quiet", "--rm", "--timestamp", "0", container, LOCAL_BASE)
        return LOCAL_BASE

    def forget(self) -> None:
        """Remove what earlier runs left but the base: so that Debian's newer packages come in, and the disk does not fill."""
        self.buildah("rm", "--all")
        self.buildah("rmi", "--prune")
        names = self.buildah("images", "--noheading", "--format", "{{.Name}}:{{.Tag}}").splitlines()
        for name in names:
            if name.startswith("localhost/iot-"):
                # Not what a container still runs; that is said, and no reason to stop.
                subprocess.run(["buildah", "rmi", name], check=False, stdout=subprocess.DEVNULL, env={**os.environ, **self.environment})

    def build(self, target: str, base: str, version: Version, database: str = "") -> str:
        """Build one of TARGETS, or DATABASE_TARGET from an image of a database; its name in the storage. Raises LocalStackError."""
        name = f"localhost/iot-{target}:{version.name}"
        with TemporaryDirectory() as secrets:
            command = ["buildah", "build", "--file", str(SOURCE / "deploy/docker/Dockerfile"), "--target", target, "--tag", name]
            command += ["--format", "oci", "--network", "host", "--timestamp", "0", "--layers", *self._registries, *_pip(Path(secrets))]
            values = {"BASE": base, "VERSION": version.name, "REVISION": version.revision, "CREATED": version.created}
            values |= {"DATABASE": database} if database else {}
            command += [part for key, value in values.items() for part in ("--build-arg", f"{key}={value}")]
            command += ["--ignorefile", str(SOURCE / "deploy/docker/Dockerfile.dockerignore"), str(SOURCE)]
            run_logged(command, self.log, quiet, what=f"building {name}", environment=self.environment, hint=NETWORK)
        return name

    def export(self, image: str, archive: Path) -> str:
        """Write an OCI archive; the manifest's digest, the same that a registry shows."""
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.unlink(missing_ok=True)
        digest = archive.with_suffix(".digest")
        self.buildah("push", "--quiet", "--digestfile", str(digest), image, f"oci-archive:{archive}")
        return digest.read_text("ascii").strip()

    def push(self, image: str, reference: str) -> None:
        """To a registry, which then shows the digest that `export` returned. The login is the one of REGISTRY_AUTH_FILE."""
        self.buildah("push", "--quiet", *self._registries, image, f"docker://{reference}")

    def write_bill(self, image: str, digest: str, file: Path) -> tuple[int, int]:
        """Write the bill of materials; bytes and files of the image, unpacked."""
        container = self.buildah("from", "--pull-never", image)
        try:
            root = Path(self.buildah("mount", container))
            name, version = image.removeprefix("localhost/").split(":")
            command = [sys.executable, str(SOURCE / "deploy/docker/sbom.py"), str(root), name, version, digest]
            file.write_bytes(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            sizes = [path.lstat().st_size for path in root.rglob("*") if path.is_symlink() or path.is_file()]
            return sum(sizes), len(sizes)
        finally:
            self.buildah("rm", container)

    def _debootstrap(self, archive: Path) -> None:
        say(f"making a Debian 13 root ({RELEASE}); about a minute")
        root = archive.parent / "root"
        private = ["unshare", "--mount", "--propagation", "private"]
        mirror = debian_mirror()
        run_logged(
            [*private, "debootstrap", "--variant=minbase", RELEASE, str(root), mirror], self.log, quiet, what="debootstrap", hint=NETWORK
        )
        shutil.rmtree(root / "var/cache/apt/archives")
        archives = ((mirror, RELEASE), (mirror, f"{RELEASE}-updates"), (mirror.rstrip("/") + "-security", f"{RELEASE}-security"))
        lines = [f"deb {address} {suite} main\n" for address, suite in archives]
        (root / "etc/apt/sources.list").write_text("".join(lines), "ascii")
        run_logged(["tar", "-C", str(root), "--exclude=./dev/*", "-cf", str(archive), "."], self.log, quiet, what="tar")
        shutil.rmtree(root)


def work_tree() -> Version:
    """What git says of it; `-dirty` at the end when it is not as committed."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(SOURCE), *arguments], check=True, capture_output=True, text=True).stdout.strip()

    dirty = "-dirty" if git("status", "--porcelain") else ""
    revision = git("rev-parse", "HEAD")
    return Version(revision[:12] + dirty, revision + dirty, git("log", "-1", "--format=%cI"))


def say(text: str) -> None:
    """A line for people."""
    print(text, flush=True)


def quiet(_text: str) -> None:
    """A Note for what the log has."""


def _pip(folder: Path) -> list[str]:
    """Build secrets: the index and the authorities that this machine's pip is configured with."""
    shown = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True).stdout
    found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    values = {key.rpartition(".")[2].replace("_", "-"): value.strip("'\"") for key, value in found.items()}
    lines, secrets = ["[global]"], []
    lines += [f"{key} = {values[key]}" for key in _PIP_OPTIONS if key in values]
    if certificate := values.get("cert"):
        lines.append("cert = /run/ca.crt")
        secrets += ["--secret", f"id=ca,src={certificate}"]
    (folder / "pip.conf").write_text("\n".join(lines) + "\n", "utf-8")
    return [*secrets, "--secret", f"id=pip,src={folder}/pip.conf"]


def _overlay_works(folder: Path) -> bool:
    """Not on every file system, nor in every container; vfs does everywhere, by copying each layer."""
    with TemporaryDirectory(dir=folder) as name:
        layers = [Path(name) / part for part in ("lower", "upper", "work", "merged")]
        for layer in layers:
            layer.mkdir()
        lower, upper, work, merged = layers
        mount = ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", str(merged)]
        return subprocess.run(["unshare", "--mount", *mount], check=False, capture_output=True).returncode == 0


def main() -> int:
    """Build, write and describe what the command line names; 1 when something could not be built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "targets", nargs="*", choices=[*TARGETS, DATABASE_TARGET, []], help="all unless named; timescaledb only with --database"
    )
    parser.add_argument("--base", help="base image with apt, such as 192.168.1.100:8080/rke2/debian@sha256:…")
    parser.add_argument("--database", default="", help="image of the database that pgBackRest is added to, for compose.backup.yaml")
    parser.add_argument("--registry", default=os.environ.get("REGISTRY", REGISTRY), help="where --push puts them (%(default)s)")
    parser.add_argument("--push", action="store_true", help="push registry/iot-TARGET:commit; REGISTRY_AUTH_FILE names the login")
    parser.add_argument("--plain-http", action="store_true", help="registries without TLS, such as Harbor on port 8080")
    parser.add_argument("--output", type=Path, default=SOURCE / "dist" / "images", help="folder of the archives (%(default)s)")
    options = parser.parse_args()
    folder = Settings().local_dir / "images"
    log = folder / "build.log"
    try:
        needed = {name: why for name, why in _NEEDED.items() if shutil.which(name) is None}
        install_packages(needed, log, say)
        builder, version = Builder(folder, log, plain_http=options.plain_http), work_tree()
        builder.forget()
        base = options.base or builder.import_base()
        if DATABASE_TARGET in options.targets and not options.database:
            parser.error("timescaledb needs --database, such as 192.168.1.100:8080/rke2/timescale/timescaledb:2.22.1-pg17")
        for target in options.targets or (*TARGETS, *((DATABASE_TARGET,) if options.database else ())):
            image = builder.build(target, base, version, options.database)
            digest = builder.export(image, options.output / f"{target}.oci.tar")
            if target == DATABASE_TARGET:  # what is in it is another's; of what we add, dpkg's entries say it
                say(f"{image} {digest}")
            else:
                size, files = builder.write_bill(image, digest, options.output / f"{target}.sbom.json")
                say(f"{image} {digest} {size / 1e6:.0f} MB in {files} files unpacked")
            if options.push:
                builder.push(image, f"{options.registry}/iot-{target}:{version.name}")
    except LocalStackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
