"""Figures that commands show of small and new databases."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from iot_platform.cli.main import app
from iot_platform.compression.forecast import forecast
from iot_platform.compression.formats import outlook_text
from iot_platform.database import connect
from iot_platform.settings import Settings
from iot_platform.tenants.listing import tenants
from iot_platform_tests.support.feeds.drain import Feed, drain, query

TOPIC = "mtic/msg/client/realtime/{}/p/d"


def test_messages_of_the_last_24_hours(settings: Settings) -> None:
    feed = Feed(settings)
    for _ in range(5):
        feed.send(b'{"a":1}')
    feed.flush()
    drain(settings)
    now = datetime.now(UTC)
    with closing(connect(settings)) as connection:
        outlook = forecast(connection, settings)
        assert (outlook.messages_a_day, outlook.measurements_a_day) == (5, 5), "the first hour of a database counts"
        # An hour of which the younger part lies within 24 hours counts in part.
        hour = (now - timedelta(hours=24)).replace(minute=0, second=0, microsecond=0)
        query(settings, "UPDATE accounting_1h SET hour = %s, messages = 3600", hour)
        seconds = (hour + timedelta(hours=1) - (now - timedelta(hours=24))).total_seconds()
        assert seconds - 60 <= forecast(connection, settings).messages_a_day <= seconds + 1
        query(settings, "UPDATE accounting_1h SET hour = %s", hour - timedelta(hours=1))
        assert forecast(connection, settings).messages_a_day == 0


def test_a_young_database_is_not_taken_for_a_quiet_one(settings: Settings) -> None:
    """What the first hour brought is that hour's growth, although the chunk that holds it began at midnight."""
    feed = Feed(settings)
    for number in range(5_000):
        feed.send(b'{"a":%d,"text":"%s"}' % (number, b"x" * 500))
    feed.flush()
    drain(settings)
    with closing(connect(settings)) as connection:
        outlook = forecast(connection, settings)
    payloads = 5_000 * 500
    hours = max(outlook.seen / timedelta(hours=1), 1)
    assert payloads * 24 / hours < outlook.day_bytes < 6 * payloads * 24 / hours
    assert outlook_text(outlook).startswith("At the rate of the first ")


def test_about_how_many_bytes_a_tenant_takes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(settings)
    feed.send(b'{"a":1}', topic=TOPIC.format("small"))
    feed.flush()
    drain(settings)
    assert 100 < _bytes(settings)["small"] < 1_000, "one message is no chunk"
    for number in range(3_000):
        feed.send(b'{"a":%d,"text":"%s"}' % (number, b"x" * 900), topic=TOPIC.format("large"))
    feed.send(b'{"a":1}', topic=TOPIC.format("small"))
    feed.flush()
    drain(settings)
    found = _bytes(settings)
    kept = query(settings, "SELECT sum(bytes) FROM (VALUES ('message'), ('measurement')) t (name) CROSS JOIN retention_chunks(t.name)")[0][
        0
    ]
    assert 0.9 * float(kept) < found["large"] < 1.1 * float(kept)
    assert found["small"] < found["large"] / 1_000
    monkeypatch.setattr("iot_platform.settings.get_settings", lambda: settings)
    shown = CliRunner().invoke(app, ["tenant", "list"], env={"COLUMNS": "200"}).stdout
    assert f"about {found['large'] / 1e6:.1f} MB" in shown
    # everything went, the policy was widened, and late rows behind the mark are kept
    query(settings, "INSERT INTO retention_mark VALUES ('measurement', '', '', now() + interval '1 hour')")
    assert _bytes(settings) == found, "what is kept is what the books say, not what is behind the mark"


def _bytes(settings: Settings) -> dict[str, int]:
    with closing(connect(settings, "reader")) as connection:
        return {item.tenant: item.bytes for item in tenants(connection)}
