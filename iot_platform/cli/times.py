"""Times as people write them on the command line: ISO 8601, or how long ago."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

from iot_platform.cli.errors import CliError

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def parse_moment(text: str) -> datetime:
    """`2026-11-23T10:00Z` (UTC unless it names a zone), `2026-11-23`, or an age such as 90m, 2h, 3d.

    Raises:
        typer.BadParameter: it is neither.
    """
    try:
        if age := _AGO.fullmatch(text.strip()):
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: float(age[1])})
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is no time: write 2026-11-23T10:00Z, or how long ago, such as 90m, 2h, 3d") from error


def parse_start(text: str) -> int:
    """--start in µs since the epoch, rounded to ms; now unless given."""
    try:
        moment = datetime.fromisoformat(text) if text else datetime.now(UTC)
    except ValueError as error:
        raise CliError(f"--start must be ISO 8601, such as 2026-11-23T10:00:00Z: {error}") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000) * 1000
