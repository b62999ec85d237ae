"""The documentation names files, commands and links that exist, and both languages say the same commands."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from iot_platform.cli.main import app

ROOT = Path(__file__).parents[2]
COMMAND: Any = get_command(app)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_a_page_lead_to_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    missing = [
        (name, anchor) for name, anchor in links if "://" not in name and anchor not in anchors(page.parent / name if name else page)
    ]
    assert missing == []


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in re.findall(r"^#+ +(.*?) *$", text, re.M))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name.endswith(".zh-CN.md")], ids=lambda page: page.name)
def test_both_languages_give_the_same_commands_and_name_each_other(page: Path) -> None:
    english = page.with_name(page.name.replace(".zh-CN", ""))
    assert code_blocks(english) == code_blocks(page)
    assert f"]({page.name})" in english.read_text("utf-8").split("##")[0]
    assert f"]({english.name})" in page.read_text("utf-8").split("##")[0]


def test_the_readme_has_commands() -> None:
    assert code_blocks(ROOT / "README.md") != []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_iot_that_are_named_exist(page: Path) -> None:
    """In blocks of commands and in code within sentences: each word that can be a command is one, each --option is known to it."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    lines = [line.partition(" #")[0] for block in blocks for line in block.replace("\\\n", " ").splitlines()] + inline
    called = [match[1].split() for line in lines if (match := re.match(r"(?:\S*/)?iot ([^'\"$(){}]+)$", line.strip()))]
    assert [problem for words in called if (problem := unknown(words))] == []


def unknown(words: list[str]) -> str:
    """What of `iot …` does not exist; empty if all of it does. An ellipsis or a bar ends what can be judged."""
    command: Any = COMMAND
    known: set[str] = {"--help", "--version"}
    for word in words:
        if "…" in word or "|" in word:
            return ""
        if word.startswith("--"):
            if word.partition("=")[0] not in known:
                return f"iot {' '.join(words)}: {word}"
        elif hasattr(command, "commands") and word in command.commands:
            command = command.load(word) if command is COMMAND else command.commands[word]
        elif hasattr(command, "commands") and word.islower():
            return f"iot {' '.join(words)}: {word}"
        known |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return ""


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_every_command_of_iot_is_named(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    hidden = {"clean-data"}  # `make clean-data`
    commands = set(COMMAND.commands) - hidden
    assert {command for command in commands if f"`{command}`" not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"`(?:[A-Z]+=\S+ )?make ([a-z-]+)`", page.read_text(encoding="utf-8"))) <= targets
