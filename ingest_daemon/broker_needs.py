"""What the MQTT broker has to grant, so that nothing is lost: else the daemon ends with a sentence that names the setting."""

import structlog
from paho.mqtt.properties import Properties

from ingest_daemon.errors import UnsafeBrokerError
from ingest_daemon.settings import Settings

log = structlog.get_logger("ingest.mqtt")


def refuse_literal_share(settings: Settings) -> None:
    """Before a session by MQTT 3.1.1, which `auto` may have come to. Raises UnsafeBrokerError."""
    if settings.ingest_shared_group:
        raise UnsafeBrokerError(
            "IOT_INGEST_SHARED_GROUP: the broker speaks MQTT 3.1.1 only, in which $share/… may be an ordinary topic, and nothing would "
            "come; unset it and give each daemon topics of its own (IOT_MQTT_TOPIC_FILTER), or use a broker that speaks MQTT 5 "
            "(IOT_MQTT_PROTOCOL=5 if this one does now)"
        )


def refuse_unsafe(settings: Settings, properties: Properties | None) -> None:
    """At CONNACK; MQTT 3.1.1 has no properties, and what the broker does not say counts as granted. Raises UnsafeBrokerError."""
    asked = settings.ingest_session_expiry_seconds
    granted = getattr(properties, "SessionExpiryInterval", asked)
    if granted < min(asked, 3600):
        raise UnsafeBrokerError(
            f"IOT_INGEST_SESSION_EXPIRY_SECONDS: asked {asked}, the broker grants {granted}; allow persistent sessions there"
        )
    if granted < asked:
        log.warning("session_expiry_shortened", asked_seconds=asked, granted_seconds=granted, setting="IOT_INGEST_SESSION_EXPIRY_SECONDS")
    if getattr(properties, "MaximumQoS", 2) < 1:
        raise UnsafeBrokerError("IOT_MQTT_URL: this broker offers QoS 0 only, which loses messages; QoS 1 is needed")
    if hasattr(properties, "AssignedClientIdentifier"):
        raise UnsafeBrokerError("IOT_INGEST_CLIENT_ID: the broker replaced it by a random one; a session under it can't be resumed")
    if settings.ingest_shared_group and not getattr(properties, "SharedSubscriptionAvailable", 1):
        raise UnsafeBrokerError("IOT_INGEST_SHARED_GROUP: this broker has no shared subscriptions")
