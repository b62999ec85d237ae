"""deploy/docker: what the images are made of is in the checkout, comes from the named registry, and runs as nobody in particular."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S))
TARGETS = ("ingest", "platform")


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_a_bare_root_with_a_user_of_a_number(target: str) -> None:
    assert f"FROM scratch AS {target}\n" in DOCKERFILE
    stage = STAGES[target]
    assert "\nUSER 10001:10001\n" in stage
    assert "RUN" not in re.findall(r"^(\w+)", stage, re.M)
    assert "org.opencontainers.image.revision" in stage
    assert "HEALTHCHECK" not in stage  # OCI images lose it in silence


def test_everything_comes_from_the_named_registry() -> None:
    sources = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert {source for source in sources if source != "scratch" and source not in STAGES} == {"${BASE}", "${DATABASE}"}
    for name in ("BASE", "DATABASE"):
        assert re.search(rf"^ARG {name}=\$\{{REGISTRY\}}/\S+:\S+$", DOCKERFILE, re.M)


def test_the_databases_image_stays_another_s_but_for_one_copy() -> None:
    """The same version as without backups; no RUN: what is added must not need anything of an image that is not Debian's."""
    assert re.findall(r"^(\w+)", STAGES["timescaledb"], re.M) == ["COPY"]
    compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text("utf-8"))["services"]["timescaledb"]["image"]
    wanted = re.search(r"/(timescale/timescaledb:[\w.-]+)", compose)
    assert wanted is not None
    assert f"ARG DATABASE=${{REGISTRY}}/{wanted[1]}\n" in DOCKERFILE
    assert "://" not in re.sub(r"#.*", "", DOCKERFILE)


def test_the_platforms_image_serves_the_console_and_is_not_built_without_its_pages() -> None:
    stage = STAGES["platform-files"]
    assert "[console,kubernetes]" in stage
    assert "RUN test -f iot_platform/api/static/index.html" in stage


def test_what_is_copied_passes_the_ignore_file() -> None:
    kept = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = {source for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for source in line.split()[:-1]}
    assert {source for source in copied if not any(source == name or source.startswith(f"{name}/") for name in kept)} == set()
    assert {name for name in kept if not (ROOT / name).exists()} == set()


def test_the_commands_that_compose_gives_are_in_the_image() -> None:
    """Of the virtual environment's programs only those named stay."""
    kept = {
        target: set(match.split()) | {"python"}
        for target, match in re.findall(r"FROM wheel AS (\w+)-files.*?program\.sh /image ([\w -]+)", DOCKERFILE, re.S)
    }
    services = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text("utf-8"))["services"]
    for service in services.values():
        if target := re.search(r"/iot-(\w+):", service["image"]):
            called = [service.get("command", ["iot-ingest"]), service.get("healthcheck", {}).get("test", ["CMD", "python"])[1:]]
            for words in called:
                programs = words[:1] if words[:2] != ["iot", "exec"] else [words[0], words[2]]
                assert set(programs) <= kept[target[1]]


def test_a_root_without_package_lists_has_no_bill(tmp_path: Path) -> None:
    """A scanner would find it free of faults."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text('VERSION_ID="13"\n', "utf-8")
    (tmp_path / "var/lib/dpkg/status.d").mkdir(parents=True)
    bill = runpy.run_path(str(FOLDER / "sbom.py"))["bill"]
    with pytest.raises(ValueError, match="lost its package lists"):
        bill(tmp_path, "iot-ingest", "1", "sha256:0")


def test_the_builder_says_how_it_is_used() -> None:
    shown = subprocess.run([sys.executable, str(FOLDER / "build.py"), "--help"], check=True, capture_output=True, text=True).stdout
    options = set(re.findall(r"--[a-z][a-z-]+", (ROOT / "docs" / "deployment.md").read_text("utf-8").split("## The physical host")[0]))
    assert {option for option in options if option not in shown} == set()
