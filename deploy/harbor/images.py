"""Brings the images of images.yaml into Harbor, digest by digest: directly, or carried on a disk. Each may be interrupted and repeated.

    images.py list                          # what there is, and what for
    images.py tag                           # the tag of our own images, as `make images` built them: for a release
    images.py pin                           # write the digests that are missing into images.yaml
    images.py copy [--dry-run]              # a machine that reaches both: from their registries into Harbor
    images.py carry FOLDER [--dry-run]      # a machine with internet: an OCI layout of each image, and SHA256SUMS
    images.py push FOLDER [--dry-run]       # a machine that reaches Harbor: from the folder
    images.py verify [FOLDER]               # Harbor has each digest, with all that belongs to it

For Python 3.10, as Ubuntu 22.04 has it, with python3-yaml. Uses `crane`, which copies all platforms of an image and changes no digest.
Login: `crane auth login 192.168.1.100:8080 --username admin --password-stdin <~/.config/iot-platform/harbor-admin`.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("images.yaml")
REGISTRY = "192.168.1.100:8080"
SUMS = "SHA256SUMS"
INDEX = "images.json"
VERSION = "org.opencontainers.image.version"
NOT_BUILT = "not-built"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ImageError(Exception):
    """An image cannot be had, or is not what it should be; the message names it. Repeating is safe."""


@dataclass(frozen=True)
class Image:
    """One to be in Harbor: from `source`, a registry's `repo:tag` or the path of an OCI archive, as `target`, `project/name:tag`."""

    source: str
    target: str
    digest: str | None
    purpose: str
    is_archive: bool = False
    by_tag: bool = False  # of a release's list, which has no digests

    @property
    def folder(self) -> str:
        """A name that every file system takes."""
        return re.sub(r"[^a-z0-9.-]", "_", self.target.lower())


