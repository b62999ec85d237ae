"""What the console translates is what the programs and the database say, word by word: a sentence that changes there changes here."""

import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from iot_platform.files import SQL

ROOT: Final = Path(__file__).parents[2]
CONSOLE: Final = ROOT / "console" / "src" / "texts"
_SENTENCE: Final = re.compile(r'^  \["((?:[^"\\]|\\.)*)", "', re.MULTILINE)
_ABOUT: Final = re.compile(r'"about\.(\w+)": \[\s*"((?:[^"\\]|\\.)*)"')
_RULE: Final = re.compile(r"\('(\w+)', true, '(?:WARN|ERROR)',.*?((?:'(?:[^']|'')*'\s*)+)\)[,;]", re.DOTALL)


def sentences() -> list[str]:
    found = _SENTENCE.findall((CONSOLE / "sentences.ts").read_text())
    return [text.replace("\\\\", "\\") for text in found]


@cache
def written() -> str:
    """All that may write a sentence, with texts that stand in several pieces put together."""
    files = [*(ROOT / "iot_platform").rglob("*.py"), *(SQL / "repeatable").glob("*.sql"), *(SQL / "quality").glob("*.sql")]
    text = "\n".join(path.read_text() for path in files if "static" not in path.parts)
    text = re.sub(r"[\"']\s*\n\s*f?[\"']", "", text)
    return text.replace("\\\\", "\\")


def test_there_are_sentences() -> None:
    assert len(sentences()) > 70


@pytest.mark.parametrize("sentence", sentences())
def test_a_sentence_is_written_somewhere(sentence: str) -> None:
    pieces = [piece.strip() for piece in re.split(r"\{\{\w+\}\}", sentence)]
    for piece in (piece for piece in pieces if len(piece) > 6):
        smaller = re.split(
            r"[:;,] | ?\b(?:and|measurements?|ahead|behind|above|below|such as|device|project|is outside|are nested)\b ?", piece
        )
        assert piece in written() or all(part.strip() in written() for part in smaller), piece


def test_every_rule_is_described_as_the_database_describes_it() -> None:
    said = {}
    for path in sorted((SQL / "migrations").glob("*quality_rule_tables.sql")) + sorted((SQL / "migrations").glob("*conflict_example.sql")):
        for rule, texts in _RULE.findall(path.read_text()):
            said[rule] = "".join(re.findall(r"'((?:[^']|'')*)'(?=\s|$)", texts)).replace("''", "'")
    about = dict(_ABOUT.findall((CONSOLE / "catalogue.ts").read_text()))
    assert said
    assert about == said
