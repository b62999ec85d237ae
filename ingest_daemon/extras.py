"""Which extra of the package a program needs. Standard library only: it speaks where nothing else is installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

OUR_OWN = ("", "ingest_daemon", "iot_platform")


@contextmanager
def needs(extra: str, program: str) -> Iterator[None]:
    """Around a program's imports and work: where a package is not installed, one line names it and the extra, and the exit code is 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OUR_OWN:
            raise
        sys.exit(f"error: {program} needs the package {package}, which is not installed: pip install 'iot-platform[{extra}]'")