class Crane:
    """The program; raises ImageError with the last line of what it says."""

    def __init__(self, program: str) -> None:
        self.program = program

    def __call__(self, *arguments: str) -> str:
        try:
            done = subprocess.run([self.program, *arguments], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise ImageError(f"{self.program} is not installed: one file, from go-containerregistry's releases, or --crane PATH") from None
        if done.returncode != 0:
            raise ImageError(f"crane {' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
        return done.stdout.strip()

    def digest(self, reference: str) -> str | None:
        """What a registry has under a name; None if nothing."""
        try:
            return self("digest", reference)
        except ImageError as error:
            if re.search("MANIFEST_UNKNOWN|NAME_UNKNOWN|NOT_FOUND|404 Not Found", str(error)):
                return None
            raise


def read_list(file: Path, releases: Sequence[Path], tag: str | None = None) -> list[Image]:
    """The images of images.yaml, of releases' lists and of our own build, whose tag is the one that it was built with unless given.

    Raises ImageError for what a list should not hold, and for an archive that does not say its version.
    """
    try:
        listed = yaml.safe_load(file.read_text("utf-8"))
        images = [_listed(entry, file) for entry in listed["images"]]
        listed["archives"] = [dict(entry) for entry in listed["archives"]]
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ImageError(f"{file}: it has lists `images` and `archives`: {error}") from error
    for entry in listed["archives"]:
        archive = CHECKOUT / entry["archive"]
        images.append(Image(str(archive), f"{entry['to']}:{tag or archive_version(archive)}", None, entry["for"], is_archive=True))
    for release in releases:
        if not release.is_file():
            raise ImageError(f"{release} is not there: it is one of the files of RKE2's or Longhorn's release, fetch it first")
        lines = [line.strip() for line in release.read_text("utf-8").splitlines()]
        images += [
            Image(full_name(line), release_target(line), None, release.name, by_tag=True)
            for line in lines
            if line and not line.startswith("#")
        ]
    by_target: dict[str, Image] = {}
    for image in images:
        by_target.setdefault(image.target, image)  # ours, with its digest, before a release's
    doubled = {image.target for image in images if not same(by_target[image.target], image)}
    by_folder = {image.folder: image.target for image in images}
    doubled |= {image.target for image in images if by_folder[image.folder] != image.target}  # `carry` would keep one of them
    if doubled:
        raise ImageError(f"two images for one place: {', '.join(sorted(doubled))}")
    return list(by_target.values())


def same(one: Image, other: Image) -> bool:
    """Whether two entries mean one image: a release's list says no digest."""
    return one.source == other.source and (one.digest == other.digest or one.by_tag or other.by_tag)


def _listed(entry: dict[str, Any], file: Path) -> Image:
    if set(entry) != {"image", "digest", "to", "for"}:
        raise ImageError(f"{file}: {entry.get('image', entry)}: keys are image, digest, to, for")
    if entry["digest"] and not _DIGEST.fullmatch(entry["digest"]):
        raise ImageError(f"{file}: {entry['image']}: not a digest: {entry['digest']}")
    for name in (entry["image"], entry["to"]):
        if not re.fullmatch(r"[^:]+:\w[\w.-]{0,127}", name.rpartition("/")[2], re.ASCII) or name.endswith(":latest"):
            raise ImageError(f"{file}: {name}: a tag is needed, and not `latest`")
    return Image(entry["image"], entry["to"], entry["digest"] or None, entry["for"])


def full_name(name: str) -> str:
    """An image's name with its registry, which releases' lists leave out, and with Docker Hub's `library`, which nodes ask for."""
    first, _, rest = name.partition("/")
    if not rest or not ("." in first or ":" in first):
        first, rest = "docker.io", name
    return f"{first}/library/{rest}" if first == "docker.io" and "/" not in rest else f"{first}/{rest}"


def release_target(name: str) -> str:
    """Where the nodes look for it: RKE2's own under their own project, others where registries.yaml sends them."""
    path = full_name(name).partition("/")[2]
    return path if path.startswith("rancher/") else f"rke2/{path}"


def pin(images: Iterable[Image], file: Path, crane: Crane) -> list[str]:
    """Ask for the digests that are missing, and write them into the list; nothing else of it changes."""
    said = []
    for image in images:
        if image.digest or image.is_archive:
            continue
        digest = crane("digest", image.source)
        text = file.read_text("utf-8")
        pattern = re.compile(rf'(- image: {re.escape(image.source)}\n\s+digest: )""')
        changed, found = pattern.subn(rf'\g<1>"{digest}"', text)
        if found:
            write(file, changed.removesuffix("\n"))
            said.append(f"{image.source} is {digest}")
    return said


def wanted_digest(image: Image, crane: Crane) -> str:
    """What is to be copied. Images of a release's list are what its tag means; ours what the build wrote."""
    if image.is_archive:
        return read_archive(Path(image.source))[0]
    if image.digest is None and not image.by_tag:
        raise ImageError(f"{image.source} has no digest in the list: `pin` asks for it")
    return image.digest or crane("digest", image.source)


def read_archive(file: Path) -> tuple[str, dict[str, str]]:
    """Digest and labels of the image in an OCI archive. Raises ImageError."""
    try:
        with tarfile.open(file) as archive:
            members = {member.name.removeprefix("./"): member for member in archive}

            def read(name: str) -> Any:
                return json.load(archive.extractfile(members[name]))  # type: ignore[arg-type]

            digest = str(read("index.json")["manifests"][0]["digest"])
            manifest = read(f"blobs/{digest.replace(':', '/')}")
            config = read(f"blobs/{manifest['config']['digest'].replace(':', '/')}")
            return digest, dict(config.get("config", {}).get("Labels") or {})
    except (OSError, EOFError, LookupError, TypeError, AttributeError, ValueError, tarfile.TarError) as error:
        raise ImageError(f"{file}: {error!r}. `make images` writes it") from error


def archive_version(file: Path) -> str:
    """The commit that an archive was built from, whatever the work tree has now; NOT_BUILT where there is none. Raises ImageError."""
    if not file.exists():
        return NOT_BUILT
    version = read_archive(file)[1].get(VERSION, "unknown")
    if version == "unknown":
        raise ImageError(f"{file} has no label {VERSION}: `make images` sets it, --tag takes its place")
    return version


def built_tag(images: Iterable[Image]) -> str:
    """The one tag of our own images. Raises ImageError where they are not of one build."""
    tags = {image.target.rpartition(":")[2] for image in images if image.is_archive}
    if len(tags) != 1 or NOT_BUILT in tags:
        raise ImageError(f"our images are not of one build ({', '.join(sorted(tags)) or 'none listed'}): `make images` makes them all")
    return tags.pop()


def copy(image: Image, registry: str, crane: Crane, *, dry_run: bool, again: bool = False) -> str:
    """From registry to registry."""
    digest, target = wanted_digest(image, crane), f"{registry}/{image.target}"
    if crane.digest(target) == digest and not again:
        return "is there"
    if dry_run:
        return f"would be copied: {digest}"
    if image.is_archive:
        layout = Path(image.source).with_suffix(".layout")
        unpack(image, layout)
        crane("push", str(layout), target)
        shutil.rmtree(layout)
    else:
        for part in parts(crane("manifest", f"{image.source}@{digest}")) if again else ():
            crane("copy", f"{repository(image.source)}@{part}", f"{repository(target)}@{part}")
        crane("copy", f"{image.source}@{digest}", target)
    compare(crane, target, digest)
    return f"copied: {digest}"


def carry(image: Image, folder: Path, crane: Crane, *, dry_run: bool) -> str:
    """Into an OCI layout of its own. One that is whole stays; one that was interrupted starts anew."""
    digest, layout = wanted_digest(image, crane), folder / image.folder
    if layout_digest(layout) == digest and is_whole(layout):
        return "is there"
    if dry_run:
        return f"would be carried: {digest}"
    new = folder / f"{image.folder}.part"
    for left in (new, layout):
        shutil.rmtree(left, ignore_errors=True)
    if image.is_archive:
        unpack(image, new)
    else:
        crane("pull", "--format=oci", f"{image.source}@{digest}", str(new))
    if layout_digest(new) != digest:
        raise ImageError(f"{image.source}: {digest} was asked for, {layout_digest(new)} came")
    new.rename(layout)
    return f"carried: {digest}"


def is_whole(layout: Path) -> bool:
    """Whether all that an image consists of is there and is what its name says; a disk that was full or pulled out has something else."""
    try:
        waiting = list(json.loads((layout / "index.json").read_text("utf-8"))["manifests"])
        while waiting:
            entry = waiting.pop()
            blob = layout / "blobs" / entry["digest"].replace(":", "/")
            if entry.get("urls"):
                continue  # somebody else's layer, which no registry keeps
            if sha256(blob) != blob.name:
                return False
            if "manifest" in entry["mediaType"] or "index" in entry["mediaType"]:
                document = json.loads(blob.read_bytes())
                waiting += [
                    *document.get("manifests", ()),
                    *document.get("layers", ()),
                    *([document["config"]] if "config" in document else []),
                ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
    return True


def write_sums(folder: Path, images: Sequence[Image]) -> None:
    """What the folder holds, as `sha256sum -c` reads it. Blobs are called by their own sums: they are not read again."""
    names = read_index(folder) | {image.folder: image.target for image in images}
    held = {name: layout_digest(folder / name) for name in names}
    index = [{"folder": name, "to": names[name], "digest": digest} for name, digest in held.items() if digest]
    write(folder / INDEX, json.dumps(index, indent=1))
    lines = [f"{sha256(folder / INDEX)}  {INDEX}"]
    for entry in index:
        for file in sorted(path for path in (folder / str(entry["folder"])).rglob("*") if path.is_file()):
            known = file.name if file.parent.name == "sha256" else sha256(file)
            lines.append(f"{known}  {file.relative_to(folder).as_posix()}")
    write(folder / SUMS, "\n".join(lines))


def read_index(folder: Path) -> dict[str, str]:
    """Folder → place in Harbor of what was carried before, of another list or of --only; without what cannot be read any more."""
    try:
        return {str(entry["folder"]): str(entry["to"]) for entry in json.loads((folder / INDEX).read_text("utf-8"))}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def write(file: Path, text: str) -> None:
    """At once and whole, or not at all."""
    new = file.with_name(f"{file.name}.part")
    new.write_text(text + "\n", "utf-8")
    new.replace(file)


def carried(folder: Path) -> list[Image]:
    """What a folder that was carried holds. Raises ImageError where it is not as it was written."""
    if read_sums(folder).get(INDEX) != sha256(folder / INDEX):
        raise ImageError(f"{folder / INDEX} is not as it was written: carry it again")
    return [Image(entry["folder"], entry["to"], entry["digest"], "") for entry in json.loads((folder / INDEX).read_text("utf-8"))]


def read_sums(folder: Path) -> dict[str, str]:
    """File → sum. Raises ImageError."""
    try:
        lines = [line.split("  ", 1) for line in (folder / SUMS).read_text("utf-8").splitlines()]
        return {name: known for known, name in lines}
    except OSError as error:
        raise ImageError(f"{folder}: {error}. `carry` writes it last: was it finished?") from error
    except ValueError as error:
        raise ImageError(f"{folder / SUMS} is not as it was written: carry it again") from error


def push(image: Image, folder: Path, registry: str, crane: Crane, *, dry_run: bool, again: bool = False) -> str:
    """From the folder into Harbor, after a look at each of its files. Parts that Harbor has are not sent again."""
    target, digest = f"{registry}/{image.target}", str(image.digest)
    if crane.digest(target) == digest and not again:
        return "is there"
    if dry_run:
        return f"would be pushed: {digest}"
    layout = folder / image.source
    expected = {name: known for name, known in read_sums(folder).items() if name.startswith(f"{image.source}/")}
    broken = [name for name, known in expected.items() if not (folder / name).is_file() or sha256(folder / name) != known]
    if broken or not expected:
        raise ImageError(f"{layout}: not as it was written: {', '.join(broken[:3]) or 'nothing of it'}. Carry it again")
    if again:
        push_parts(layout, repository(target), crane)
    crane("push", str(layout), target)
    compare(crane, target, digest)
    return f"pushed: {digest}"


def push_parts(layout: Path, target: str, crane: Crane) -> None:
    """The images that an index names, one by one: crane sends none of them where the registry has the index."""
    blobs = layout.resolve() / "blobs"
    (top,) = json.loads((layout / "index.json").read_text("utf-8"))["manifests"]
    for part in parts((blobs / top["digest"].replace(":", "/")).read_text("utf-8")):
        with tempfile.TemporaryDirectory() as folder:
            manifest = (blobs / part.replace(":", "/")).read_bytes()
            entry = {"mediaType": json.loads(manifest)["mediaType"], "digest": part, "size": len(manifest)}
            (Path(folder) / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}), "utf-8")
            shutil.copy(layout / "oci-layout", folder)
            (Path(folder) / "blobs").symlink_to(blobs)
            crane("push", folder, f"{target}@{part}")


def parts(manifest: str) -> list[str]:
    """The digests that an index names; none for a single image."""
    return [str(entry["digest"]) for entry in json.loads(manifest).get("manifests", [])]


def repository(reference: str) -> str:
    """Without the tag."""
    folder, _, name = reference.rpartition("/")
    return f"{folder}/{name.partition(':')[0]}"


def verify(image: Image, registry: str, crane: Crane) -> str:
    """The same digest, and every part of it there: an image can answer by its tag and yet lack what it points to."""
    target = f"{registry}/{image.target}"
    compare(crane, target, wanted_digest(image, crane))
    crane("validate", "--remote", target)
    return "whole"


def compare(crane: Crane, target: str, digest: str) -> None:
    """Raises ImageError where a registry has something else."""
    found = crane.digest(target)
    if found != digest:
        raise ImageError(f"{target} is {found or 'not there'}, not {digest}")


def unpack(image: Image, layout: Path) -> None:
    """An OCI archive as a layout."""
    shutil.rmtree(layout, ignore_errors=True)
    with tarfile.open(image.source) as archive:
        archive.extractall(layout, filter="data")


def layout_digest(layout: Path) -> str | None:
    """Of the image in an OCI layout; None where there is none."""
    try:
        manifests = json.loads((layout / "index.json").read_text("utf-8"))["manifests"]
    except (OSError, ValueError, KeyError):
        return None
    return str(manifests[0]["digest"]) if len(manifests) == 1 else None


def sha256(file: Path) -> str:
    """Of a file's content."""
    made = hashlib.sha256()
    with file.open("rb") as content:
        while part := content.read(1 << 20):
            made.update(part)
    return made.hexdigest()


def each(images: Sequence[Image], work: Callable[[Image], str]) -> int:
    """Do it for every image, though some fail; how many did."""
    failed = 0
    for number, image in enumerate(images, 1):
        try:
            print(f"[{number}/{len(images)}] {image.target} {work(image)}", flush=True)
        except (ImageError, OSError) as error:
            failed += 1
            print(f"[{number}/{len(images)}] {image.target} FAILED: {error}", file=sys.stderr, flush=True)
    return failed


def main() -> int:
    """Do what the command line says; 1 when an image failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["list", "tag", "pin", "copy", "carry", "push", "verify"])
    parser.add_argument("folder", type=Path, nargs="?", help="of carry and push; verify compares with it instead of the list")
    parser.add_argument("--list", type=Path, default=LIST, help="the list (%(default)s)")
    parser.add_argument(
        "--release-list", type=Path, action="append", default=[], help="images of a release of RKE2 or Longhorn, a name a line"
    )
    parser.add_argument("--only", default="", help="images whose place in Harbor has this in its name")
    parser.add_argument("--tag", help="of our own images (default: the commit that they were built from)")
    parser.add_argument("--registry", default=REGISTRY, help="Harbor (%(default)s)")
    parser.add_argument("--crane", default="crane", help="the program (%(default)s)")
    parser.add_argument("--again", action="store_true", help="copy or push, though Harbor has the digest: heals what verify found")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    options = parser.parse_args()
    if (options.command in {"carry", "push"}) != (options.folder is not None) and options.command != "verify":
        parser.error("carry and push want a folder, list, tag, pin and copy none")
    try:
        return run(options)
    except (ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    """The chosen command. Raises ImageError."""
    crane, folder, registry, dry_run, again = Crane(options.crane), options.folder, options.registry, options.dry_run, options.again
    from_folder = folder is not None and options.command != "carry"
    images = carried(folder) if from_folder else read_list(options.list, options.release_list, options.tag)
    images = [image for image in images if options.only in image.target]
    if options.only and not images:
        raise ImageError(f"no image has {options.only!r} in its place in Harbor: `list` shows them")
    if options.command == "list":
        for image in images:
            print(f"{registry}/{image.target}  {image.purpose}\n    {image.source}  {image.digest or 'no digest yet'}")
        return 0
    if options.command == "tag":
        print(built_tag(images))
        return 0
    if options.command == "pin":
        print("\n".join(pin(images, options.list, crane)) or "every image has a digest")
        return 0
    if options.command == "carry" and not dry_run:
        folder.mkdir(parents=True, exist_ok=True)
    work: dict[str, Callable[[Image], str]] = {
        "copy": lambda image: copy(image, registry, crane, dry_run=dry_run, again=again),
        "carry": lambda image: carry(image, folder, crane, dry_run=dry_run),
        "push": lambda image: push(image, folder, registry, crane, dry_run=dry_run, again=again),
        "verify": lambda image: verify(image, registry, crane),
    }
    failed = each(images, work[options.command])
    if options.command == "carry" and not dry_run:
        write_sums(folder, images)
    if failed:
        print(f"error: {failed} of {len(images)} failed; repeat the command, what is there stays", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
