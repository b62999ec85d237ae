"""What `iot doctor` found about one thing."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One checked thing; `bad` ones need the remedy, `note` ones are only worth knowing."""

    what: str
    state: Literal["ok", "note", "bad"]
    text: str
    remedy: str = ""
