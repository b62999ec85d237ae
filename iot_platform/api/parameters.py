"""Types of parameters, stricter than the framework's: no number passes as a time, no `1_000` as a number, no U+0000 as a text."""

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from iot_platform.api.problems import wrong

T = TypeVar("T")
MOST_ROWS: Final = 1000
_MOMENT: Final = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})$"
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)


def _moment(value: object) -> object:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not re.fullmatch(_MOMENT, value):
        hint = " (a + in an address is a space: write %2B)" if isinstance(value, str) and re.search(r" \d\d:\d\d$", value) else ""
        raise ValueError(f"must be a time with its zone, such as 2026-11-30T08:00:00Z{hint}")
    try:
        moment = datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("is no time that the calendar has") from error
    if not _EARLIEST <= moment < _LATEST:
        raise ValueError("must be from 1970 to 2261")
    return moment


def _whole(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"0|[1-9]\d{0,18}", value):
        raise ValueError("must be a whole number, in digits")
    return value


def _text(value: object) -> object:
    if isinstance(value, str) and "\x00" in value:
        raise ValueError("must not hold U+0000")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time", "pattern": _MOMENT})]
"""A time with its zone, of ISO 8601; six decimals at most."""
Words = Annotated[str, BeforeValidator(_text)]
"""A text that a column can hold."""
Text = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=1024)]
"""A name or a text to search for."""
Limit = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MOST_ROWS)]
Partition = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=2**31 - 1)]
Offset = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=2**63 - 1)]
Cursor = Annotated[str, Field(min_length=1, max_length=8192, pattern="^[A-Za-z0-9_-]+$")]
"""Where the next page begins, as the page before said. It names no tenant: it chooses among the rows that the session may read."""
Resolution = Literal["auto", "raw", "1h", "1d"]


class Query(BaseModel):
    """Parameters of an address; one that is not listed is refused, and so is one that is given twice."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)


class TimeRange(Query):
    """Both ends of a time range: from (included) to (excluded)."""

    from_: Moment = Field(alias="from")
    to: Moment

    def check(self, most_days: float) -> None:
        """Raises Problem where the range is empty or longer."""
        if self.to <= self.from_:
            raise wrong("to", "must be later than from")
        if (self.to - self.from_).total_seconds() > most_days * 86400:
            raise wrong("to", f"the range may be {most_days:g} days at most")


def next_cursor(*values: Any) -> str:
    """A cursor that holds these values."""
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("=")


def read_cursor(cursor: str, shape: type[T]) -> T:
    """The values of a cursor. Raises Problem where it is none of this shape."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=shape)
    except (binascii.Error, msgspec.MsgspecError, UnicodeDecodeError):
        raise wrong("after", "is no cursor of this list") from None
