"""The only way of the commands to standard output and error: whatever a device sent, it does not steer the terminal."""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import typer

from iot_platform.visible import visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
    from rich.segment import Segment


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print plain text."""
    typer.echo(visible(text), err=err, nl=nl)


def echo_json(document: Any, default: Callable[[Any], str] | None = None) -> None:
    """Print one JSON document on one line. What JSON has no form for is what `default` says; unless told otherwise, times are ISO 8601 and
    all else is text."""
    typer.echo(visible_json(json.dumps(document, ensure_ascii=False, default=default or _text)))


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def console(*, stderr: bool = False, highlight: bool = True, soft_wrap: bool = False) -> "Console":
    """A console of rich's. Cells of a table want `escape` or `visible` first: its columns are measured before they are printed."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=highlight, soft_wrap=soft_wrap)
    made.push_render_hook(cast("RenderHook", _Visible()))
    return made


def escape(text: str) -> str:
    """Text for rich's markup, as it is."""
    from rich.markup import escape as for_markup

    return for_markup(visible(text))


class _Visible:
    """rich's render hook: texts pass through `visible`, rich's own control codes don't."""

    def process_renderables(self, renderables: list["ConsoleRenderable"]) -> list["ConsoleRenderable"]:
        """What is about to be printed."""
        return [_Printed(renderables)]


class _Printed:
    def __init__(self, renderables: Iterable["ConsoleRenderable"]) -> None:
        self._renderables = renderables

    def __rich_console__(self, shown: "Console", options: "ConsoleOptions") -> Iterator["Segment"]:
        from rich.segment import Segment

        for renderable in self._renderables:
            for text, style, control in shown.render(renderable, options):
                yield Segment(text if control else visible(text), style, control)
