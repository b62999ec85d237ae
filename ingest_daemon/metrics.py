"""Every metric of the daemon: name, type and meaning side by side. All that the accounting counts comes from one snapshot per scrape.

received = delivered + dead-lettered + spooled + in flight + given up + missing. Counters go on counting after a restart.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ingest_daemon.figures import Totals

_COUNTERS: tuple[tuple[str, str, Callable[[Totals], int]], ...] = (
    ("messages_received", "PUBLISH packets received, redelivered ones included.", lambda t: t.received),
    ("messages_delivered", "Messages in the Kafka topic.", lambda t: t.delivered),
    ("messages_dead_lettered", "Messages in the dead-letter topic.", lambda t: t.dead_lettered),
    ("messages_redelivered", "Received messages that were recognised as sent again by the broker.", lambda t: t.redelivered),
    (
        "messages_given_up",
        "Messages that were unacknowledged when the daemon died and that the broker will not send again.",
        lambda t: t.given_up,
    ),
    ("mqtt_connections", "MQTT connections made.", lambda t: t.connections),
    (
        "mqtt_sessions_lost",
        "Reconnections at which the broker no longer had our session, and with it what it held.",
        lambda t: t.sessions_lost,
    ),
)
_GAUGES: tuple[tuple[str, str, Callable[[Totals], float]], ...] = (
    ("messages_in_flight", "Messages received and not settled yet, those awaited again after a crash included.", lambda t: t.unsettled),
    (
        "messages_awaiting_redelivery",
        "Messages in flight when the daemon died that the broker has not sent again yet.",
        lambda t: t.awaiting,
    ),
    ("payload_bytes_in_flight", "Payload bytes of the messages in flight.", lambda t: t.in_flight_bytes),
    ("spool_messages", "Messages in the spool on disk.", lambda t: t.spooled),
    ("messages_missing", "Messages that vanished from the spool: lost unless the file comes back.", lambda t: t.missing),
    ("last_message_timestamp_seconds", "Unix time at which the last message was received.", lambda t: t.last_received_us / 1e6),
)


class _AccountingCollector(Collector):
    def __init__(self, totals: Callable[[], Totals]) -> None:
        self._totals = totals

    def collect(self) -> Iterable[Metric]:
        """All from one moment."""
        totals = self._totals()
        for name, meaning, value in _COUNTERS:
            yield CounterMetricFamily(f"iot_ingest_{name}", meaning, value(totals))
        for name, meaning, level in _GAUGES:
            yield GaugeMetricFamily(f"iot_ingest_{name}", meaning, level(totals))


class _CertificateCollector(Collector):
    def __init__(self, ends: Callable[[], Mapping[tuple[str, str], float]]) -> None:
        self._ends = ends

    def collect(self) -> Iterable[Metric]:
        """Nothing for what is not used."""
        family = GaugeMetricFamily(
            "iot_ingest_certificate_expiry_timestamp_seconds",
            "Unix time at which a certificate ends: of the server, of this client, or the last one of the CAs that it trusts.",
            labels=["server", "certificate"],
        )
        for labels, end in sorted(self._ends().items()):
            family.add_metric(list(labels), end)
        yield family


class Metrics:
    """One registry per process."""

    def __init__(self, totals: Callable[[], Totals]) -> None:
        """`totals` is `Accounting.totals`: all counters at one moment."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that nobody asked for
        self.registry = registry = CollectorRegistry()
        registry.register(_AccountingCollector(totals))
        self.resent = Counter(
            "iot_ingest_messages_resent",
            "PUBLISH packets of a message that was in flight on the same connection: dropped, not received again. Since this start.",
            registry=registry,
        )
        self.mqtt_connected = Gauge("iot_ingest_mqtt_connected", "1 while connected and subscribed to the MQTT broker.", registry=registry)
        self.silent = Gauge(
            "iot_ingest_silent_seconds", "How long no message has come through a subscription that stands.", registry=registry
        )
        self.silent_after = Gauge(
            "iot_ingest_silent_after_seconds",
            "How long that may last: IOT_INGEST_SILENT_SECONDS, or learnt from the pauses of the past week.",
            registry=registry,
        )
        self.kafka_up = Gauge("iot_ingest_kafka_up", "1 while Kafka answers and has both topics.", registry=registry)
        self.spool_bytes = Gauge("iot_ingest_spool_bytes", "Bytes that the spool uses on disk.", registry=registry)
        self.spool_limit = Gauge("iot_ingest_spool_limit_bytes", "Bytes that the spool may use: IOT_INGEST_SPOOL_BYTES.", registry=registry)
        self.spool_oldest = Gauge(
            "iot_ingest_spool_oldest_timestamp_seconds",
            "Receive time of the oldest message in the spool; 0 if it is empty.",
            registry=registry,
        )
        self.spool_full = Gauge(
            "iot_ingest_spool_full", "1 while the spool takes no more: full, or its disk is; the broker holds messages.", registry=registry
        )
        self.clock_offset = Gauge(
            "iot_ingest_clock_offset_seconds", "This host's clock minus Kafka's, as of the last comparison.", registry=registry
        )

    def show_certificates(self, ends: Callable[[], Mapping[tuple[str, str], float]]) -> None:
        """`ends`: server and certificate → Unix time at which it ends (`Certificates.ends`)."""
        self.registry.register(_CertificateCollector(ends))
