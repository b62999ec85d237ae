"""Why a message is quarantined, and the results of decoding one message."""

from dataclasses import dataclass
from enum import StrEnum

from iot_platform.telemetry.decode.limits import MAX_LEVELS


class Reason(StrEnum):
    """Reasons of quarantine, in the order in which the contract judges them: the first that applies is the message's."""

    TOPIC_MISMATCH = "topic_mismatch"
    EMPTY_PAYLOAD = "empty_payload"
    BAD_COMPRESSION = "bad_compression"
    TOO_LARGE = "too_large"  # decompressed
    BAD_ENCODING = "bad_encoding"  # not what the topic's codec takes; JSON has its own
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    BAD_UNICODE = "bad_unicode"
    TOO_DEEP = "too_deep"
    NOT_OBJECT = "not_object"
    NO_BIRTH = "no_birth"  # Sparkplug B: what names the metrics came by another way, or never
    NOT_FINITE = "not_finite"
    NUL_CHARACTER = "nul_character"
    BAD_NAME = "bad_name"
    DUPLICATE_METRIC = "duplicate_metric"
    TOO_MANY_VALUES = "too_many_values"
    BAD_TIMESTAMP = "bad_timestamp"
    TIME_OUT_OF_RANGE = "time_out_of_range"
    SERIES_LIMIT = "series_limit"  # never judged by the decoder: the writer knows how many series a project has


DETAIL_CHARACTERS = 200
EXCERPT_CHARACTERS = 40


def excerpt(text: str) -> str:
    """A short, printable quotation of a name or time for a detail."""
    shown = text if len(text) <= EXCERPT_CHARACTERS else text[: EXCERPT_CHARACTERS - 1] + "…"
    return repr(shown)


class Rejection(Exception):  # noqa: N818 - control flow inside the decoder, never seen outside it
    """The message must be quarantined. Never retry: the same bytes give the same reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail[:DETAIL_CHARACTERS]


def too_deep(what: str = "objects and arrays") -> Rejection:
    """The document has more levels than the contract takes."""
    return Rejection(Reason.TOO_DEEP, f"{what} are nested more than {MAX_LEVELS} levels deep")


def beyond_double(number: str) -> Rejection:
    """A number, as it was written, that no double holds."""
    return Rejection(Reason.NOT_FINITE, f"the number {excerpt(number)} is beyond a double")


def nul_character(where: str = "a name or string") -> Rejection:
    """U+0000, which PostgreSQL does not store."""
    return Rejection(Reason.NUL_CHARACTER, f"U+0000 in {where}; the database can not hold it")


def not_utf8(error: UnicodeDecodeError, text: str = "") -> Rejection:
    """Bytes that should be text. `text`: which, where it is not the whole payload."""
    what = text or f"byte {error.start + 1} of {len(error.object)}"
    return Rejection(Reason.NOT_UTF8, f"{what} is not UTF-8: {error.reason}")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value of one series at one time (µs since the epoch)."""

    device: str
    metric: str
    time: int
    value: float | None
    value_int: int | None = None
    value_text: str | None = None
    is_historical: bool = False  # kept back by the device: never the latest value


@dataclass(frozen=True, slots=True)
class Message:
    """A message taken whole; measurements in the order of the document.

    `ambiguous_times` and `skipped_times` count the timestamps in it that its zone's clocks showed twice or never.
    """

    tenant: str
    project: str
    device: str
    time_from_payload: bool
    measurements: tuple[Measurement, ...]
    ambiguous_times: int = 0
    skipped_times: int = 0


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A message that gives no measurements; the detail (at most 200 characters) is for people."""

    reason: Reason
    detail: str
