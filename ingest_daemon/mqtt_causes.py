"""What is known when the MQTT broker refuses us, ends the connection or says nothing: a sentence, with the setting to look at."""

from typing import Final

from paho.mqtt.reasoncodes import ReasonCode

from ingest_daemon.protocol import Protocol

UNSPECIFIED, IMPLEMENTATION, UNSUPPORTED_VERSION, TAKEN_OVER, PACKET_ID_IN_USE, QUOTA = 0x80, 0x83, 0x84, 0x8E, 0x91, 0x97

TEMPORARY: Final = frozenset({IMPLEMENTATION, PACKET_ID_IN_USE, QUOTA})
"""Refusals of a SUBSCRIBE that are not about what it asks for."""

_URL, _FILTER = "IOT_MQTT_URL", "IOT_MQTT_TOPIC_FILTER"
_SETTINGS: Final = {
    UNSUPPORTED_VERSION: "IOT_MQTT_PROTOCOL",
    0x85: "IOT_INGEST_CLIENT_ID",
    0x86: f"{_URL}: user and password; IOT_MQTT_PASSWORD_FILE",
    0x87: f"{_URL}: the user, and what it may do",
    0x8A: f"{_URL}: the user; IOT_INGEST_CLIENT_ID",
    0x8C: f"{_URL}: user and password, or IOT_MQTT_TLS_CERT_FILE",
    TAKEN_OVER: "IOT_INGEST_CLIENT_ID",
    0x9E: "IOT_INGEST_SHARED_GROUP",
}
_SUBACK_SETTINGS: Final = {0x8F: _FILTER, 0x9E: "IOT_INGEST_SHARED_GROUP", 0xA2: _FILTER}
_PORT = "is this an MQTT port"


def speaks(protocol: Protocol) -> str:
    """The version as people write it."""
    return f"MQTT {protocol}"


def said(reason: ReasonCode) -> str:
    """A reason code in words. Code 0x80 has none of its own: "Unspecified error" would read as if we did not know what happened."""
    return "without a reason (code 0x80)" if reason.value == UNSPECIFIED else f"{reason} (code 0x{reason.value:02x})"


def connection_refused(reason: ReasonCode, protocol: Protocol) -> str:
    """CONNACK says no."""
    if reason.value == UNSUPPORTED_VERSION:
        return unsupported(protocol)
    return f"the broker refuses the connection: {said(reason)} ({_SETTINGS.get(reason.value, _URL)})"


def unsupported(protocol: Protocol) -> str:
    """CONNACK says that the version is not spoken."""
    return (
        f"the broker refuses the connection: it does not speak {speaks(protocol)} "
        f"(IOT_MQTT_PROTOCOL: set {protocol.other}, or auto, which tries both)"
    )


def subscription_refused(reason: ReasonCode, topic_filter: str, protocol: Protocol) -> str:
    """SUBACK says no."""
    if reason.value in TEMPORARY:
        return f"the broker does not take the subscription now: {said(reason)}; it is asked again, and no setting is to blame for that"
    if reason.value == UNSPECIFIED and protocol is Protocol.V311:
        why = f"MQTT 3.1.1 has no reasons ({_FILTER}; what the user in {_URL} may read; a limit of the broker's)"
        return f"the broker refuses the subscription to {topic_filter}: {why}"
    setting = _SUBACK_SETTINGS.get(reason.value, f"{_FILTER}, or what the user in {_URL} may read")
    return f"the broker refuses the subscription to {topic_filter}: {said(reason)} ({setting})"


def no_mqtt(greeting: bytes) -> str:
    """The first bytes that came are no CONNACK."""
    return f"the answer to CONNECT is no CONNACK but begins with {greeting[:16]!r}: {_PORT}, with or without TLS? ({_URL})"


def no_connack(ending: str, protocol: Protocol) -> str:
    """The connection ended before CONNACK."""
    return f"{ending} before CONNACK: {_PORT}, does it speak {speaks(protocol)}? ({_URL}, IOT_MQTT_PROTOCOL)"


def silent(protocol: Protocol, seconds: float) -> str:
    """No CONNACK, and the connection stands."""
    return f"no answer to CONNECT within {seconds:.0f} s: {_PORT}, does it speak {speaks(protocol)}? ({_URL}, IOT_MQTT_PROTOCOL)"


def no_suback(ending: str) -> str:
    """The connection ended, or nothing came, between CONNACK and SUBACK."""
    return f"{ending} after CONNACK, before SUBACK: may the user in {_URL} subscribe to {_FILTER}?"


def lost(ending: str) -> str:
    """The connection ended while all was well."""
    return f"connection lost: {ending} ({_URL})"


def disconnected(reason: ReasonCode) -> str:
    """The broker sent DISCONNECT."""
    return f"the broker ended the connection: {said(reason)} ({_SETTINGS.get(reason.value, _URL)})"
