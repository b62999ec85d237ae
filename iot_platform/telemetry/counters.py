"""The counters of ledger and accounting_1h, limits of the poison brake and of quality notes: named here only. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Final

BRAKE_SHARE: Final = 0.05
BRAKE_STREAK: Final = 1_000
"""The poison brake: more than this share, or this many records in a row, were quarantined."""
PUNCTUAL_SECONDS: Final = 120
"""A measurement whose time is this close to its message's receipt is found by that; others need a quality note. One that was received later
than that is late (measurement.flags)."""


@dataclass
class Counts:
    """Counters as in the table ledger."""

    messages: int = 0
    duplicates: int = 0
    quarantined: int = 0
    measurements: int = 0
    measurement_duplicates: int = 0
    measurement_conflicts: int = 0

    def add(self, other: "Counts") -> None:
        """Add the other's counters to these."""
        for name in COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


COUNTERS: Final = tuple(Counts.__dataclass_fields__)
SUMS: Final = ", ".join(f"sum({name})::bigint" for name in COUNTERS)
"""For a SELECT over ledger or accounting_1h."""
