"""Brokers from the registries of their languages, each once into a folder of the cache."""

import os
import sys
from pathlib import Path

from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import NETWORK, Note, cached, run_logged, which


def needs(command: str) -> str:
    """Path of a command; LocalStackError without it."""
    found = which(command)
    if found is None:
        raise LocalStackError(f"{command} is not installed")
    return found


def maven(pom: Path, target: Path, log: Path, note: Note) -> Path:
    """The jars that a pom names, and what they need, in `target`."""
    with cached(target, note) as new:
        if new is not None:
            command = [needs("mvn"), "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={new}"]
            run_logged(command, log, note, what="mvn", hint=NETWORK)
    return target


def go(module: Path, package: str, target: Path, log: Path, note: Note) -> Path:
    """The program `broker` in `target`, built from a package that the Go module in the folder `module` has or requires."""
    with cached(target, note) as new:
        if new is not None:
            command = [needs("go"), "build", "-C", str(module), "-mod=readonly", "-trimpath", "-o", str(new / "broker"), package]
            run_logged(command, log, note, what="go build", hint=NETWORK)
    return target


def cargo(package: str, version: str, target: Path, log: Path, note: Note) -> Path:
    """The programs of a crate, in `target`/bin."""
    with cached(target, note) as new:
        if new is not None:
            command = [needs("cargo"), "install", package, "--version", version, "--root", str(new), "--target-dir", str(new / "build")]
            run_logged(command, log, note, what="cargo install", environment={"CARGO_BUILD_JOBS": "1"}, hint=NETWORK)
    return target


def pip(requirements: Path, target: Path, log: Path, note: Note) -> Path:
    """The pinned packages, as a folder for PYTHONPATH."""
    with cached(target, note) as new:
        if new is not None:
            command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-t", str(new), "-r", str(requirements)]
            run_logged(command, log, note, what="pip install", hint=NETWORK)
    return target


def compiler() -> Path | None:
    """Of Java, if this machine has one: `java` compiles single source files with it."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home, "bin", "javac")) if home else which("javac")
    return Path(found) if found and Path(found).exists() else None


def java() -> str:
    """The command. LocalStackError where there is no compiler."""
    found = compiler()
    if found is None:
        raise LocalStackError("javac is not installed")
    return str(found.resolve().with_name("java"))
