"""Which IOT_ variables there are: a misspelt one is an error, not silence. `env.example` lists them, for every process the same."""

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from ingest_daemon.errors import SettingsError
from ingest_daemon.home import absolute

EXAMPLE: Final = Path(__file__).with_name("env.example")
"""The checkout's .env.example, which a test holds equal to the settings classes."""
# Of the tests, of `make test-fault`, and of Grafana's provisioning files.
OTHERS: Final = ("IOT_TEST_", "IOT_DRILL_", "IOT_GRAFANA_DATABASE_", "IOT_GRAFANA_DASHBOARDS")
# What our own programs tell each other: the local stack's mark, the supervisor's, the drills' clock.
INTERNAL: Final = frozenset({"IOT_LOCAL_STACK", "IOT_PROGRAM_DIGEST", "IOT_FAKE_CLOCK"})
# Kubernetes adds these to every container for a service whose name begins with iot-; and <SERVICE>_PORT, see is_service_address.
_SERVICE: Final = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?$")


@cache
def known() -> frozenset[str]:
    """Every setting's variable."""
    return frozenset(re.findall(r"^#(IOT_[A-Z0-9_]+)=", EXAMPLE.read_text("utf-8"), re.MULTILINE))


def is_service_address(value: object) -> bool:
    """Whether a variable IOT_…_PORT holds what Kubernetes put there for a service of that name: no setting of anybody's, so as if unset."""
    return isinstance(value, str) and value.startswith(("tcp://", "udp://", "sctp://"))


def misspelt(files: Sequence[Path]) -> list[str]:
    """One sentence for each IOT_ variable of the environment, of `.env` files and of the secrets' folder that is no setting; it names the
    nearest one. Raises SettingsError: see `secrets_dir`."""
    found = [(name, value, "") for name, value in os.environ.items()]
    found += [(name, value or "", f" in {file}") for file in files if file.is_file() for name, value in dotenv_values(file).items()]
    folder = secrets_dir(files)
    found += [(path.name, "", f" in {folder}") for path in (folder.iterdir() if folder else ())]
    return [_explained(name, place) for name, value, place in sorted(found) if _is_misspelt(name.upper(), value)]


def secrets_dir(files: Sequence[Path]) -> Path | None:
    """The folder whose files are settings (`iot_database_url` holds IOT_DATABASE_URL): IOT_SECRETS_DIR of the environment, else of `.env`.

    Raises:
        SettingsError: no such folder, or a setting's file in it can't be read. Never retry.
    """
    noted = [dotenv_values(file).get("IOT_SECRETS_DIR") for file in files if file.is_file()]
    value = next((text for text in (os.environ.get("IOT_SECRETS_DIR"), *reversed(noted)) if text), None)
    if value is None:
        return None
    try:
        folder = absolute(Path(value))
    except ValueError as error:
        raise SettingsError(f"IOT_SECRETS_DIR: {error}") from error
    if not folder.is_dir():
        raise SettingsError(f"IOT_SECRETS_DIR: {folder} is no folder")
    if closed := [path.name for path in sorted(folder.glob("[Ii][Oo][Tt]_*")) if not os.access(path, os.R_OK)]:
        raise SettingsError(f"IOT_SECRETS_DIR: this user may not read {', '.join(closed)} in {folder}")
    return folder


def _is_misspelt(name: str, value: str) -> bool:
    if not name.startswith("IOT_") or name in known() or name in INTERNAL or name.startswith(OTHERS):
        return False
    return not (_SERVICE.search(name) or (name.endswith("_PORT") and is_service_address(value)))


def _explained(name: str, place: str) -> str:
    nearest = get_close_matches(name.upper().removeprefix("IOT_"), [item.removeprefix("IOT_") for item in sorted(known())], 1)
    rest = f"; did you mean IOT_{nearest[0]}?" if nearest else f"; {EXAMPLE} lists all of them"
    return f"{name}{place} is not a setting{rest}"
