"""A Sparkplug B message to points: names and datatypes from the message or from the births before it."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from iot_platform.telemetry.decode.limits import MAX_LEVELS
from iot_platform.telemetry.decode.reasons import Reason, Rejection, excerpt, nul_character, too_deep
from iot_platform.telemetry.decode.sparkplug.births import Birth, Births, Definition, Owner, Place, Session
from iot_platform.telemetry.decode.sparkplug.payload_pb2 import Payload
from iot_platform.telemetry.decode.sparkplug.topics import MessageType, SparkplugTopic
from iot_platform.telemetry.decode.sparkplug.values import DATASET, LAST, TEMPLATE, fail, table_of, value_of

BD_SEQ: Final = "bdSeq"
MAX_DEFINITIONS: Final = 100_000
"""Of one birth: more than any PLC has, and they are kept."""


class Point(NamedTuple):
    """One value, of any type that a document has; `time`: µs since the epoch, None where the message tells none."""

    metric: str
    value: Any
    time: int | None
    is_historical: bool


def parse(payload: bytes) -> Any:
    """The Payload (protobuf). Raises Rejection bad_encoding."""
    message = Payload()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise fail(str(error)) from None
    return message


def note(births: Births, topic: SparkplugTopic, payload: bytes, message: Any, *, owner: Owner, at: Place) -> None:
    """Tell `births` of a message: definitions and sequence numbers count even where its values are refused. Raises Rejection."""
    if topic.type is MessageType.NDEATH:
        births.died(topic.node, owner, at, _bd_seq(message))
        return
    is_new, bd_seq = True, None
    if topic.type.is_birth:
        digest, bd_seq = hashlib.sha256(payload).digest(), _bd_seq(message)
        is_new = births.take(Birth(topic.node, topic.device, owner, at, digest, bd_seq, _definitions(message)))
    seq = message.seq if message.HasField("seq") and is_new else None
    births.count(topic.node, owner, at, seq, is_nbirth=is_new and topic.type is MessageType.NBIRTH, bd_seq=bd_seq)


def points(births: Births, topic: SparkplugTopic, message: Any, at: Place) -> Iterator[Point]:
    """The values of a message.

    Raises:
        Rejection: bad_encoding, too_deep, no_birth.
    """
    known: Session | None = None
    own = int(message.timestamp) * 1000 if message.HasField("timestamp") else None
    for metric in message.metrics:
        name, datatype = metric.name, metric.datatype
        if not name or not datatype:  # left out; some encoders write "" and 0 then
            known = known or births.session(topic.node, at)
            name, datatype = _defined(known, topic, metric)
        if metric.is_null:
            continue
        time = int(metric.timestamp) * 1000 if metric.HasField("timestamp") else own
        for path, value in _values(name, datatype, metric, 1):
            yield Point(path, value, time, metric.is_historical)


def _definitions(message: Any) -> tuple[Definition, ...]:
    if len(message.metrics) > MAX_DEFINITIONS:
        raise Rejection(Reason.TOO_MANY_VALUES, f"a birth of {len(message.metrics)} metrics; at most {MAX_DEFINITIONS} are taken")
    definitions = []
    for metric in message.metrics:
        if not metric.name:
            raise fail("a metric of a birth has no name")
        if "\x00" in metric.name:
            raise nul_character("a name")
        if not 0 < metric.datatype <= LAST:
            raise fail(f"metric {excerpt(metric.name)} of a birth has no datatype that exists")
        definitions.append(Definition(metric.name, metric.datatype, metric.alias if metric.HasField("alias") else None))
    return tuple(definitions)


def _bd_seq(message: Any) -> int | None:
    for metric in message.metrics:
        if metric.name == BD_SEQ:
            found = metric.WhichOneof("value")
            value = int(getattr(metric, found)) if found in ("int_value", "long_value") else None
            return value if value is not None and value < 1 << 63 else None
    return None


def _defined(known: Session, topic: SparkplugTopic, metric: Any) -> tuple[str, int]:
    """Name and datatype of a metric that leaves one of them to its birth."""
    alias = metric.alias if metric.HasField("alias") else None
    found = known.find(topic.device, alias, metric.name or None)
    if found is not None:
        return found.name, metric.datatype or found.datatype
    if not metric.name and alias is None:
        raise fail("a metric has neither a name nor an alias")
    what = f"metric {excerpt(metric.name)} without a datatype" if metric.name else f"alias {alias}"
    raise Rejection(Reason.NO_BIRTH, f"{what}: defined by no birth of {excerpt(topic.node)} that came before it in its Kafka partition")


def _values(name: str, datatype: int, metric: Any, level: int) -> Iterator[tuple[str, Any]]:
    """The values of a metric: one, or those of a Template's members, named with dots."""
    if datatype == TEMPLATE:
        if metric.WhichOneof("value") != "template_value":
            raise fail(f"metric {excerpt(name)} is a Template without one")
        yield from _members(name, metric.template_value, level)
    elif datatype == DATASET:
        if metric.WhichOneof("value") != "dataset_value":
            raise fail(f"metric {excerpt(name)} is a DataSet without one")
        yield name, table_of(name, metric.dataset_value)
    else:
        yield name, value_of(name, datatype, metric)


def _members(name: str, template: Any, level: int) -> Iterator[tuple[str, Any]]:
    if level > MAX_LEVELS:
        raise too_deep("Templates")
    if template.is_definition:
        return  # of a type, in a birth: its members are no readings
    for parameter in template.parameters:
        if parameter.WhichOneof("value") is not None:
            yield f"{name}.parameters.{parameter.name}", value_of(parameter.name, parameter.type, parameter)
    for member in template.metrics:
        if not member.is_null:
            yield from _values(f"{name}.{member.name}", member.datatype, member, level + 1)
