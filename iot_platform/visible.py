"""Text of devices made safe for a terminal: what would steer it, or hide or reorder text, is shown as an escape instead, as psql does."""

import re
from typing import Final

# Controls (C0 but tab and newline, DEL, C1), what draws nothing or changes the direction of text, line separators, halves of surrogate
# pairs. The joiners U+200C and U+200D stay: scripts and emoji need them.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with \\xHH, \\uHHHH or \\UHHHHHHHH in place of what is not seen; tabs and newlines stay. Not reversible."""
    return _UNSEEN.sub(_escape, text)


def visible_json(text: str) -> str:
    """A JSON text that means the same, with \\uHHHH in place of what is not seen: JSON has such characters only inside strings."""
    return _UNSEEN.sub(_escape_json, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_json(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
