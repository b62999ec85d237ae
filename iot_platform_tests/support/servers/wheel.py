"""The wheel of this work tree, installed into an environment of its own that has the running one's packages but not the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
# An audit hook: importing a module and reading a file both open it.
WATCH = """
import os, sys
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path.startswith({checkout!r}) and not path.startswith({packages!r}):
            with open({log!r}, "a") as log:
                log.write(path + "\\n")
sys.addaudithook(watch)
"""


def tracked() -> list[Path]:
    """The files of the work tree that git has, or would add; links are links."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in names.split("\0") if name and ((path := ROOT / name).exists() or path.is_symlink())]


def build(folder: Path) -> Path:
    """The wheel, built where only tracked files are; they are gone afterwards."""
    clean = folder / "clean"
    for path in tracked():
        target = clean / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)
    _run("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(clean))
    shutil.rmtree(clean)
    (wheel,) = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Installation:
    """Runs what the wheel installed, in a folder of its own; `opened` has each file of the checkout that was opened meanwhile."""

    folder: Path

    def run(self, program: str, *arguments: str, stdin: bytes = b"", **environment: str) -> "subprocess.CompletedProcess[str]":
        """A program of the environment, with the given IOT_ variables and none of the user's."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        command = [str(self.folder / "venv" / "bin" / program), *arguments]
        own = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONWARNINGS": "ignore", "COLUMNS": "200", **environment}
        done = subprocess.run(command, input=stdin, capture_output=True, check=False, cwd=home, env=own, timeout=180)
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    @property
    def opened(self) -> list[str]:
        """Files of the checkout."""
        log = self.folder / "opened"
        return sorted(set(log.read_text("utf-8").splitlines())) if log.exists() else []


def install(wheel: Path, folder: Path) -> Installation:
    """A new environment in the folder: the wheel, the packages of the running environment, no network."""
    environment = folder / "venv"
    venv.create(environment, symlinks=True)
    python = str(environment / "bin" / "python")
    _run("--python", python, "install", "--no-deps", "--no-index", str(wheel))
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    # A .pth file's folders come last, and .pth files in them (the editable checkout's) do not count.
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    paths = {"checkout": f"{ROOT.resolve()}/", "packages": f"{Path(sys.prefix).resolve()}/", "log": str(folder / "opened")}
    (site / "sitecustomize.py").write_text(WATCH.format(**paths), "utf-8")
    return Installation(folder)


def _run(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
