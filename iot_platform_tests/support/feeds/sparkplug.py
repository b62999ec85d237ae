"""Payloads of Sparkplug B edge nodes, as births and as data that leaves out what the births said."""

import itertools
import time
from typing import Any

from iot_platform.telemetry.decode.sparkplug.payload_pb2 import Payload

INT64, FLOAT, DOUBLE, BOOLEAN, UINT64, TEXT = 4, 9, 10, 11, 8, 14
CODECS = ({"topic": "spBv1.0/{project}/+/{device...}", "tenant": "acme", "codec": "sparkplug_b"},)
_CONTAINERS = {
    INT64: "long_value",
    UINT64: "long_value",
    FLOAT: "float_value",
    DOUBLE: "double_value",
    BOOLEAN: "boolean_value",
    TEXT: "string_value",
}
_TIMES = itertools.count(time.time_ns() // 1_000_000 - 600_000)  # ms: each payload its own


def metric(value: Any, *, name: str = "", alias: int | None = None, datatype: int = DOUBLE, **more: Any) -> dict[str, Any]:
    """One metric; without a name it is data, which leaves out the datatype, too."""
    found = {_CONTAINERS[datatype]: value & (1 << 64) - 1 if datatype in (INT64, UINT64) else value, **more}
    if alias is not None:
        found["alias"] = alias
    return {**found, "name": name, "datatype": datatype} if name else found


def payload(seq: int | None, *metrics: dict[str, Any], timestamp: int | None = None) -> bytes:
    """`timestamp`: ms since the epoch; unless told otherwise, some minutes ago, and later than the payload before."""
    message = Payload(timestamp=next(_TIMES) if timestamp is None else timestamp, metrics=metrics)
    if seq is not None:
        message.seq = seq
    return message.SerializeToString()


def nbirth(*metrics: dict[str, Any], bd_seq: int = 0, timestamp: int | None = None) -> bytes:
    """An NBIRTH: its sequence number is 0."""
    return payload(0, metric(bd_seq, name="bdSeq", datatype=UINT64), *metrics, timestamp=timestamp)


def ndeath(bd_seq: int) -> bytes:
    """A will: without a sequence number."""
    return payload(None, metric(bd_seq, name="bdSeq", datatype=UINT64))
