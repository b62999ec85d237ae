"""Makes records of ordinary lines by the thousand: one field that is a number or a boolean, nothing escaped, a time in digits. That is what
nearly all lines of an export are; for the others the caller reads line by line."""

from collections.abc import Callable, Sequence
from typing import Final

import polars as pl

from iot_platform.imports.made import TimePlace

FLOAT: Final = r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?"
INTEGER: Final = r"-?(?:0|[1-9][0-9]{0,17})i"
"""Values of ordinary lines that are JSON already, an integer's without its i; what is larger or longer is looked at more closely."""
TRUE: Final = ("t", "T", "true", "True", "TRUE")
FALSE: Final = ("f", "F", "false", "False", "FALSE")
_ODD: Final = r'["\\\x00]'
_MOST_HEADS: Final = 1_000_000

Name = tuple[bytes, str] | tuple[None, None]
"""The topic, and the metric as a JSON member's beginning; None for lines that have to be looked at one by one."""


class LineColumns:
    """`name` tells what a line's beginning (all before the first `=` of its fields) means; it is asked once for each."""

    def __init__(self, place: TimePlace, nanoseconds: int, name: Callable[[str, str], Name]) -> None:
        """`nanoseconds`: a power of 1000, of which the lines' times are multiples."""
        self._place, self._zeros, self._name = place, len(str(nanoseconds)) - 1, name
        self._heads: dict[str, Name] = {}

    def forget(self) -> None:
        """Ask anew: what names come from has changed."""
        self._heads.clear()

    def make(self, lines: Sequence[bytes]) -> tuple[list[bytes], list[bytes], list[int]]:
        """Topics and payloads of lines (with their line ends), and which lines are not ordinary and have neither."""
        text = _texts(lines).str.strip_chars_end("\r\n")
        frame = (
            text.to_frame()
            .with_columns(odd=pl.col("line").str.contains(_ODD), part=pl.col("line").str.splitn(" ", 3))
            .unnest("part")
            .rename({"field_0": "key", "field_1": "fields", "field_2": "time"})
            .with_columns(part=pl.col("fields").str.splitn("=", 2))
            .unnest("part")
            .select(
                pl.when(~pl.col("odd")).then("key").alias("key"), "time", pl.col("field_0").alias("field"), pl.col("field_1").alias("token")
            )
        )
        named = frame.select("key", "field", micros=self._micros(), token=_token()).join(
            self._names(frame), on=("key", "field"), how="left", maintain_order="left"
        )
        payload = pl.concat_str(
            pl.lit(self._place.head), pl.col("micros"), pl.lit(self._place.tail + ","), "member", "token", pl.lit("}"), ignore_nulls=False
        )
        made = named.select("topic", payload=pl.when(pl.col("topic").is_not_null()).then(payload).cast(pl.Binary))
        payloads = made.get_column("payload")
        odd = payloads.is_null().arg_true().to_list() if payloads.null_count() else []
        return made.get_column("topic").to_list(), payloads.to_list(), odd

    def _micros(self) -> pl.Expr:
        """As the contract reads it, cut to µs towards 1970; null for what is no time, or would not be read as µs."""
        time = pl.col("time")
        micros = time.str.head(-3) if self._zeros == 0 else pl.concat_str(time, pl.lit("0" * (self._zeros - 3)))
        return pl.when(time.str.contains(rf"^-?(?:[1-9][0-9]{{{17 - self._zeros}}}|[1-8][0-9]{{{18 - self._zeros}}})$")).then(micros)

    def _names(self, frame: pl.DataFrame) -> pl.DataFrame:
        pairs = frame.select("key", "field").unique().drop_nulls()
        if len(self._heads) > _MOST_HEADS:
            self._heads.clear()
        found = []
        for key, field in pairs.iter_rows():
            head = f"{key} {field}"
            name = self._heads.get(head)
            if name is None:
                name = self._heads[head] = self._name(key, field)
            found.append(name)
        return pairs.with_columns(
            pl.Series("topic", [topic for topic, _ in found], pl.Binary), pl.Series("member", [member for _, member in found], pl.String)
        )


def _texts(lines: Sequence[bytes]) -> pl.Series:
    """Null for those that are not UTF-8."""
    try:
        return pl.Series("line", lines, pl.Binary).cast(pl.String)
    except pl.exceptions.ComputeError:
        return pl.Series("line", [_text(line) for line in lines], pl.String)


def _text(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _token() -> pl.Expr:
    """The value as JSON; null for texts, and numbers that have to be looked at."""
    token = pl.col("token")
    return (
        pl.when(token.str.contains(f"^{FLOAT}$"))
        .then(token)
        .when(token.str.contains(f"^{INTEGER}$"))
        .then(token.str.head(-1))
        .when(token.is_in(TRUE))
        .then(pl.lit("true"))
        .when(token.is_in(FALSE))
        .then(pl.lit("false"))
    )
