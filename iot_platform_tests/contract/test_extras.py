"""Each extra is what its package imports: the ingest daemon's machine needs neither Dagster nor polars nor a database driver."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"ingest_daemon", "iot_platform"}
PROGRAMS = {"dagster-webserver"}
"""Started, not imported."""
BLOCKED = """
import sys
absent = set(sys.argv.pop(1).split(","))
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


@cache
def distributions() -> dict[str, str]:
    """Module → the distribution that it comes from, spelt as in pyproject.toml; of several that share a module (google), the one named
    there."""
    named = declared("ingest") | declared("platform") | declared("console")
    spelt = {module: [name.lower().replace("_", "-") for name in names] for module, names in packages_distributions().items()}
    return {module: min(names, key=lambda name: name not in named) for module, names in spelt.items()}


def imported(package: str) -> set[str]:
    """The distributions that a package of ours imports, wherever in a file it does."""
    names: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    outside = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OURS
    return {distributions()[name] for name in outside}


def declared(extra: str) -> set[str]:
    """The distributions that an extra names itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["dependencies"] == []
    names = {re.split(r"[^a-z0-9-]", line)[0] for line in project["optional-dependencies"][extra]}
    return names - {"iot-platform"}


def blocked(code: str, modules: set[str]) -> "subprocess.CompletedProcess[str]":
    """Run code where these modules are not installed."""
    return subprocess.run([sys.executable, "-c", BLOCKED + code, ",".join(modules)], capture_output=True, text=True, check=False, cwd=ROOT)


def test_ingest_is_what_the_daemon_imports() -> None:
    assert declared("ingest") == imported("ingest_daemon")


def test_platform_is_what_the_platform_imports_and_starts() -> None:
    assert imported("iot_platform") <= declared("platform") | declared("kubernetes") | declared("console") | declared("ingest")
    assert declared("platform") - imported("iot_platform") == PROGRAMS
    assert declared("kubernetes") | declared("console") <= imported("iot_platform")
    assert declared("influx") <= imported("iot_platform/influx") <= declared("influx") | declared("platform") | declared("ingest")
    own = imported("iot_platform/api") | imported("iot_platform/accounts")
    assert declared("console") <= own <= declared("console") | declared("platform") | declared("ingest")


def test_the_daemon_runs_without_the_platform() -> None:
    absent = {module for module, name in distributions().items() if name in declared("platform")} | {"iot_platform"}
    assert {"dagster", "polars", "sqlalchemy", "psycopg2"} <= absent
    done = blocked("import ingest_daemon.__main__", absent)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("package", "arguments", "lacks", "extra"),
    [
        ("iot_platform", ["--version"], "typer", "platform"),
        ("iot_platform", ["decode"], "numpy", "platform"),
        ("ingest_daemon", ["--help"], "paho", "ingest"),
    ],
)
def test_a_missing_extra_is_named(package: str, arguments: list[str], lacks: str, extra: str) -> None:
    done = blocked(f"sys.argv[1:] = {arguments}\nfrom {package}.entry import main; main()", {lacks})
    assert done.returncode == 1
    assert f"needs the package {lacks}, which is not installed: pip install 'iot-platform[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
