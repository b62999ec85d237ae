"""The way of one message, from its receipt to its measurements, as far as the tenant's own login sees it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from iot_platform.api.access import Access
from iot_platform.api.pools import Connection
from iot_platform.api.rows import rows
from iot_platform.api.state import State

if TYPE_CHECKING:
    from iot_platform.telemetry.decode import DecodeRules

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RECORD: Final = """
SELECT received_at, topic, project_id, device_id, reason, detail, duplicate_of, payload, connection_number, sequence, committed_at,
       run_id, kind, from_offset, to_offset, log_generation
FROM record(%(partition)s, %(offset)s)"""
_STORED: Final = """
SELECT device_id, metric, time, value, value_int, value_text FROM measurement
WHERE project_id = %(project)s AND device_id = ANY(%(devices)s) AND time >= %(low)s AND time <= %(high)s LIMIT 20000"""
Step = dict[str, Any]


async def decode_rules(state: State) -> "DecodeRules":
    """The platform's rules of today, with their corrections."""
    from iot_platform.telemetry.corrections import LOAD, corrections_of
    from iot_platform.telemetry.decode import DecodeRules

    async with state.console() as connection:
        found = await (await connection.execute(LOAD)).fetchall()
    return replace(DecodeRules.from_settings(state.settings), corrections=corrections_of(state.settings, found))


async def steps(access: Access, partition: int, offset: int) -> list[Step]:
    """The steps in order; none where the tenant has no such record. Raises Problem."""
    if offset >= 2**63 or partition >= 2**31:
        return []
    async with access.read() as connection:
        names = ("received_at", "topic", "project", "device", "reason", "detail", "duplicate_of", "payload", "connection", "sequence",
                 "committed_at", "run_id", "kind", "from_offset", "to_offset", "generation")  # fmt: skip
        found = [dict(zip(names, row, strict=True)) for row in await rows(connection, _RECORD, {"partition": partition, "offset": offset})]
        if not found:
            return []
        record = found[0]
        told = [_received(record), _kafka(record, partition, offset)]
        told += [_committed(item) for item in found if item["generation"] == record["generation"]]
        if record["reason"]:
            told.append(_step("quarantined", record["received_at"], f"in quarantine: {record['reason']}, {record['detail']}", ok=False))
        elif record["duplicate_of"] is not None:
            told.append(_step("duplicate", None, f"a redelivery of offset {record['duplicate_of']}, which has the measurements", ok=True))
        else:
            told.append(await _measurements(access, connection, record))
        return told


def _received(record: Step) -> Step:
    by = "" if record["connection"] is None else f", connection {record['connection']}, message {record['sequence']} of it"
    return _step("received", record["received_at"], f"received on topic {record['topic']}{by}", ok=True)


def _kafka(record: Step, partition: int, offset: int) -> Step:
    log = f" generation {record['generation']}" if record["generation"] else ""
    return _step("kafka", None, f"in Kafka: partition {partition}{log}, offset {offset}", ok=True)


def _committed(record: Step) -> Step:
    seconds = (record["committed_at"] - record["received_at"]).total_seconds()
    words = f"{record['kind']}: committed with offsets {record['from_offset']} to {record['to_offset'] - 1}, {seconds:.1f} s after receipt"
    return _step(record["kind"], record["committed_at"], f"{words}, run {record['run_id']}", ok=True)


async def _measurements(access: Access, connection: Connection, record: Step) -> Step:
    """Decode it again by the settings of today, and look for each value."""
    from iot_platform.telemetry.decode import Message, decode_one  # numpy and more, for those who trace only

    received = (record["received_at"] - _EPOCH) // timedelta(microseconds=1)
    rules = await decode_rules(access.state)
    outcome = await asyncio.to_thread(decode_one, rules, record["topic"].encode(), bytes(record["payload"]), received)
    if not isinstance(outcome, Message):
        return _step("measurements", None, f"by the settings of today it would be quarantined: {outcome.reason}, {outcome.detail}", ok=None)
    wanted = outcome.measurements
    if not wanted:
        return _step("measurements", None, "it holds no measurements", ok=True)
    times = [_EPOCH + timedelta(microseconds=item.time) for item in wanted]
    values = {
        "project": record["project"],
        "devices": sorted({item.device for item in wanted}),
        "low": min(times),
        "high": max(times) + timedelta(milliseconds=1),
    }
    stored = {(device, metric, time): value for device, metric, time, *value in await rows(connection, _STORED, values)}
    there = sum((item.device, item.metric, time) in stored for item, time in zip(wanted, times, strict=True))
    same = sum(
        stored.get((item.device, item.metric, time)) == [item.value, item.value_int, item.value_text]
        for item, time in zip(wanted, times, strict=True)
    )
    words = f"{same} of its {len(wanted)} measurements are stored as it says"
    if there > same:
        words += f"; at the time of {there - same} another value is stored (a conflict)"
    if there < len(wanted):
        words += f"; {len(wanted) - there} are not at their time: moved beside another one, removed by retention, or missing"
    return _step("measurements", max(times), words, ok=True if same == len(wanted) else None)


def _step(step: str, at: datetime | None, words: str, *, ok: bool | None) -> Step:
    return {"step": step, "at": at, "words": words, "ok": ok}
