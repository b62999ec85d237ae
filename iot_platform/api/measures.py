"""The console's own metrics: name, type and meaning side by side."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

if TYPE_CHECKING:
    from iot_platform.api.state import State

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)


class Measures:
    """A registry of the application's own, so that tests can have several."""

    def __init__(self, state: "State") -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "iot_console_requests",
            "Answered requests, by route and status; 0: the asker was gone.",
            ("route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "iot_console_request_seconds",
            "Time to the end of the answer, streams left out.",
            ("route",),
            registry=self.registry,
            buckets=BUCKETS,
        )
        self.logins = Counter("iot_console_logins", "Logins, by their result: ok, wrong, locked.", ("result",), registry=self.registry)
        self.streams = Gauge("iot_console_streams", "Live streams that are open.", registry=self.registry)
        self.registry.register(_Connections(state))

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """One answered request."""
        route = getattr(scope.get("route"), "path", "other")
        self.requests.labels(route, str(status)).inc()
        if not route.endswith(("/live", "/export")):
            self.seconds.labels(route).observe(seconds)


class _Connections(Collector):
    def __init__(self, state: "State") -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "iot_console_connections", "Open connections to the database: of the console's role, of tenants' logins.", labels=["whose"]
        )
        for whose, count in self._state.connections.items():
            family.add_metric([whose], count)
        yield family
