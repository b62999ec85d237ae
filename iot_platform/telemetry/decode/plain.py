"""The plain decoder: the contract, rule by rule, for one message. It is the reference that the columnar path must equal."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from iot_platform.telemetry.decode.codecs.codec import Points, Record
from iot_platform.telemetry.decode.codecs.tree import Tree
from iot_platform.telemetry.decode.digits import compact_json
from iot_platform.telemetry.decode.document import Document, Json, Real, finite_number, read_json
from iot_platform.telemetry.decode.limits import MAX_MEASUREMENTS, MAX_NAME_BYTES
from iot_platform.telemetry.decode.reasons import (
    Measurement,
    Message,
    Quarantined,
    Reason,
    Rejection,
    beyond_double,
    excerpt,
    nul_character,
)
from iot_platform.telemetry.decode.rules import DecodeRules, Pointer
from iot_platform.telemetry.decode.sparkplug.births import Place
from iot_platform.telemetry.decode.times import LocalTimes, format_time, parse_time
from iot_platform.telemetry.decode.topic_pattern import TopicNames, is_id

_INT64 = range(-(2**63), 2**63)


def decode_one(
    rules: DecodeRules, topic: bytes | None, payload: bytes | None, received_at: int, at: Place | None = None
) -> Message | Quarantined:
    """One Kafka record to one outcome, by the decode contract. Any bytes are allowed; it does not raise. What the rules refuse is decoded
    by their corrections.

    Args:
        rules: where topic and payload name things.
        topic: MQTT topic, the record's key.
        payload: MQTT payload, the record's value.
        received_at: µs since the epoch.
        at: where the record is, for formats that depend on what came before it.
    """
    outcome = _decode(rules, topic, payload, received_at, at)
    if isinstance(outcome, Quarantined) and rules.corrections:
        return _corrected(rules, topic, payload, received_at, outcome)
    return outcome


def _corrected(
    rules: DecodeRules, topic: bytes | None, payload: bytes | None, received_at: int, refused: Quarantined
) -> Message | Quarantined:
    """What a correction makes of a refused message, as long as it remains its tenant's; else what was said of it. What is read by births is
    left alone: each is read once, in its order."""
    try:
        text = (topic or b"").decode()
    except UnicodeDecodeError:
        return refused
    if rules.needs_births(text):
        return refused
    named = rules.topic_names(topic) or TopicNames(None, None, None)
    for correction in rules.corrections:
        if correction.takes(text, named, refused.reason, received_at) and not correction.rules.needs_births(text):
            own = replace(correction.rules, numbers_in_strings=rules.numbers_in_strings)
            found = _decode(own, topic, payload, received_at, None)
            if isinstance(found, Message) and found.tenant == correction.tenant:
                return found
    return refused


def _decode(rules: DecodeRules, topic: bytes | None, payload: bytes | None, received_at: int, at: Place | None) -> Message | Quarantined:
    try:
        named = rules.topic_names(topic)
        if named is None:
            raise Rejection(Reason.TOPIC_MISMATCH, _mismatch(rules, topic))
        text = (topic or b"").decode()
        content = _content(rules, text, named, payload, at or Place(0, 0, received_at))
        walk = _Walk(rules, named, received_at, "\0" in text, rules.past_us_of(text))
        return walk.points(content) if isinstance(content, Points) else walk.document(content)
    except Rejection as rejection:
        return Quarantined(rejection.reason, rejection.detail)


def _content(rules: DecodeRules, topic: str, named: TopicNames, payload: bytes | None, at: Place) -> Document | Points:
    """What the payload says, by the topic's codec."""
    if not payload:
        raise Rejection(Reason.EMPTY_PAYLOAD, "the payload has no bytes")
    codec = rules.topic_codec(topic)
    return read_json(payload) if codec is None else codec.read(payload, Record(topic, named, at, rules.births, codec.max_bytes))


def _mismatch(rules: DecodeRules, topic: bytes | None) -> str:
    return f"topic {excerpt((topic or b'').decode(errors='replace'))} does not fit IOT_TOPIC_PATTERN {rules.pattern.text}"


def is_points(value: Json) -> bool:
    """Whether an array is a list of points: every item an object with a metric (or id) and a value; an empty one is not."""
    return isinstance(value, list) and bool(value) and all(_is_point(item) for item in value)


def _is_point(item: Json) -> bool:
    return isinstance(item, dict) and "value" in item and _metric(item) is not None


def _name(value: Json) -> str | None:
    """A string, or the digits of a number; None for other types."""
    if isinstance(value, str):
        return value
    if isinstance(value, Real):
        return value.token
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _metric(point: dict[str, Json]) -> str | None:
    name = _name(point.get("metric"))
    return _name(point.get("id")) if name is None else name


