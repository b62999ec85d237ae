"""What a rollup run did, in numbers."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class RollupResult:
    """Sums of one run: measurements read (`rows`), stored hours and days written or removed (`changed`), notes taken from rollup_change
    (`notes`), and those of them that came to nothing because retention removed the measurements (`discarded`). `complete`: nothing was
    left to do. Thresholds None: nothing is stored yet."""

    rows: int = 0
    changed: int = 0
    notes: int = 0
    discarded: int = 0
    batches: int = 0
    seconds: float = 0.0
    complete: bool = False
    notes_left: int = 0
    threshold_before: datetime | None = None
    threshold_after: datetime | None = None
    hindered: str | None = None
    """Why it stopped early, as a sentence for people."""

    def as_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)
