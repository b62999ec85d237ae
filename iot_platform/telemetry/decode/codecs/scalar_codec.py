"""Plain scalars: a payload that is one number, switch or text, such as `21.5`, `ON` or `idle`."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from iot_platform.telemetry.decode.codecs.codec import Codec, Points, Reading, Record
from iot_platform.telemetry.decode.document import number
from iot_platform.telemetry.decode.limits import MAX_NAME_BYTES
from iot_platform.telemetry.decode.reasons import Reason, Rejection, excerpt, not_utf8

_WHITESPACE: Final = " \t\r\n"
_NOT_FINITE: Final = frozenset({"nan", "inf", "infinity"})
_NUMBER_OF_SOME_LOCALE: Final = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)+")


def _short(text: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES or "\x00" in text:
        raise ValueError(f"must have 1 to {MAX_NAME_BYTES} bytes")
    return text


_Words = tuple[Annotated[str, Field(min_length=1)], ...]


class ScalarCodec(Codec):
    """The metric is the option's, else the pattern's {metric}, else the topic's last level; {device...} then leaves that level out."""

    metric: Annotated[str, Field(min_length=1), AfterValidator(_short)] | None = None
    decimal: Literal[".", ","] = "."
    true: _Words = ("true", "on")
    false: _Words = ("false", "off")

    @model_validator(mode="after")
    def _no_word_of_both(self) -> Self:
        if both := {word.casefold() for word in self.true} & {word.casefold() for word in self.false}:
            raise ValueError(f"{sorted(both)[0]!r} is in both `true` and `false`")
        return self

    def read(self, payload: bytes, record: Record) -> Points:
        try:
            text = payload.decode().strip(_WHITESPACE)
        except UnicodeDecodeError as error:
            raise not_utf8(error) from None
        if not text:
            raise Rejection(Reason.EMPTY_PAYLOAD, "the payload is only white space")
        metric, device = self.metric or record.names.metric, None
        if metric is None:
            metric = record.topic.rpartition("/")[2]
            if "/" in (record.names.device or ""):
                device = (record.names.device or "").rpartition("/")[0]
        return Points([Reading(metric, self._value(text))], device=device)

    def _value(self, text: str) -> bool | int | float | str | None:
        folded = text.casefold()
        for words, value in ((self.true, True), (self.false, False)):
            if folded in map(str.casefold, words):
                return value
        if folded == "null":
            return None
        if folded.lstrip("+-") in _NOT_FINITE:
            raise Rejection(Reason.NOT_FINITE, f"{excerpt(text)} is no finite number")
        other = "." if self.decimal == "," else ","
        if _NUMBER_OF_SOME_LOCALE.fullmatch(text) and other in text and (self.decimal in text or text.count(other) == 1):
            raise Rejection(Reason.BAD_ENCODING, f'scalar: {excerpt(text)} looks like a number, but not with "decimal": "{self.decimal}"')
        found = number(text.removeprefix("+").replace(self.decimal, "."))
        return text if found is None else found
