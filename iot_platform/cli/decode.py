"""`iot decode`: what the drain would make of messages, without Kafka or a database."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO

import typer

from iot_platform.visible import visible_json

if TYPE_CHECKING:
    from iot_platform.telemetry.decode import DecodedBatch, Decoder

_CHUNK_BYTES = 1 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _BadCaseError(ValueError):
    """A line of input that is no case; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class _Case:
    name: Any
    topic: bytes
    payload: bytes
    received_at: int


def register(app: typer.Typer) -> None:
    """Add `iot decode`."""
    app.command("decode")(decode)


def decode(details: bool = typer.Option(False, "--details", help="Add the explanation of each quarantined message.")) -> None:
    """Decode messages from standard input through the drain's own decoder.

    Each line is a JSON object: [b]name[/b], [b]topic[/b], [b]payload[/b] (text) or [b]payload_hex[/b], and [b]received_at[/b]
    (ISO 8601; now unless given).
    Each answer is a line with the outcome: the message and its measurements, or the reason of quarantine.
    Settings such as IOT_TOPIC_PATTERN and IOT_DEFAULT_TIMEZONE apply.
    """
    from iot_platform.settings import get_settings
    from iot_platform.telemetry.decode import Decoder, DecodeRules

    decoder = Decoder(DecodeRules.from_settings(get_settings()))
    failed = False
    number = 0
    for lines in _available_lines(sys.stdin.buffer):
        cases: list[_Case] = []
        for line in lines:
            number += 1
            try:
                if line.strip():
                    cases.append(_case(line))
            except _BadCaseError as error:
                failed = True
                sys.stderr.write(f"error: line {number}: {error}\n")
        sys.stdout.buffer.writelines(_answers(decoder, cases, details))
        sys.stdout.buffer.flush()
    if failed:
        raise typer.Exit(1)


def _available_lines(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Complete lines as they come, many at once from a file, single ones from a person: an answer never waits for the next question."""
    read = getattr(stream, "read1", stream.read)
    rest: list[bytes] = []
    while chunk := read(_CHUNK_BYTES):
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield b"".join([*rest, head]).split(b"\n")
            rest = []
        rest.append(tail)
    if last := b"".join(rest):
        yield [last]


def _case(line: bytes) -> _Case:
    try:
        case = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _BadCaseError(f"not JSON: {error}") from error
    if not isinstance(case, dict):
        raise _BadCaseError("a case is a JSON object with name, topic, payload or payload_hex, received_at")
    topic = case.get("topic")
    if not isinstance(topic, str):
        raise _BadCaseError("`topic` must be a string")
    return _Case(case.get("name"), topic.encode("utf-8", "surrogatepass"), _payload(case), _received_at(case.get("received_at")))


def _payload(case: dict[str, Any]) -> bytes:
    given = [key for key in ("payload", "payload_hex") if case.get(key) is not None]
    if len(given) > 1:
        raise _BadCaseError("give `payload` or `payload_hex`, not both")
    value = case[given[0]] if given else ""
    if not isinstance(value, str):
        raise _BadCaseError(f"`{given[0]}` must be a string")
    if "payload_hex" not in given:
        return value.encode("utf-8", "surrogatepass")
    try:
        return bytes.fromhex(value)
    except ValueError as error:
        raise _BadCaseError(f"`payload_hex`: {error}") from error


def _received_at(value: Any) -> int:
    if value is None:
        return (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1)
    try:
        received_at = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _BadCaseError("`received_at` must be an ISO 8601 time such as 2026-11-23T10:00:00.250000Z") from error
    if received_at.tzinfo is None:
        received_at = received_at.replace(tzinfo=UTC)
    return (received_at - _EPOCH) // timedelta(microseconds=1)


def _answers(decoder: "Decoder", cases: list[_Case], details: bool) -> list[bytes]:
    """One line for each case, in order."""
    import numpy as np

    batch = decoder.decode(
        [case.topic for case in cases], [case.payload for case in cases], np.array([case.received_at for case in cases], np.int64)
    )
    reasons = {row: (reason, detail) for row, reason, detail in batch.reason}
    measurements = _measurements(decoder, batch)
    lines = []
    for row, case in enumerate(cases):
        answer: dict[str, Any] = {"name": case.name}
        if row in reasons:
            answer |= {"outcome": "quarantine", "reason": str(reasons[row][0])}
            if details:
                answer["detail"] = reasons[row][1]
        else:
            _, tenant, project, device = decoder.sources[int(batch.source_index[row])]
            time_source = "payload" if batch.time_source[row] else "receive"
            answer |= {"outcome": "message", "tenant": tenant, "project": project, "device": device, "time_source": time_source}
            answer["measurements"] = measurements.get(row, [])
        lines.append(visible_json(json.dumps(answer, ensure_ascii=False)).encode() + b"\n")
    return lines


def _measurements(decoder: "Decoder", batch: "DecodedBatch") -> dict[int, list[dict[str, Any]]]:
    """Measurements by record, in the document's order but unused identity and time fields last, as the contract's cases list them;
    `device` only where it differs from the message's."""
    from iot_platform.telemetry.decode.times import format_time

    rules = decoder.rules
    identity_or_time = {".".join(pointer) for pointer in (*rules.device_pointers, *rules.time_pointers)}

    ints = dict(zip(batch.m_int_rows.tolist(), batch.m_ints.tolist(), strict=True))
    texts = {at: batch.m_texts[text] for at, text in enumerate(batch.m_text.tolist()) if text >= 0}
    found: dict[int, list[dict[str, Any]]] = {}
    for index, row in enumerate(batch.m_row.tolist()):
        _, _, device, metric = decoder.series[int(batch.m_series[index])]
        value = float(batch.m_value[index]) if batch.m_value_valid[index] else None
        item: dict[str, Any] = {"metric": metric, "time": format_time(int(batch.m_time[index])), "value": value}
        if index in ints:
            item["value_int"] = ints[index]
        if index in texts:
            item["value_text"] = texts[index]
        if device != decoder.sources[int(batch.source_index[row])][3]:
            item["device"] = device
        found.setdefault(row, []).append(item)
    for items in found.values():
        items.sort(key=lambda item: item["metric"] in identity_or_time and not _is_boolean(item))
    return found


def _is_boolean(item: dict[str, Any]) -> bool:
    """Whether the value was true or false, which names and times nothing, and not a string of these letters."""
    return item["value"] is not None and item.get("value_text") in ("true", "false")
