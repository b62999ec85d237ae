"""Readiness of servers, asked in their own protocols. Each probe returns, or raises NotReadyError with what it saw."""

import json
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from ingest_daemon.protocol import Protocol
from iot_platform.local.errors import NotReadyError
from iot_platform.settings import Settings, SettingsError

_TIMEOUT_SECONDS = 5


def mqtt(settings: Settings) -> str:
    """The broker accepts a CONNECT with our credentials; the MQTT version, which IOT_MQTT_PROTOCOL=auto leaves to the broker."""
    if settings.mqtt_protocol != "auto":
        _connect(settings, Protocol(settings.mqtt_protocol))
        return settings.mqtt_protocol
    try:
        _connect(settings, Protocol.V5)
    except _NoAnswerError as error:
        try:
            _connect(settings, Protocol.V311)
        except _NoAnswerError:
            raise error from None
        return Protocol.V311
    return Protocol.V5


class _NoAnswerError(NotReadyError):
    """The broker does not answer this MQTT version."""


def _connect(settings: Settings, protocol: Protocol) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    from ingest_daemon import mqtt_causes

    url = urlsplit(settings.mqtt_url.get_secret_value())
    answers: list[Any] = []
    version = MQTTProtocolVersion.MQTTv5 if protocol is Protocol.V5 else MQTTProtocolVersion.MQTTv311
    client = Client(CallbackAPIVersion.VERSION2, protocol=version, reconnect_on_failure=False)
    client.on_connect = lambda _client, _data, _flags, reason, _properties: answers.append(reason)
    tls = url.scheme == "mqtts"
    ended = False
    try:
        if settings.mqtt_user:
            client.username_pw_set(settings.mqtt_user, settings.mqtt_password() or "")
        if tls:
            client.tls_set_context(settings.mqtt_tls_context())
        client.connect_timeout = _TIMEOUT_SECONDS
        client.connect(url.hostname or "", url.port or (8883 if tls else 1883), keepalive=10)
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not answers and not ended and time.monotonic() < deadline:
            ended = client.loop(0.2) != 0
        client.disconnect()
    except SettingsError as error:
        raise NotReadyError(str(error)) from error
    except (OSError, ValueError) as error:
        raise NotReadyError(f"no connection to {url.hostname}:{url.port or ''}: {error}") from error
    if not answers:
        ending = "the broker closed the connection"
        raise _NoAnswerError(mqtt_causes.no_connack(ending, protocol) if ended else mqtt_causes.silent(protocol, _TIMEOUT_SECONDS))
    if answers[0].value == mqtt_causes.UNSUPPORTED_VERSION:
        raise _NoAnswerError(mqtt_causes.unsupported(protocol))
    if answers[0].is_failure:
        raise NotReadyError(mqtt_causes.connection_refused(answers[0], protocol))


def kafka(settings: Settings) -> None:
    """The cluster answers a metadata request."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from iot_platform.kafka.causes import ConnectionCauses

    causes = ConnectionCauses(settings)
    try:
        client = AdminClient({**causes.config, "log_level": 0, "reconnect.backoff.max.ms": 500}, logger=_silent())
    except KafkaException as error:
        raise NotReadyError(causes.explain(error)) from error
    with client:
        try:
            metadata = client.list_topics(timeout=_TIMEOUT_SECONDS)
        except KafkaException as error:
            raise NotReadyError(causes.explain(error, client.poll)) from error
    if not metadata.brokers:
        raise NotReadyError(f"{settings.kafka_bootstrap_servers} knows no broker")


def postgresql(url: str) -> None:
    """The server answers SELECT 1 with our credentials."""
    import psycopg2

    try:
        connection = psycopg2.connect(url, connect_timeout=_TIMEOUT_SECONDS)
    except psycopg2.OperationalError as error:
        raise NotReadyError(str(error).strip().splitlines()[0]) from error  # the next lines ask whether the server runs
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()


def http(url: str) -> None:
    """The URL answers 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - our own setting, http by contract
            response.read()
    except urllib.error.HTTPError as error:
        raise NotReadyError(f"{url} answers {error.code}: {error.read(200).decode('utf-8', 'replace').strip()}") from error
    except (OSError, HTTPException) as error:
        raise NotReadyError(f"{url} does not answer: {_why(error)}") from error


def code_server(address: str) -> None:
    """Dagster's code server, a socket's path or host:port, answers gRPC health checks: it does so once the definitions are loaded."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"unix:{address}" if address.startswith("/") else address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="DagsterApi"), timeout=_TIMEOUT_SECONDS
            )
        except grpc.RpcError as error:
            raise NotReadyError(f"no answer on {address}: {error.code().name}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise NotReadyError("the code server is not serving yet")


_DAGSTER_QUERY = """{
  workspaceOrError { __typename ... on Workspace { locationEntries { name loadStatus locationOrLoadError {
    __typename ... on PythonError { message } ... on RepositoryLocation { repositories { sensors { name sensorState { status } } } } } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
}"""


def dagster(url: str) -> None:
    """The web UI answers, every code location is loaded and the daemons beat."""
    data = _dagster_data(url)
    entries = _locations(data)
    if not entries:
        raise NotReadyError("Dagster has no code location")
    for entry in entries:
        location = entry["locationOrLoadError"] or {}
        if location.get("__typename") != "RepositoryLocation":
            raise NotReadyError(f"code location {entry['name']} is not loaded: {location.get('message', entry['loadStatus'])}")
    daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
    waiting = [daemon["daemonType"] for daemon in daemons if daemon["required"] and not daemon["healthy"]]
    if waiting:
        raise NotReadyError(f"the Dagster daemon does not beat yet ({', '.join(waiting).lower()})")


def stopped_sensors(url: str) -> list[str]:
    """Sensors that somebody switched off in the UI; without kafka_lag nothing is drained."""
    locations = [entry["locationOrLoadError"] or {} for entry in _locations(_dagster_data(url))]
    sensors = [sensor for place in locations for repository in place.get("repositories", ()) for sensor in repository["sensors"]]
    return [sensor["name"] for sensor in sensors if sensor["sensorState"]["status"] != "RUNNING"]


def _dagster_data(url: str) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 - our own setting
        f"{url.rstrip('/')}/graphql", json.dumps({"query": _DAGSTER_QUERY}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
            answer = json.load(response)
    except (OSError, ValueError, HTTPException) as error:
        raise NotReadyError(f"{url} does not answer: {_why(error)}") from error
    if not answer.get("data"):
        raise NotReadyError(f"{url} answers, but not as Dagster does")
    return dict(answer["data"])


def _locations(data: dict[str, Any]) -> list[dict[str, Any]]:
    return (data.get("workspaceOrError") or {}).get("locationEntries") or []


def _why(error: Exception) -> str:
    """The operating system's message about a failed connection, without Python's wrapping."""
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason)


def _silent() -> Any:
    import logging

    logger = logging.getLogger("iot_platform.local.kafka")
    logger.disabled = True
    return logger
