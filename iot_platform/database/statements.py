"""A text of several SQL statements, taken apart by PostgreSQL's own lexical rules: psycopg2 shows the result of the last one only."""

import re
from typing import Final

# What a semicolon may stand in: strings with and without backslash escapes, quoted names, dollar quotes, comments. Unterminated ones reach
# to the end. A name may hold $, so that a dollar quote does not begin inside one.
_OPAQUE: Final = re.compile(
    r"""(?P<comment>/\*)
    | [eE]'(?:[^'\\]|\\.|'')*+(?:'|\\?\Z)
    | '(?:[^']|'')*+(?:'|\Z)
    | "(?:[^"]|"")*+(?:"|\Z)
    | --[^\n]*+
    | (?P<tag>\$(?:[^\W\d]\w*)?\$)
    | [^\W\d][\w$]*+
    | (?P<end>;)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")


def statements(text: str) -> list[str]:
    """The statements without their semicolons, and without those that are only white space."""
    found: list[str] = []
    begin = position = 0
    while match := _OPAQUE.search(text, position):
        position = match.end()
        if match["comment"]:
            position = _comment_end(text, position)
        elif match["tag"]:
            closed = text.find(match["tag"], position)
            position = len(text) if closed < 0 else closed + len(match["tag"])
        elif match["end"]:
            found.append(text[begin : match.start()])
            begin = position
    found.append(text[begin:])
    return [statement.strip() for statement in found if statement.strip()]


def _comment_end(text: str, position: int) -> int:
    """Comments of PostgreSQL nest."""
    level = 1
    while level and (edge := _COMMENT_EDGE.search(text, position)):
        level += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return len(text) if level else position
