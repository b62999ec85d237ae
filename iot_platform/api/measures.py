"""The console's own metrics: name, type, labels and meaning side by side."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    "iot_console_requests": ("route", "status"),
    "iot_console_request_seconds": ("route",),
    "iot_console_logins": ("result",),
    "iot_console_connections": ("whose",),
}
RESULTS: Final = ("ok", "wrong", "locked")


class Measures:
    """A registry of the application's own, so that tests can have several."""

    def __init__(self, connections: Callable[[], Mapping[str, int]]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "iot_console_requests",
            "Answered requests, by route and status; status 0: the asker was gone before.",
            LABELS["iot_console_requests"],
            **own,
        )
        self.seconds = Histogram(
            "iot_console_request_seconds",
            "Time to the end of the answer; streams and exports are left out.",
            LABELS["iot_console_request_seconds"],
            buckets=BUCKETS,
            **own,
        )
        self.logins = Counter("iot_console_logins", "Logins, by their result.", LABELS["iot_console_logins"], **own)
        self.streams = Gauge("iot_console_streams", "Live streams that are open.", **own)
        for result in RESULTS:
            self.logins.labels(result)
        self.registry.register(_Connections(connections))

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """One answered request."""
        route = getattr(scope.get("route"), "path", "other")
        self.requests.labels(route, str(status)).inc()
        if not route.endswith(("/live", "/export")):
            self.seconds.labels(route).observe(seconds)


class _Connections(Collector):
    def __init__(self, connections: Callable[[], Mapping[str, int]]) -> None:
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "iot_console_connections",
            "Open connections to the database: of the console's own role, and of tenants' logins.",
            labels=LABELS["iot_console_connections"],
        )
        for whose, count in self._connections().items():
            family.add_metric([whose], count)
        yield family
