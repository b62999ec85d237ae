"""What `iot status` puts first: whether messages are missing, late or wrong, where, and what to do."""

from collections.abc import Iterator
from typing import Final

from iot_platform.diagnostics.doctor_influx import keeps_up
from iot_platform.diagnostics.finding import Finding, by_urgency
from iot_platform.diagnostics.status_picture import Picture
from iot_platform.influx.status import SinkStatus

LATE_SECONDS: Final = 60.0
SLOW_SECONDS: Final = 5.0
"""Freshness that was promised (99 % within 5 s)."""
_REMEDIES: Final = {
    "mqtt": "start the broker, or correct IOT_MQTT_URL; devices and the daemon wait for it",
    "kafka": "start what is missing, or correct the setting that it names; meanwhile the daemon's spool takes the messages",
    "postgresql": "start it, or correct IOT_DATABASE_URL; meanwhile Kafka keeps the messages",
    "ingest": "do what it says; `iot logs ingest`; meanwhile the broker keeps the messages, as far as its queue goes",
    "dagster": "`iot logs dagster-daemon`, `iot logs dagster-code`; or correct IOT_DAGSTER_URL",
    "drain": "`iot offsets show`, `iot doctor`, `iot logs dagster-code`",
}
_PROCESS: Final = "process "


def problems(status: Picture) -> list[Finding]:
    """Ordered by what to fix first; empty when there is nothing."""
    return by_urgency(_problems(status))


def _problems(status: Picture) -> Iterator[Finding]:
    for kind, count in (status.audit_differences or {}).items():
        if count:
            text = f"the last audit found {count:,} differences ({kind}): messages are missing or doubled"
            yield Finding("audit", "lost", text, "`iot audit` names each by its place")
    for component in status.components:
        yield from _of_component(status, component.name, component.state, component.detail)
    yield from _figures(status)


def _of_component(status: Picture, name: str, state: str, detail: str) -> Iterator[Finding]:
    if state == "down":
        program = name.removeprefix(_PROCESS)
        remedy = _REMEDIES.get(name, f"`iot logs {program}`, then `iot up`")
        yield Finding(name, "lost" if name == "drain" and status.waits_for_person else "bad", detail, remedy)
    elif state == "starting":
        yield Finding(name, "note", "is starting")
    elif detail and name == "kafka":
        yield Finding(name, "risk", detail, "start the brokers that are missing: the next one's end may stop writing")
    elif detail and name == "drain":
        yield Finding(name, "note", detail, "`iot audit` names what is missing")


def _figures(status: Picture) -> Iterator[Finding]:
    late = status.freshness_p95_seconds
    if late is not None and late > SLOW_SECONDS:
        remedy = "where the lag is: docs/operations.md, When to grow" if status.lag else "`iot doctor`"
        text = f"of the last 5 minutes' messages 5 % were stored more than {late:,.0f} s after their receipt"
        yield Finding("freshness", "bad" if late > LATE_SECONDS else "note", text, remedy)
    for notice in status.notices:
        yield Finding("ingest", "risk", notice, "docs/operations.md, Connected but silent; `iot doctor` sends a probe")
    if status.spool:
        yield Finding("spool", "note", f"{status.spool:,} messages wait on the daemon's disk until Kafka takes them")
    if status.quarantine_24h:
        each = ", ".join(f"{reason} {count:,}" for reason, count in status.quarantine_24h.items())
        text = f"{sum(status.quarantine_24h.values()):,} messages of 24 h could not be decoded ({each}); they are kept whole"
        yield Finding("quarantine", "note", text, "correct the devices or IOT_TOPIC_CODECS, then `iot replay`")
    for sink in status.sinks or []:
        yield from keeps_up(SinkStatus(**sink))
    if status.conflicts_24h:
        text = f"{status.conflicts_24h:,} measurements of 24 h have another value than one stored before"
        yield Finding("conflicts", "note", text, "`iot project` decides what becomes of them")
