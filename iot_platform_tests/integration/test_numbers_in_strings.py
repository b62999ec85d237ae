"""The option numbers_in_strings, from the table to the values: the drain and a trace read it alike."""

from contextlib import closing
from typing import Any

from iot_platform.database import connect
from iot_platform.diagnostics.trace import follow
from iot_platform.settings import Settings
from iot_platform.telemetry.project_options import set_option
from iot_platform_tests.support.feeds.drain import Feed, check_books, drain, query

ROOT = "mtic/msg/client/realtime"
_ROWS = "SELECT tenant_id, project_id, value, value_int, value_text FROM measurement_named WHERE metric = 'm'"


def choose(settings: Settings, value: str, **whose: str) -> None:
    with closing(connect(settings, "writer", "test")) as connection:
        set_option(connection, "numbers_in_strings", value, **whose)


def rows(settings: Settings) -> set[tuple[Any, ...]]:
    return set(query(settings, _ROWS))


def test_strings_are_numbers_where_the_project_says_so(settings: Settings) -> None:
    choose(settings, "on", tenant="t")
    choose(settings, "off", tenant="t", project="q")
    feed = Feed(settings)
    for owner in ("t/p", "t/q", "u/p"):
        for _ in range(7):  # in columns
            feed.send(b'{"n":"21.5"}', topic=f"{ROOT}/{owner}/d")
        feed.send(b'{"m":"9007199254740993"}', topic=f"{ROOT}/{owner}/d")
    feed.flush()
    drain(settings)
    text = "9007199254740993"
    assert rows(settings) == {("t", "p", 9007199254740992.0, int(text), None), ("t", "q", None, None, text), ("u", "p", None, None, text)}
    assert set(query(settings, "SELECT project_id, value FROM measurement_named WHERE tenant_id = 't' AND metric = 'n'")) == {
        ("p", 21.5),
        ("q", None),
    }
    check_books(settings)
    offset = query(settings, "SELECT min(kafka_offset) FROM message_named WHERE tenant_id = 't' AND project_id = 'p'")[0][0]
    assert [item["value"] for item in follow(settings, 0, offset).measurements] == [21.5]
