"""docs/guarantees.md names a drill for each promise, and every drill proves something that it names."""

import re
from pathlib import Path

import pytest

from iot_platform.drills.catalog import all_drills

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["guarantees.md", "guarantees.zh-CN.md"])
def test_page_and_drills_name_each_other(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")
    drills = {drill.name for drill in all_drills()}
    assert {drill for drill in drills if f"`{drill}`" not in page} == set()
    rows = [line for line in page.splitlines() if line.startswith("|") and line.count("|") == 4]
    promised = {word for line in rows for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", line.split("|")[3])}
    assert promised - drills == set()


def test_both_languages_promise_the_same() -> None:
    english, chinese = ((DOCS / name).read_text(encoding="utf-8") for name in ("guarantees.md", "guarantees.zh-CN.md"))
    assert re.findall(r"`[^`]+`", english) == re.findall(r"`[^`]+`", chinese)
