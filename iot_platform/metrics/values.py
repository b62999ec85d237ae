"""What the metrics say, by name and label values; replaced piece by piece by the threads that look, read by those that answer."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from iot_platform.metrics.definitions import DEFINITIONS, OTHER, TOP, Definition

Labels = tuple[str, ...]
Samples = dict[Labels, float]


class Histogram:
    """Counts by upper bound, and the sum of what was counted."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0.0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Count a value that occurred `weight` times."""
        place = next((place for place, bound in enumerate(self._bounds) if value <= bound), len(self._bounds))
        self._counts[place] += weight
        self.sum += value * weight

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound as Prometheus writes it → values up to it."""
        total, found = 0.0, []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            found.append((floatToGoString(bound), total))  # type: ignore[no-untyped-call]
        return found


class Values:
    """Of each metric its samples. A metric that was never set has none, and is on the page by its type and meaning only."""

    _KNOWN: Final = {definition.name: definition for definition in DEFINITIONS}

    def __init__(self) -> None:
        self._samples: dict[str, Samples] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}
        self._updating = threading.Lock()

    def put(self, name: str, samples: Mapping[Labels, float] | float | None) -> None:
        """Replace all samples of a metric; a number is that of a metric without labels, None takes it away.

        Raises:
            KeyError: DEFINITIONS has no such metric. ValueError: its labels are others.
        """
        definition = self._KNOWN[name]
        if samples is None:
            samples = {}
        elif not isinstance(samples, Mapping):
            samples = {(): samples}
        if any(len(labels) != len(definition.labels) for labels in samples):
            raise ValueError(f"{name} has the labels {definition.labels}")
        self._samples[name] = dict(samples)

    def update(self, name: str, labels: Labels, value: float) -> None:
        """Set one sample of a metric."""
        with self._updating:
            self.put(name, self._samples.get(name, {}) | {labels: value})

    def put_histograms(self, name: str, histograms: Mapping[Labels, Histogram]) -> None:
        """By label values; they may go on counting."""
        self._histograms[self._KNOWN[name].name] = dict(histograms)

    def get(self, name: str) -> Samples:
        """Samples of a metric; empty if there are none."""
        return self._samples.get(name, {})

    def families(self) -> Iterator[Metric]:
        """For the page: every metric once, every series once."""
        for definition in DEFINITIONS:
            yield self._family(definition)

    def _family(self, definition: Definition) -> Metric:
        if definition.kind == "histogram":
            family = HistogramMetricFamily(definition.name, definition.meaning, labels=definition.labels)
            for labels, histogram in sorted(self._histograms.get(definition.name, {}).items()):
                family.add_metric(labels, histogram.buckets(), histogram.sum)
            return family
        kind = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
        plain = kind(definition.name, definition.meaning, labels=definition.labels)
        for labels, value in sorted(self._samples.get(definition.name, {}).items()):
            plain.add_metric(labels, value)
        return plain


def foremost(rows: Iterable[tuple[Labels, float]], *, summed: bool) -> Samples:
    """The TOP largest by their own labels; the rest together as `other`, summed up or the largest of them. Names that are too long for
    a page are cut."""
    ordered = sorted(rows, key=lambda row: (-row[1], row[0]))
    found: Samples = {}
    for labels, value in ordered[:TOP]:
        shown = tuple(label[:128] for label in labels)
        found[shown] = found.get(shown, 0.0) + value if summed else max(found.get(shown, 0.0), value)
    if rest := ordered[TOP:]:
        key = (OTHER,) * len(rest[0][0])
        values = [value for _, value in rest] + ([found[key]] if key in found else [])
        found[key] = sum(values) if summed else max(values)
    return found
