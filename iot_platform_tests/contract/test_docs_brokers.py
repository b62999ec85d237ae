"""docs/brokers.md, in both languages, says of each broker of the catalogue what `make test-brokers` expects of it."""

from pathlib import Path

import pytest

from iot_platform_tests.support.brokers.catalogue import BROKERS, HABITS
from iot_platform_tests.support.brokers.habits import Habits

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "brokers.md", DOCS / "brokers.zh-CN.md"]
BROKER_COLUMNS, HABIT_COLUMNS = 4, 10
WORDS = {"brokers.md": ("yes", "no", "same", "new", "few", "all"), "brokers.zh-CN.md": ("是", "否", "原", "新", "少量", "全部")}


def rows(page: Path, columns: int) -> list[list[str]]:
    """Cells of the table that has so many columns and begins with a name in code."""
    lines = [line.strip("|").split("|") for line in page.read_text("utf-8").splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines if len(line) == columns]


def shown(habits: Habits, page: Path) -> list[str]:
    yes, no, same, new, few, everything = WORDS[page.name]

    def word(value: bool) -> str:
        return yes if value else no

    return [
        few if habits.small_window else everything,
        f"{word(habits.dup)}, {same if habits.same_ids else new}" if habits.absence else "–",
        f"{habits.comes_after_seconds} s" if habits.absence else "–",
        word(habits.absence),
        word(habits.restart),
        word(habits.kill),
        word(habits.retained_again),
        word(habits.dots_kept),
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_brokers(page: Path) -> None:
    documented = {row[0].strip("`"): row[1:3] for row in rows(page, BROKER_COLUMNS)}
    assert documented == {name: [f"{broker.VERSION}, {broker.SOURCE}", ", ".join(broker.PROTOCOLS)] for name, broker in BROKERS.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_habits(page: Path) -> None:
    documented = {(row[0].strip("`"), row[1]): row[2:] for row in rows(page, HABIT_COLUMNS)}
    assert documented == {key: shown(habits, page) for key, habits in HABITS.items()}
    assert set(HABITS) <= {(name, protocol) for name, broker in BROKERS.items() for protocol in broker.PROTOCOLS}
