"""IOT_TOPIC_CODECS: which topics have which codec, and what their topics name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Self, TypeVar

from paho.mqtt.client import topic_matches_sub
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iot_platform.settings import Settings, SettingsError
from iot_platform.telemetry.decode.codecs.cbor_codec import CborCodec
from iot_platform.telemetry.decode.codecs.codec import Codec, Points, Record
from iot_platform.telemetry.decode.codecs.compression import Compression, decompress
from iot_platform.telemetry.decode.codecs.json_codec import JsonCodec
from iot_platform.telemetry.decode.codecs.line_protocol_codec import LineProtocolCodec
from iot_platform.telemetry.decode.codecs.msgpack_codec import MsgpackCodec
from iot_platform.telemetry.decode.codecs.scalar_codec import ScalarCodec
from iot_platform.telemetry.decode.codecs.senml_codec import SenMLCborCodec, SenMLJsonCodec
from iot_platform.telemetry.decode.codecs.sparkplug_codec import SparkplugCodec
from iot_platform.telemetry.decode.document import Document
from iot_platform.telemetry.decode.reasons import Reason, Rejection
from iot_platform.telemetry.decode.topic_pattern import TOPIC_VARIABLES, TopicNames, TopicPattern, is_id

CODECS: Final[Mapping[str, type[Codec]]] = {
    "json": JsonCodec,
    "cbor": CborCodec,
    "msgpack": MsgpackCodec,
    "senml_json": SenMLJsonCodec,
    "senml_cbor": SenMLCborCodec,
    "sparkplug_b": SparkplugCodec,
    "line_protocol": LineProtocolCodec,
    "scalar": ScalarCodec,
}
IMPORT_PREFIX: Final = "$import/"
"""Topics of records that `iot import` made. No MQTT wildcard matches them, and no broker brings them."""
_SETTING: Final = "IOT_TOPIC_CODECS"
_VARIABLES: Final = (*TOPIC_VARIABLES, "metric")
_MAX_CACHED: Final = 100_000

_Model = TypeVar("_Model", bound=BaseModel)
_Id = Annotated[str, Field(min_length=1, max_length=128)]


class _Common(BaseModel):
    """The members that every entry may have; all others are its codec's options."""

    model_config = ConfigDict(frozen=True, extra="allow")

    topic: str
    codec: str = "json"
    compression: Compression = "none"
    tenant: _Id | None = None
    project: _Id | None = None


@dataclass(frozen=True, slots=True)
class TopicCodec:
    """One entry: a topic filter (or a pattern, which also names things) with the codec of its payloads."""

    topic: str
    pattern: TopicPattern | None
    codec: Codec
    compression: Compression
    max_bytes: int
    tenant: str | None
    project: str | None

    @property
    def plain_json(self) -> bool:
        """Whether payloads are what those of topics without an entry are."""
        return type(self.codec) is JsonCodec and self.compression == "none"

    @property
    def needs_births(self) -> bool:
        """Whether payloads are read by what came before them."""
        return isinstance(self.codec, SparkplugCodec)

    def matches(self, topic: str) -> bool:
        """Whether a topic is the entry's."""
        return topic_matches_sub(self.topic, topic) if self.pattern is None else self.pattern.match(topic) is not None

    def names(self, topic: str, default: TopicPattern) -> TopicNames | None:
        """What a topic of the entry names: by its pattern, else by the default one; its own tenant and project win."""
        found = (self.pattern or default).match(topic)
        if self.tenant is None and self.project is None:
            return found
        if found is None and (self.tenant is None or self.project is None):
            return None
        found = found or TopicNames(None, None, None)
        return replace(found, tenant=self.tenant or found.tenant, project=self.project or found.project)

    def read(self, payload: bytes | None, record: Record) -> Document | Points:
        """The content of a payload. Raises Rejection."""
        if not payload:
            raise Rejection(Reason.EMPTY_PAYLOAD, "the payload has no bytes")
        if self.compression != "none":
            payload = decompress(payload, self.compression, record.max_bytes)
            if not payload:
                raise Rejection(Reason.EMPTY_PAYLOAD, "the payload decompresses to no bytes")
        return self.codec.read(payload, record)


IMPORTED: Final = TopicCodec(
    topic=IMPORT_PREFIX + "#",
    pattern=TopicPattern.compile(IMPORT_PREFIX + "{tenant}/{project}/{device...}"),
    codec=JsonCodec(),
    compression="none",
    max_bytes=0,
    tenant=None,
    project=None,
)


class _Unknown:
    """Stands for a topic that was not looked up yet."""


_UNKNOWN: Final = _Unknown()


@dataclass(frozen=True, slots=True)
class TopicCodecs:
    """All entries; the first that matches is a topic's. Several threads may ask."""

    entries: Sequence[TopicCodec]
    _cache: dict[str, TopicCodec | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Raises SettingsError, naming the entry and its member, for what means nothing."""
        return cls([_entry(number, entry, settings) for number, entry in enumerate(settings.topic_codecs)])

    def find(self, topic: str) -> TopicCodec | None:
        """The entry of a topic; None for topics that have none, which are JSON."""
        if topic.startswith(IMPORT_PREFIX):
            return IMPORTED
        if not self.entries:
            return None
        found = self._cache.get(topic, _UNKNOWN)
        if isinstance(found, _Unknown):
            found = next((entry for entry in self.entries if entry.matches(topic)), None)
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[topic] = found
        return found


def _entry(number: int, given: Mapping[str, Any], settings: Settings) -> TopicCodec:
    where = f"{_SETTING}[{number}]"
    common = _validated(_Common, given, where)
    if common.codec not in CODECS:
        raise SettingsError(f"{where}.codec: must be one of {', '.join(CODECS)}")
    codec = _validated(CODECS[common.codec], common.model_extra or {}, where)
    for name in ("tenant", "project"):
        if not is_id(getattr(common, name) or "-"):
            raise SettingsError(f"{where}.{name}: must have 1 to 128 bytes")
    pattern = TopicPattern.compile(common.topic, f"{where}.topic", _VARIABLES) if "{" in common.topic else None
    for name in ("tenant", "project"):
        named = getattr(common, name) is not None or pattern is None or f"{{{name}}}" in common.topic
        if not named and not getattr(settings, f"{name}_pointers"):
            raise SettingsError(f'{where}.topic: has no {{{name}}}, so add "{name}" to the entry (or set IOT_{name.upper()}_POINTERS)')
    if pattern is None and (rule := _broken_filter(common.topic)):
        raise SettingsError(f"{where}.topic: {rule}")
    return TopicCodec(
        topic=common.topic,
        pattern=pattern,
        codec=codec,
        compression=common.compression,
        max_bytes=settings.max_decompressed_bytes,
        tenant=common.tenant,
        project=common.project,
    )


def _broken_filter(text: str) -> str | None:
    """The rule of MQTT (4.7.1) that a topic filter breaks."""
    levels = text.split("/")
    if not text or "\x00" in text or text.startswith("$share/"):
        return "must be an MQTT topic filter such as plant/+/raw/#, or a pattern such as plant/{tenant}/{project}/{device...}"
    if "#" in levels[:-1] or any(("#" in level or "+" in level) and len(level) > 1 for level in levels):
        return "+ and # must be whole levels, and # the last one"
    return None


def _validated(model: type[_Model], values: Mapping[str, Any], where: str) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        member = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{where}.{member}: {first['msg'].removeprefix('Value error, ')}") from error