def _parent(value: Json, pointer: Pointer) -> dict[str, Json] | None:
    """The object that holds the member a pointer names, None if there is no such member."""
    for key in pointer[:-1]:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) and pointer[-1] in value else None


def _find_name(value: Json, pointers: tuple[Pointer, ...]) -> tuple[str | None, Pointer | None]:
    """The first string or number that the pointers find, and which pointer found it."""
    for pointer in pointers:
        parent = _parent(value, pointer)
        name = _name(parent[pointer[-1]]) if parent is not None else None
        if name is not None:
            return name, pointer
    return None, None


def _find_present(value: Json, pointers: tuple[Pointer, ...]) -> tuple[Json, Pointer | None]:
    """The first value other than null that the pointers find, and which pointer found it."""
    for pointer in pointers:
        parent = _parent(value, pointer)
        if parent is not None and parent[pointer[-1]] is not None:
            return parent[pointer[-1]], pointer
    return None, None


@dataclass(slots=True)
class _Clock:
    """A timestamp field: parsed (None: it is none), and as it was written."""

    time: int | None
    text: str


def _clock(time: int | None) -> _Clock | None:
    return None if time is None else _Clock(time, format_time(time))


@dataclass(slots=True)
class _Field:
    """A measurement before its time is judged; no clock of its own means the message's."""

    device: str
    metric: str
    value: Json
    clock: _Clock | None
    is_historical: bool = False


