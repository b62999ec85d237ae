"""Packages of npm, each set once into a folder of the cache, whoever asks first."""

from collections.abc import Callable, Sequence
from pathlib import Path

from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import NETWORK, Note, cached, run_logged, which


def missing(target: Path, why: str) -> dict[str, str]:
    """Debian packages that this machine lacks for it → why they are needed; npm only where `target` is not made yet."""
    wanted = {} if which("node") else {"nodejs": why}
    return wanted if which("npm") or target.exists() else wanted | {"npm": why}


def installed(
    sources: Sequence[Path], target: Path, log: Path, note: Note, *options: str, then: Callable[[Path], None] = lambda _: None
) -> Path:
    """`target` with copies of the sources, package.json and package-lock.json among them, and node_modules as these pin them.

    Args:
        options: of `npm ci`.
        then: makes more of the folder, before anybody else sees it.

    Raises:
        LocalStackError: no npm, no network.
    """
    with cached(target, note) as new:
        if new is not None:
            npm = which("npm")
            if npm is None:
                raise LocalStackError("npm is not installed")
            for path in sources:
                (new / path.name).write_bytes(path.read_bytes())
            command = [npm, "ci", "--prefix", str(new), "--ignore-scripts", "--no-audit", "--no-fund", *options]
            run_logged(command, log, note, what="npm ci", hint=NETWORK)
            then(new)
    return target
