"""Strict RFC 8259 documents: bytes to Python values, or the first reason of the contract why not. Never recurses deeply."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from iot_platform.telemetry.decode.limits import MAX_LEVELS
from iot_platform.telemetry.decode.reasons import Reason, Rejection, not_utf8, too_deep

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

MAX_DOUBLE_DIGITS = 309  # the largest double has 309 digits before the point

# An unterminated string matches to the end of the text: without that, a search would start again at each quote.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_BRACKET = re.compile(r"[^\[\]{}]+")
_NUMBER_STARTS = frozenset("-0123456789")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)?")
_TOKEN = re.compile(
    r"[ \t\n\r]*(?:(?P<open>[\[{])|(?P<close>[\]}])|(?P<comma>,)|(?P<colon>:)|"
    r'(?P<string>"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+")'
    r"|(?P<scalar>true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?))"
)


class Real(float):
    """A number with fraction or exponent (or an integer beyond a double), with the digits it was written with."""

    __slots__ = ("token",)
    token: str

    def __new__(cls, token: str) -> "Real":
        """Infinite if the number overflows a double."""
        number = super().__new__(cls, token)
        number.token = token
        return number


class Instant(Real):
    """A time that its format marks as one, as its number of seconds; `micros` since the epoch, finer is truncated."""

    __slots__ = ("micros",)
    micros: int

    @classmethod
    def of(cls, nanos: int) -> "Instant":
        """From nanoseconds since the epoch."""
        seconds, fraction = divmod(abs(nanos), 10**9)
        digits = f"{'-' if nanos < 0 else ''}{seconds}.{fraction:09}".rstrip("0").removesuffix(".")
        instant = cls(digits)
        instant.micros = abs(nanos) // 1000 * (-1 if nanos < 0 else 1)
        return instant


def _integer(token: str) -> int | Real:
    if len(token) > MAX_DOUBLE_DIGITS + 1:
        return Real(token)
    number = int(token)
    try:
        float(number)
    except OverflowError:
        return Real(token)
    return number


def number(text: str) -> int | Real | None:
    """What a text spells by JSON's grammar for numbers; None for other texts. An infinite Real where no double holds it."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    return _integer(text) if found.start(1) < 0 else Real(text)


def finite_number(text: str) -> int | Real | None:
    """As `number`, but None also for what no double holds."""
    found = number(text) if text[:1] in _NUMBER_STARTS else None
    return None if isinstance(found, Real) and found - found != 0.0 else found


class _Parser(threading.local):
    """Each thread has one: to make one takes as long as to parse a small document, and its circle would be left to the garbage collector.
    It remembers what only the source shows: numbers beyond a double, even in parts that are not used."""

    def __init__(self) -> None:
        self._overflow: str | None = None
        self._decode = json.JSONDecoder(parse_float=self._real, parse_int=self._int, parse_constant=_not_json_constant).decode

    def _real(self, token: str) -> Real:
        number = Real(token)
        if number in (float("inf"), float("-inf")):
            self._overflow = token
        return number

    def _int(self, token: str) -> int | float:
        number = _integer(token)
        if isinstance(number, Real):
            self._overflow = token
        return number

    def parse(self, text: str) -> tuple[Json, str | None]:
        """One document, and its last number that no double holds."""
        self._overflow = None
        try:
            value: Json = self._decode(text)
        except json.JSONDecodeError as error:
            raise Rejection(Reason.NOT_JSON, f"not a JSON document: {error.msg.removesuffix(' at')} at character {error.pos + 1}") from None
        return value, self._overflow


def _not_json_constant(name: str) -> NoReturn:
    raise Rejection(Reason.NOT_JSON, f"not a JSON document: {name} is no JSON number")


_PARSER = _Parser()


@dataclass(slots=True)
class Document:
    """The content of a payload. `overflow`: a number that no double holds; `nul`: U+0000 in a key or string, used or not."""

    value: Json
    overflow: str | None = None
    nul: bool = False


def read_json(payload: bytes) -> Document:
    """A JSON document. Raises Rejection: not_utf8, not_json, bad_unicode or too_deep."""
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(error) from None
    value: Json = None
    overflow: str | None = None
    deep = text.count("[") + text.count("{") > MAX_LEVELS and _levels(text) > MAX_LEVELS
    if deep:
        _check_grammar(text)
    else:
        value, overflow = _PARSER.parse(text)
    nul = False
    for string in _escaped_strings(text):
        if _SURROGATE.search(string):
            raise Rejection(Reason.BAD_UNICODE, "a \\u escape is half of a surrogate pair, which is no character")
        nul = nul or "\x00" in string
    if deep:
        raise too_deep()
    return Document(value, overflow, nul)


def _escaped_strings(text: str) -> Iterator[str]:
    """Keys and strings of a valid document that hold \\u escapes, decoded. U+0000 is valid only as an escape."""
    if "\\u" in text:
        for found in _STRING.finditer(text):
            if "\\u" in found[0]:
                yield json.loads(found[0])


def _levels(text: str) -> int:
    """The deepest nesting outside strings; of an invalid document anything may come out."""
    deepest = level = 0
    for character in _NOT_BRACKET.sub("", _STRING.sub("", text)):
        if character in "[{":
            level += 1
            deepest = max(deepest, level)
            if deepest > MAX_LEVELS:
                break
        else:
            level -= 1
    return deepest


_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_STRUCTURE = bytes(code for code in range(256) if code not in b'[]{}"\\')


def nested_too_deep(payload: bytes) -> bool:
    """Whether a valid document may be nested too deeply; no is certain, yes is not."""
    structure = payload.translate(_SQUARE, _NOT_STRUCTURE).replace(b'""', b"")
    if b'"' in structure or b"\\" in structure:  # strings with brackets or escapes: leave it to the plain decoder
        return True
    for _ in range(MAX_LEVELS):
        structure = structure.replace(b"[]", b"")  # exactly the innermost level
    return bool(structure)


def _check_grammar(text: str) -> None:
    """Raise not_json unless the text is one JSON document. For documents that are too deep for a recursive parser."""
    stack: list[str] = []
    position, state = 0, "value"  # what may come next: value, value_or_close, key, key_or_close, colon, comma, end
    end = len(text.rstrip(" \t\n\r"))
    while position < end:
        found = _TOKEN.match(text, position)
        kind = found.lastgroup if found else None
        mark = found[kind] if found and kind else ""
        if kind == "open" and state in ("value", "value_or_close"):
            stack.append(mark)
            state = "key_or_close" if mark == "{" else "value_or_close"
        elif kind == "close" and stack and stack[-1] + mark in ("[]", "{}") and (state == "comma" or state.endswith("_or_close")):
            stack.pop()
            state = "comma" if stack else "end"
        elif kind == "comma" and state == "comma":
            state = "key" if stack[-1] == "{" else "value"
        elif kind == "colon" and state == "colon":
            state = "value"
        elif kind == "string" and state in ("key", "key_or_close"):
            state = "colon"
        elif kind in ("string", "scalar") and state in ("value", "value_or_close"):
            state = "comma" if stack else "end"
        else:
            raise Rejection(Reason.NOT_JSON, f"not a JSON document: unexpected text at character {position + 1}")
        position = found.end() if found else end
    if state != "end":
        raise Rejection(Reason.NOT_JSON, f"not a JSON document: it ends inside {len(stack)} open objects or arrays")
