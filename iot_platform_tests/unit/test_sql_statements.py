"""Several SQL statements in one text are taken apart where PostgreSQL would."""

import pytest

from iot_platform.database.statements import statements


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;", ["SELECT 1"]),
        (" ; SELECT 1 ;; SELECT 2 ; \n", ["SELECT 1", "SELECT 2"]),
        ("", []),
        ("SELECT ';'; SELECT 'it''s;'", ["SELECT ';'", "SELECT 'it''s;'"]),
        ("SELECT 'C:\\'; SELECT 2", ["SELECT 'C:\\'", "SELECT 2"]),
        ("SELECT E'\\';'; SELECT 2", ["SELECT E'\\';'", "SELECT 2"]),
        ("SELECT type'x\\'; SELECT 2", ["SELECT type'x\\'", "SELECT 2"]),
        ('SELECT 1 AS ";""; "; SELECT 2', ['SELECT 1 AS ";""; "', "SELECT 2"]),
        ("SELECT $$a;b$$; SELECT $q$ $$; $q$; SELECT 3", ["SELECT $$a;b$$", "SELECT $q$ $$; $q$", "SELECT 3"]),
        ("SELECT a$b$ FROM t; SELECT 1 AS c$b$", ["SELECT a$b$ FROM t", "SELECT 1 AS c$b$"]),
        ("SELECT $1; SELECT 2", ["SELECT $1", "SELECT 2"]),
        ("SELECT 1 -- ; not here\n; SELECT 2", ["SELECT 1 -- ; not here", "SELECT 2"]),
        ("SELECT 1 /* ; /* ; */ ; */; SELECT 2", ["SELECT 1 /* ; /* ; */ ; */", "SELECT 2"]),
        ("SELECT 'open; SELECT 2", ["SELECT 'open; SELECT 2"]),
        ("SELECT $x$ open; SELECT 2", ["SELECT $x$ open; SELECT 2"]),
        ("SELECT 1 /* open; SELECT 2", ["SELECT 1 /* open; SELECT 2"]),
        ("SELECT 泵$x$; 1", ["SELECT 泵$x$", "1"]),
    ],
)
def test_statements(text: str, expected: list[str]) -> None:
    assert statements(text) == expected
