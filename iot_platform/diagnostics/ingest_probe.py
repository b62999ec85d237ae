"""A probe: published as devices do, acknowledged by the ingest daemon and not forwarded. If it comes back, the daemon is not deaf."""

import json
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from ingest_daemon import probe
from ingest_daemon.protocol import Protocol
from iot_platform import ingest_pages
from iot_platform.local import probes
from iot_platform.local.errors import NotReadyError
from iot_platform.settings import Settings
from iot_platform.simulator.connection import Broker, BrokerError

BACK_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 5.0
_EXPIRY_SECONDS: Final = 60
_NO_SUBSCRIBER: Final = 0x10


class ProbeError(Exception):
    """There is nothing to say of the daemon: no probe could be published; the message says why."""


def probe_daemon(settings: Settings, url: str) -> str:
    """Publish a probe to each topic that the daemon names; what came of it, as a sentence.

    Raises:
        ProbeError: no probe could be published, or the daemon does not answer.
        DeafError: the broker took the probes, and not all came back within BACK_SECONDS.
        SettingsError: the broker's password can not be read.
    """
    topics = _page(url)["topics"]
    sent = {uuid.uuid4().hex: topic for topic in topics}
    begun = time.monotonic()
    reasons = publish(settings, [(topic, probe.payload(identifier)) for identifier, topic in sent.items()])
    missing = dict(sent)
    while missing and time.monotonic() - begun < BACK_SECONDS:
        for identifier in _page(url)["received"]:
            missing.pop(identifier, None)
        time.sleep(0.05)
    if not missing:
        return f"came back through the daemon's own session within {time.monotonic() - begun:.1f} s: {', '.join(topics)}"
    unheard = [topic for topic, reason in zip(sent.values(), reasons, strict=True) if reason == _NO_SUBSCRIBER]
    why = f"; the broker says that nobody is subscribed to {', '.join(unheard)}" if unheard else ""
    raise DeafError(f"published to {', '.join(missing.values())}, and not back within {BACK_SECONDS:.0f} s{why}")


class DeafError(Exception):
    """The daemon's session does not bring what the broker was given, or not soon; the message names the topics."""


def _page(url: str) -> dict[str, Any]:
    try:
        return dict(json.loads(ingest_pages.page(url, "probe")))
    except (ingest_pages.IngestPageError, ValueError) as error:
        raise ProbeError(str(error)) from error


def publish(settings: Settings, messages: Sequence[tuple[str, bytes]]) -> list[int]:
    """Publish payloads at QoS 1, in the MQTT version of IOT_MQTT_PROTOCOL, expiring after a minute; the broker's reason codes, which
    are 0 under 3.1.1.

    Raises:
        ProbeError: the broker does not take them; the message says why.
        SettingsError: its password can not be read.
    """
    try:
        broker = Broker.from_settings(settings)
        answers = _speak(broker, messages, Protocol(probes.mqtt(settings)))
    except NotReadyError as error:
        raise ProbeError(str(error)) from error
    except (BrokerError, OSError, ValueError) as error:
        raise ProbeError(f"no connection to the broker: {error} (IOT_MQTT_URL)") from error
    if refused := [f"{topic}: {answer}" for answer, (topic, _) in zip(answers, messages, strict=True) if answer.is_failure]:
        raise ProbeError(f"the user in IOT_MQTT_URL may not publish a probe to {'; '.join(refused)}")
    return [answer.value for answer in answers]


def _speak(broker: Broker, messages: Sequence[tuple[str, bytes]], protocol: Protocol) -> list[Any]:
    """The broker's answers to what was published. Raises OSError."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    answers: dict[int, Any] = {}
    is_v5 = protocol is Protocol.V5
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5 if is_v5 else MQTTProtocolVersion.MQTTv311)
    client.on_connect = lambda _client, _data, _flags, reason, _properties: answers.setdefault(0, reason)
    client.on_publish = lambda _client, _data, number, reason, _properties: answers.setdefault(number, reason)
    properties = None
    if is_v5:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = _EXPIRY_SECONDS
    if broker.username is not None:
        client.username_pw_set(broker.username, broker.password)
    if broker.tls is not None:
        client.tls_set_context(broker.tls)
    client.connect_timeout = _CONNECT_SECONDS
    client.connect(broker.host, broker.port)
    try:
        _loop(client, lambda: 0 in answers)
        if answers[0].is_failure:
            raise OSError(f"refused, {answers[0]}")
        numbers = [client.publish(topic, payload, qos=1, properties=properties).mid for topic, payload in messages]
        _loop(client, lambda: answers.keys() >= set(numbers))
    finally:
        client.disconnect()
    return [answers[number] for number in numbers]


def _loop(client: Any, done: Callable[[], bool]) -> None:
    """Until done. Raises OSError where the broker ends it, or says nothing."""
    deadline = time.monotonic() + _CONNECT_SECONDS
    while not done():
        code = client.loop(0.1)
        if code and not done():
            raise OSError("the broker closed the connection")
        if time.monotonic() > deadline:
            raise OSError("no answer")
