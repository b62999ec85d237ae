"""What devices send never steers a terminal."""

import ast
import io
import json
from pathlib import Path

import pytest
from rich.table import Table

import iot_platform.cli
from iot_platform.cli import terminal
from iot_platform.visible import visible, visible_json

STEERING = "\x1b]0;title\x07 \x9b31m \x7f \u202egnp.exe \u2066x\u2069 \u061c \u2028 \r \x00 \ud800 \U000e0041"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\tb\nc", "a\tb\nc"),
        ("\r", "\\x0d"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f", "\\x7f"),
        ("\u202eabc\u202c", "\\u202eabc\\u202c"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("泵 1 é 👩\u200d🔧 ن\u200cه", "泵 1 é 👩\u200d🔧 ن\u200cه"),
    ],
)
def test_what_is_not_seen_becomes_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_json_means_the_same() -> None:
    document = {STEERING: [STEERING, "泵"]}
    text = visible_json(json.dumps(document, ensure_ascii=False))
    assert json.loads(text) == document
    assert text == visible(text)
    assert "泵" in text


def test_a_console_shows_escapes_and_keeps_its_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    console = terminal.console(highlight=False)
    console.file = io.StringIO()
    table = Table("name")
    table.add_row(STEERING, style="red")
    console.print(table)
    console.print(f"[green]{terminal.escape('[b]' + STEERING)}[/green]")
    printed = console.file.getvalue()
    assert "\x1b[31m" in printed
    assert "\x1b[32m" in printed
    own = printed.replace("\x1b[", "")
    assert own == visible(own)
    assert "[b]\\x1b]0;title\\x07" in own


def test_commands_print_only_by_the_terminal_module() -> None:
    """typer's and rich's own ways out would print what a device sent as it is."""
    ways_out = ("print", "typer.echo", "typer.secho", "click.echo", "Console", "escape")
    found = [
        f"{path.name}:{node.lineno} {ast.unparse(node.func)}"
        for path in sorted(Path(iot_platform.cli.__file__).parent.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if path.name != "terminal.py" and isinstance(node, ast.Call) and ast.unparse(node.func) in ways_out
    ]
    assert found == []
