"""Times as people write them on the command line: ISO 8601, or how long ago."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

from iot_platform.cli.errors import CliError

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def parse_time(text: str) -> datetime:
    """`2026-11-23T10:00Z` (UTC unless it names a zone), `2026-11-23`, or an age such as 90m, 2h, 3d.

    Raises:
        typer.BadParameter: it is neither.
    """
    try:
        if age := _AGO.fullmatch(text.strip()):
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: float(age[1])})
        time = datetime.fromisoformat(text.strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is no time: write 2026-11-23T10:00Z, or how long ago, such as 90m, 2h, 3d") from error


def parse_start(text: str) -> int:
    """--start in µs since the epoch, rounded to ms; now unless given."""
    try:
        time = datetime.fromisoformat(text) if text else datetime.now(UTC)
    except ValueError as error:
        raise CliError(f"--start must be ISO 8601, such as 2026-11-23T10:00:00Z: {error}") from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return int(time.timestamp() * 1000) * 1000
