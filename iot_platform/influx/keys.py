"""Which measurements a range of the ledger touched: its stored messages are decoded again, by the code that a replay uses."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.settings import Settings
from iot_platform.telemetry.decode import Decoder, DecodeRules
from iot_platform.telemetry.decode.sparkplug.births import Births
from iot_platform.telemetry.drain.catalog import Catalog
from iot_platform.telemetry.drain.plan import Copies, Plan, resolve_names
from iot_platform.telemetry.drain.sparkplug import BirthHistory
from iot_platform.telemetry.drain.values import select
from iot_platform.telemetry.project_options import CONFLICTS, NUMBERS_IN_STRINGS, ProjectOptions
from iot_platform.telemetry.records import DecodedRecords
from iot_platform.telemetry.replay import rows
from iot_platform.telemetry.replay.rows import ReplayBatch
from iot_platform.telemetry.replay.selection import Selection, Slice

Keys = npt.NDArray[np.int64]
"""[n, 2]: series, time (µs); sorted, each once."""
NO_KEYS: Final[Keys] = np.zeros((0, 2), np.int64)


@dataclass(slots=True)
class Touched:
    """`exact`: keys at which a measurement may stand. `chains`: keys behind which values are kept side by side (conflicts = keep), at the
    following microseconds. `records`: how many of the range were found in message and quarantine; `values`: the measurements in them."""

    exact: Keys
    chains: Keys
    records: int
    values: int


class KeyReader:
    """Reads ranges, one after the other. Writes nothing: a name that is not there has no measurements. `reading` is for nothing else, on
    `looking` names are looked up (outside any transaction)."""

    def __init__(self, settings: Settings, reading: Connection, looking: Connection, name: str) -> None:
        self._settings = settings
        self._connection = connection = reading
        self._looking = looking
        rows.session(connection)
        self._history = BirthHistory(settings, name, anywhere=True)
        self._options = ProjectOptions.load(connection)
        rules = DecodeRules.from_settings(settings)
        chosen = self._options.switches(NUMBERS_IN_STRINGS)
        self._decoder = Decoder(replace(rules, births=Births(self._history.load, replays=True), numbers_in_strings=chosen))
        self._catalog: Catalog | None = None

    def close(self) -> None:
        """Close what was opened beside the connection."""
        self._history.close()

    def refresh(self) -> None:
        """Take what changed of the projects' options."""
        self._options = ProjectOptions.load(self._connection)
        if (chosen := self._options.switches(NUMBERS_IN_STRINGS)) != self._decoder.rules.numbers_in_strings:
            self._decoder = Decoder(replace(self._decoder.rules, numbers_in_strings=chosen))

    def read(self, part: Slice) -> Touched:
        """What the records of a slice touched.

        Raises:
            psycopg2.Error, TransientError: retry.
        """
        exact, chains, records, measurements = [], [], 0, 0
        for batch, _ in rows.read(self._connection, self._settings, Selection(), part, None):
            records += len(batch)
            plain, kept, count = self._keys(batch)
            measurements += count
            exact.append(plain)
            chains.append(kept)
        return Touched(_merged(exact), _merged(chains), records, measurements)

    def _keys(self, batch: ReplayBatch) -> tuple[Keys, Keys, int]:
        self._decoder = self._decoder.renewed()
        decoded = DecodedRecords.of(batch.records, self._decoder)
        catalog = self._current()
        copies = Copies([], batch.duplicate_of, batch.connection_id)
        wanted = ~batch.in_quarantine & (batch.duplicate_of < 0)
        plan = Plan.of(decoded, copies, resolve_names(catalog, decoded, copies, wanted))
        values = select(plan, plan.measured & wanted, catalog, batch.shift)
        known = values.series > 0
        keys = np.stack([values.series[known].astype(np.int64), values.time[known]], axis=1)
        choice = catalog.chosen(self._options, CONFLICTS, values.local[known])
        kept = np.array([each == "keep" for each in choice], np.bool_)
        return keys[~kept], keys[kept], len(values)

    def _current(self) -> Catalog:
        """The catalog, unless names were deleted since: they may have come anew, with other ids."""
        if self._catalog is not None and self._catalog.decoder is self._decoder:
            with self._looking.cursor() as cursor:
                current = self._catalog.hold(cursor)
            self._looking.rollback()
            if current:
                return self._catalog
        self._catalog = Catalog(self._looking, self._decoder, self._settings.max_series_per_project, create=False)
        return self._catalog


def _merged(parts: list[Keys]) -> Keys:
    return np.unique(np.concatenate(parts), axis=0) if parts else NO_KEYS
