"""Every metric of the daemon: name, type and meaning side by side. received = delivered + dead-lettered + in flight."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """One registry per process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.received = Counter("iot_ingest_messages_received", "PUBLISH packets received, redelivered ones included.", registry=registry)
        self.delivered = Counter("iot_ingest_messages_delivered", "Messages settled in the Kafka topic.", registry=registry)
        self.dead_lettered = Counter("iot_ingest_messages_dead_lettered", "Messages settled in the dead-letter topic.", registry=registry)
        self.redelivered = Counter("iot_ingest_messages_redelivered", "Received messages that the broker marked DUP.", registry=registry)
        self.in_flight = Gauge("iot_ingest_messages_in_flight", "Messages received and not settled yet.", registry=registry)
        self.in_flight_bytes = Gauge("iot_ingest_payload_bytes_in_flight", "Payload bytes of the messages in flight.", registry=registry)
        self.mqtt_connected = Gauge("iot_ingest_mqtt_connected", "1 while connected and subscribed to the MQTT broker.", registry=registry)
        self.connections = Counter("iot_ingest_mqtt_connections", "MQTT connections made.", registry=registry)
        self.sessions_lost = Counter(
            "iot_ingest_mqtt_sessions_lost",
            "Reconnections at which the broker no longer had our session, and with it what it held.",
            registry=registry,
        )
        self.kafka_up = Gauge("iot_ingest_kafka_up", "1 while Kafka answers and has both topics.", registry=registry)
        self.last_message = Gauge(
            "iot_ingest_last_message_timestamp_seconds", "Unix time at which the last message was received.", registry=registry
        )
