"""What a viewer of latest values is sent: what is new to it, each series' newest, nothing twice."""

import itertools
import json
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iot_platform.api import live_selection
from iot_platform.api.live_selection import Selection

SERIES = [("p", f"d{number}", "m") for number in range(4)]
Steps = st.lists(st.dictionaries(st.sampled_from(SERIES), st.integers(0, 2), max_size=4), min_size=1, max_size=8)
"""How much each series goes forward from one look to the next; those left out are not there then."""


def text(state: dict[tuple[str, str, str], int]) -> str:
    """As _LATEST writes it; the time grows with the value."""
    return "\n".join(json.dumps([*key, value * 1_000_000, value / 2, None, None]) for key, value in state.items())


class Viewer:
    """A page: what it holds, and what it was sent."""

    def __init__(self, selection: Selection) -> None:
        self.selection, self.number, self.generation = selection, selection.number, selection.generation
        self.held: dict[tuple[str, str, str], Any] = {}
        self.begin()

    def begin(self) -> None:
        """Load everything, as the page does after resync."""
        self.held = {key: row[4] for key, (_, row) in self.selection.changes.items()}
        self.number, self.generation = self.selection.number, self.selection.generation

    def look(self) -> None:
        """Take what there is, and check that none of it is known already."""
        if self.generation != self.selection.generation:
            self.begin()
        while (found := self.selection.after(self.number)) is not None:
            assert found[0] > self.number
            self.number = found[0]
            columns = json.loads(found[1])["columns"]
            for project, device, metric, value in zip(*(columns[name] for name in ("project", "device", "metric", "value")), strict=True):
                assert self.held.get((project, device, metric)) != value
                self.held[project, device, metric] = value


@given(Steps, st.data())
def test_viewers_hold_what_is_stored_however_seldom_they_look(steps: list[dict[tuple[str, str, str], int]], data: st.DataObject) -> None:
    reached: Counter[tuple[str, str, str]] = Counter()
    states = []
    for step in steps:
        reached.update(step)
        states.append({key: reached[key] for key in step})
    selection = Selection(itertools.count(1))
    selection.take(text(states[0]), "", None)
    often, seldom = Viewer(selection), Viewer(selection)
    for state in states[1:]:
        selection.take(text(state), "", None)
        often.look()
        if data.draw(st.booleans()):
            seldom.look()
    seldom.look()
    expected = {key: value / 2 for key, value in states[-1].items()}
    assert often.held == seldom.held == expected
    assert selection.after(selection.number) is None


def test_a_large_event_comes_in_parts_of_which_each_says_how_far_it_goes() -> None:
    selection = Selection(itertools.count(7))
    selection.take("", "", None)
    begun = number = selection.number
    count = 2 * live_selection.MOST_ROWS + 1
    selection.take(
        "\n".join(json.dumps(["p", f"d{place}", "m", 0, 1.5, None, None]) for place in range(count)), "x", "2026-11-01T00:00:00Z"
    )
    devices: list[str] = []
    while (found := selection.after(number)) is not None:
        number = found[0]
        event = json.loads(found[1])
        assert event["committed_at"] == "2026-11-01T00:00:00Z"
        devices += event["columns"]["device"]
    assert (len(devices), len(set(devices)), number - begun) == (count, count, count)


def test_texts_with_any_characters_are_one_row_each() -> None:
    selection = Selection(itertools.count(1))
    selection.take(None, "", None)
    odd = 'two\nlines\t"quoted" \u2028 \\n 中文'
    assert selection.take(json.dumps(["1968193631353446400", odd, "m", 1_700_000_000_123_456, None, odd, 1]), "", None)
    found = selection.after(selection.since)
    assert found is not None
    columns = json.loads(found[1])["columns"]
    assert (columns["project"], columns["device"], columns["value_text"]) == (["1968193631353446400"], [odd], [odd])
    assert (columns["time"], columns["value"], columns["flags"]) == ([1_700_000_000_123], [None], [1])
