"""Sparkplug B, for topics of its namespace `spBv1.0`."""

from itertools import islice

from iot_platform.telemetry.decode.codecs.codec import Codec, Points, Reading, Record
from iot_platform.telemetry.decode.codecs.compression import Compression, decompress
from iot_platform.telemetry.decode.limits import MAX_MEASUREMENTS
from iot_platform.telemetry.decode.reasons import Reason, Rejection, excerpt, nul_character
from iot_platform.telemetry.decode.sparkplug import messages
from iot_platform.telemetry.decode.sparkplug.births import Owner
from iot_platform.telemetry.decode.sparkplug.topics import parse_topic

COMPRESSED = "SPBV1.0_COMPRESSED"
"""The uuid of a payload whose body is another payload, compressed."""
_ALGORITHMS: dict[str, Compression] = {"GZIP": "gzip", "DEFLATE": "zlib"}


class SparkplugCodec(Codec):
    """No options."""

    def read(self, payload: bytes, record: Record) -> Points:
        topic = parse_topic(record.topic)
        if topic is None:
            raise Rejection(Reason.TOPIC_MISMATCH, f"topic {excerpt(record.topic)} is none of an edge node or device of Sparkplug B")
        message = messages.parse(payload)
        if message.uuid == COMPRESSED:
            message = messages.parse(_inflated(message, record.max_bytes))
        tenant, project = record.names.tenant, record.names.project
        if topic.type.is_command or tenant is None or project is None:  # the latter: judged with the rest of the topic
            return Points([])
        if "\x00" in record.topic:
            raise nul_character("the topic")
        owner = Owner(tenant, project)
        messages.note(record.births, topic, payload, message, owner=owner, at=record.at)
        found = islice(messages.points(record.births, topic, message, record.at), MAX_MEASUREMENTS + 1)
        return Points([Reading(point.metric, point.value, point.time, is_historical=point.is_historical) for point in found])


def _inflated(message: object, max_bytes: int) -> bytes:
    body: bytes = message.body  # type: ignore[attr-defined]
    names = [metric.string_value for metric in message.metrics if metric.name == "algorithm"]  # type: ignore[attr-defined]
    if (algorithm := _ALGORITHMS.get(names[0] if names else "DEFLATE")) is None:
        raise Rejection(Reason.BAD_COMPRESSION, f"Sparkplug B: the algorithm {excerpt(names[0])} is none of {', '.join(_ALGORITHMS)}")
    return decompress(body, algorithm, max_bytes)