@dataclass(slots=True)
class _Walk:
    rules: DecodeRules
    topic_names: TopicNames
    received_at: int
    topic_has_nul: bool
    past_us: int
    local_times: LocalTimes = field(init=False)
    device: str = ""
    clock: _Clock | None = None
    fields: list[_Field] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.local_times = LocalTimes(self.received_at)

    def document(self, document: Document) -> Message:
        """The message of a valid document. Raises Rejection from not_object on."""
        value = document.value
        if not isinstance(value, dict) and not is_points(value):
            raise Rejection(Reason.NOT_OBJECT, "the document is neither an object nor a list of points")
        tenant, tenant_at = self._named(value, self.topic_names.tenant, self.rules.tenant_pointers)
        project, project_at = self._named(value, self.topic_names.project, self.rules.project_pointers)
        owner = self._owner(tenant, project)
        self._judge_values(document.overflow, document.nul)
        device, device_at = self._named(value, self.topic_names.device, self.rules.device_pointers)
        self.device = device or ""
        self.clock, time_at = self._read_clock(value)
        self._take_out(value, (tenant_at, project_at, device_at, time_at))
        self.fields = list(self._flatten(value, None, self.device, None))
        return self._message(*owner)

    def points(self, points: Points) -> Message:
        """The message of points that their codec has named. Raises Rejection from topic_mismatch on."""
        owner = self._owner(self.topic_names.tenant, self.topic_names.project)
        self.device = (self.topic_names.device or "") if points.device is None else points.device
        tree = Tree()
        for reading in points.readings:
            device = self.device if reading.device is None else reading.device
            tree.take([reading.metric, device])  # for U+0000
            found = self._flatten(tree.take(reading.value), reading.metric, device, _clock(reading.time))
            self.fields += [replace(item, is_historical=True) for item in found] if reading.is_historical else found
        tree.take(self.device)
        self._judge_values(tree.overflow, tree.nul)
        return self._message(*owner)

    def _owner(self, tenant: str | None, project: str | None) -> tuple[str, str]:
        if tenant is None or project is None or not is_id(tenant) or not is_id(project):
            raise Rejection(Reason.TOPIC_MISMATCH, "neither topic nor payload names a tenant and a project of 1 to 128 bytes")
        return tenant, project

    def _message(self, tenant: str, project: str) -> Message:
        """The message of the fields."""
        self._judge_fields()
        if self.rules.reads_numbers_in_strings(tenant, project):
            for item in self.fields:
                if isinstance(item.value, str) and (found := finite_number(item.value)) is not None:
                    item.value = found
        measurements = tuple(self._measurement(item) for item in self.fields)
        own = bool(self.fields) and all(item.clock for item in self.fields)
        timed = self.clock is not None or own
        return Message(tenant, project, self.device, timed, measurements, self.local_times.ambiguous, self.local_times.skipped)

    def _take_out(self, value: Json, used: tuple[Pointer | None, ...]) -> None:
        """Remove the fields that named something: they are no measurements."""
        for pointer in used:
            parent = _parent(value, pointer) if pointer else None
            if parent is not None and pointer:
                parent.pop(pointer[-1])

    def _named(self, value: Json, by_topic: str | None, pointers: tuple[Pointer, ...]) -> tuple[str | None, Pointer | None]:
        """A name, and the pointer that found it in the payload unless the topic has it."""
        return (by_topic, None) if by_topic is not None else _find_name(value, pointers)

    def _read_clock(self, value: Json) -> tuple[_Clock | None, Pointer | None]:
        found, pointer = _find_present(value, self.rules.time_pointers)
        return (None, None) if pointer is None else (_Clock(parse_time(found, self.rules.zone, self.local_times), _text(found)), pointer)

    def _judge_values(self, overflow: str | None, nul: bool) -> None:
        if overflow is not None:
            raise beyond_double(overflow)
        if nul or self.topic_has_nul:
            raise nul_character()

    def _flatten(self, value: Json, name: str | None, device: str, clock: _Clock | None) -> Iterator[_Field]:
        """Fields in the order of the document, below a name (None: the document itself). At most MAX_LEVELS deep."""
        if isinstance(value, dict):
            prefix = "" if name is None else name + "."
            for key, item in value.items():
                yield from self._flatten(item, prefix + key, device, clock)
        elif isinstance(value, list) and is_points(value):
            for point in value:
                assert isinstance(point, dict)  # noqa: S101 - is_points said so
                own, _ = self._read_clock(point)
                own_device, _ = _find_name(point, self.rules.device_pointers)
                yield from self._flatten(point["value"], _metric(point) or "", self.device if own_device is None else own_device, own)
        elif value is not None:
            yield _Field(device, name or "", value, clock)

    def _judge_fields(self) -> None:
        """bad_name, duplicate_metric, too_many_values, bad_timestamp, time_out_of_range: each over the whole message, in this order."""
        if len(self.device.encode()) > MAX_NAME_BYTES:
            raise Rejection(Reason.BAD_NAME, f"device {excerpt(self.device)} has more than {MAX_NAME_BYTES} bytes")
        for item in self.fields:
            if not 0 < len(item.metric.encode()) <= MAX_NAME_BYTES or len(item.device.encode()) > MAX_NAME_BYTES:
                raise Rejection(Reason.BAD_NAME, f"metric {excerpt(item.metric)} or its device has no name of 1 to {MAX_NAME_BYTES} bytes")
        self._judge_duplicates()
        if len(self.fields) > MAX_MEASUREMENTS:
            raise Rejection(Reason.TOO_MANY_VALUES, f"{len(self.fields)} measurements; at most {MAX_MEASUREMENTS} are taken")
        clocks = [clock for clock in (self.clock, *(item.clock for item in self.fields)) if clock is not None]
        for clock in clocks:
            if clock.time is None:
                raise Rejection(Reason.BAD_TIMESTAMP, f"{excerpt(clock.text)} is neither an epoch number nor YYYY-MM-DDTHH:MM:SS")
        for clock in clocks:
            time = clock.time or 0
            if time not in _INT64 or not -self.past_us <= time - self.received_at <= self.rules.future_us:
                window = f"the window around receive time {format_time(self.received_at)}"
                raise Rejection(Reason.TIME_OUT_OF_RANGE, f"time {excerpt(clock.text)} is outside {window}")

    def _judge_duplicates(self) -> None:
        seen: set[tuple[str, str, int | str]] = set()
        for item in self.fields:
            clock = item.clock or self.clock
            time = self.received_at if clock is None else clock.text if clock.time is None else clock.time
            key = (item.device, item.metric, time)
            if key in seen:
                raise Rejection(Reason.DUPLICATE_METRIC, f"metric {excerpt(item.metric)} is there twice for the same device and time")
            seen.add(key)

    def _measurement(self, item: _Field) -> Measurement:
        clock = item.clock or self.clock
        time = self.received_at if clock is None or clock.time is None else clock.time
        value, value_int, value_text = typed_value(item.value)
        return Measurement(item.device, item.metric, time, value, value_int, value_text, item.is_historical)


def _text(value: Json) -> str:
    """An array (or any value) as compact JSON; a string as it is."""
    return value if isinstance(value, str) else compact_json(value)


def typed_value(value: Json) -> tuple[float | None, int | None, str | None]:
    """(value, value_int, value_text) of a boolean, number, string or array."""
    if isinstance(value, bool):
        return float(value), None, "true" if value else "false"
    if isinstance(value, int):
        double = float(value)
        if value not in _INT64:
            return double, None, str(value)
        return double, None if int(double) == value else value, None
    if isinstance(value, float):
        return float(value), None, None
    return None, None, _text(value)
