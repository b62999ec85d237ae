"""The documentation names files, commands and links that exist, and both languages say the same commands."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from iot_platform.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOP_LEVEL = ("iot_platform/", "ingest_daemon/", "iot_platform_tests/", "sql/", "deploy/", "docs/", "bench/", "scripts/", "grafana/")


def code_blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`([^`\s]+)`", page.read_text(encoding="utf-8"))
    missing = [path for path in named if path.startswith(TOP_LEVEL) and "NNNN" not in path and not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_both_languages_give_the_same_commands() -> None:
    assert code_blocks(ROOT / "README.md") == code_blocks(ROOT / "README.zh-CN.md") != []


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_every_command_of_iot_is_named(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    hidden = {"clean-data"}  # `make clean-data`
    commands = set(get_command(app).commands) - hidden  # type: ignore[attr-defined]
    assert {command for command in commands if f"`{command}`" not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"`(?:[A-Z]+=\S+ )?make ([a-z-]+)`", page.read_text(encoding="utf-8"))) <= targets
