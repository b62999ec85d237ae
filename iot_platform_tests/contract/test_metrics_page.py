"""Names of metrics follow one scheme, no page has a series twice, and docs/metrics.md says what the code has."""

import re
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ingest_daemon.figures import Totals
from ingest_daemon.metrics import Metrics
from iot_platform.api.measures import Measures
from iot_platform.metrics.dagster_look import JOBS
from iot_platform.metrics.definitions import DEFINITIONS, OTHER, TOP
from iot_platform.metrics.exporter import Exporter
from iot_platform.metrics.values import Histogram, foremost
from iot_platform.settings import Settings
from scripts import metrics_page

UNITS = {
    "seconds",
    "bytes",
    "days",
    "messages",
    "measurements",
    "chunks",
    "notes",
    "incidents",
    "evaluations",
    "connections",
    "runs",
    "clients",
}
COUNTED = {"requests", "logins", "streams", "differences", "gaps", "missing", "cuts", "failures", "lost", "series"}
BOOLEAN = {"up", "connected", "full", "problem", "enabled", "failed", "off"}
NEVER = {"device", "device_id", "run_id", "topic", "client_id", "job", "instance"}  # the last two are Prometheus' own


def platform_page() -> CollectorRegistry:
    """As `iot metrics` shows it, with two series of every metric."""
    exporter = Exporter(Settings())
    for definition in DEFINITIONS:
        both = [tuple(f"{label}{number}" for label in definition.labels) for number in (1, 2)]
        if definition.kind == "histogram":
            exporter.values.put_histograms(definition.name, {labels: Histogram((1.0, 5.0)) for labels in both})
        else:
            exporter.values.put(definition.name, dict.fromkeys(both, 1.0))
    registry = CollectorRegistry()
    registry.register(exporter)
    return registry


def daemon_page() -> CollectorRegistry:
    metrics = Metrics(Totals)
    metrics.show_certificates(lambda: {("mqtt", "ca"): 1.0, ("kafka", "ca"): 2.0})
    return metrics.registry


def console_page() -> CollectorRegistry:
    measures = Measures(lambda: {"console": 1, "tenants": 2})
    for route in ("/session", "/tenants/{tenant}/series"):
        measures.requests.labels(route, "200").inc()
        measures.seconds.labels(route).observe(0.1)
    return measures.registry


PAGES = {"platform": platform_page, "daemon": daemon_page, "console": console_page}


def families(text: str) -> Iterable[Metric]:
    return text_string_to_metric_families(text)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_has_no_series_twice_and_reads_back(page: Callable[[], CollectorRegistry]) -> None:
    text = generate_latest(page()).decode()
    series = Counter((sample.name, *sorted(sample.labels.items())) for family in families(text) for sample in family.samples)
    assert [name for name, count in series.items() if count > 1] == []
    assert len(series) > 20
    kinds = Counter(re.findall(r"^# TYPE (\S+)", text, re.M))
    assert set(kinds.values()) == {1}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_names_follow_the_scheme(page: Callable[[], CollectorRegistry]) -> None:
    for family in page().collect():
        words = set(family.name.split("_"))
        assert re.fullmatch(r"iot(_[a-z]+)+", family.name), family.name
        assert words & (UNITS | COUNTED | BOOLEAN), f"{family.name} names no unit"
        assert words & BOOLEAN or not {"timestamp"} & words or family.name.endswith("_timestamp_seconds"), family.name
        assert family.documentation.endswith("."), family.name
        assert not NEVER & {label for sample in family.samples for label in sample.labels}


def test_values_refuse_what_is_not_defined() -> None:
    values = Exporter(Settings()).values
    with pytest.raises(KeyError):
        values.put("iot_unknown", 1)
    with pytest.raises(ValueError, match="has the labels"):
        values.put("iot_server_up", 1)


def test_counters_are_there_before_they_count() -> None:
    runs = Exporter(Settings())._dagster._runs
    assert set(runs.values()) == {0.0}
    assert {job for job, _ in runs} == {*JOBS, OTHER}


def test_the_foremost_have_series_of_their_own() -> None:
    rows = [((f"tenant {number:04}",), float(number)) for number in range(1000)]
    found = foremost(rows, summed=True)
    assert len(found) == TOP + 1
    assert found["tenant 0999",] == 999
    assert sum(found.values()) == sum(range(1000))
    assert foremost(rows, summed=False)[OTHER,] == 999 - TOP
    assert foremost([], summed=True) == {}
    assert foremost([((OTHER,), 5.0), *rows], summed=True)[OTHER,] == sum(range(1000 - TOP)) + 5


def test_two_names_that_are_cut_to_one_are_one_series() -> None:
    assert foremost([(("a" * 200 + "1",), 1.0), (("a" * 200 + "2",), 2.0)], summed=True) == {("a" * 128,): 3.0}


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram((1.0, 5.0))
    for value in (0.5, 1.0, 4.0, 9.0):
        histogram.add(value, 2)
    assert histogram.buckets() == [("1.0", 4.0), ("5.0", 6.0), ("+Inf", 8.0)]
    assert histogram.sum == 29


@pytest.mark.parametrize(("name", "language"), [("metrics.md", "en"), ("metrics.zh-CN.md", "zh")])
def test_the_page_equals_the_code(name: str, language: str) -> None:
    assert (metrics_page.DOCS / name).read_text("utf-8") == metrics_page.render(language), "run `make metrics-page`"
    known = {row[0] for part in metrics_page.rows() for row in part}
    assert set(metrics_page.CHINESE) == known
