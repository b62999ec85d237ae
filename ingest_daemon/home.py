"""Where the user's own files are: `.env`, and the folder for data, logs and secrets that no setting names. Standard library only."""

import os
from pathlib import Path
from typing import Final

PACKAGES: Final = Path(__file__).resolve().parents[1]
"""The folder that holds ingest_daemon and iot_platform: a checkout, or site-packages."""


def checkout() -> Path | None:
    """The checkout that this code runs from; None where it was installed from a wheel."""
    return PACKAGES if (PACKAGES / ".env.example").is_file() else None


def directory() -> Path:
    """Where programs of ours are started, for their `.env`: the checkout, else the current directory."""
    return checkout() or Path.cwd()


def env_files() -> tuple[Path, ...]:
    """The `.env` files that count, whether there or not, weakest first: the checkout's, the current directory's."""
    return tuple(dict.fromkeys((directory() / ".env", Path.cwd() / ".env")))


def local_dir() -> Path:
    """IOT_LOCAL_DIR unless set: `.local` of the checkout, else a folder of the user's that does not depend on the current directory."""
    root = checkout()
    return root / ".local" if root else Path("~/.local/share/iot-platform")


def stack_notes_file() -> Path:
    """Where `iot up` notes the URLs and passwords of the local stack."""
    folder = Path(os.environ.get("IOT_LOCAL_DIR") or local_dir())
    try:
        return folder.expanduser() / "stack.env"
    except RuntimeError:  # this user has no home directory, and so no stack in it
        return folder.absolute() / "stack.env"


def absolute(path: Path) -> Path:
    """With ~ replaced. Raises ValueError where the user has no home directory."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"this user has no home directory for {path}: name a folder without ~") from error
