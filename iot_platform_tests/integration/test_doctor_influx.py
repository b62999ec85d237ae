"""`iot doctor` on each InfluxDB that follows: whether it answers, has the database, and keeps up."""

import pytest
from pydantic import SecretStr

from iot_platform.diagnostics.doctor_influx import influx_findings
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.servers.influxd import InfluxDatabase


def found(settings: Settings, url: str | None) -> list[tuple[str, str]]:
    """What, and how bad; each but a good one has a remedy."""
    findings = list(influx_findings(settings.model_copy(update={"influx_url": url and SecretStr(url)})))
    assert all(each.remedy for each in findings if each.state != "ok")
    return [(each.what, each.state) for each in findings]


@pytest.mark.parametrize(
    ("url", "state"),
    [("{url}", "ok"), ("{url}_none", "bad"), ("http://127.0.0.1:9/iot", "bad"), ("nonsense", "bad")],
)
def test_each_server_is_asked(settings: Settings, influx: InfluxDatabase, url: str, state: str) -> None:
    (finding,) = found(settings, url.format(url=influx.url))
    assert finding == ("InfluxDB" if url == "nonsense" else "InfluxDB influx", state)


def test_a_sink_that_is_late_or_lacks_points_is_told(settings: Settings, influx: InfluxDatabase) -> None:
    assert found(settings, None) == []
    query(settings, "INSERT INTO sink (sink, error, error_since) VALUES ('influx', 'no space left', now())")
    query(
        settings,
        "INSERT INTO sink_refused (sink, series_id, time, tenant_id, reason, detail)"
        " VALUES ('influx', 1, now(), 't', 'server', 'conflict')",
    )
    assert found(settings, influx.url) == [("InfluxDB influx", "ok"), ("InfluxDB influx", "risk"), ("InfluxDB influx", "note")]
