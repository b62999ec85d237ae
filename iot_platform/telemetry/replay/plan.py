"""What a replay decides about a batch: which records move, change, come back or only lack measurements, and how that is counted."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from iot_platform.telemetry.drain.catalog import Catalog, Project
from iot_platform.telemetry.drain.plan import Copies, Plan, detail_text, project_of, resolve_names
from iot_platform.telemetry.drain.values import ADDED, CONFLICTING, DUPLICATE, Values, has_outcome, select
from iot_platform.telemetry.records import DecodedRecords
from iot_platform.telemetry.replay.removed import Removed
from iot_platform.telemetry.replay.rows import ReplayBatch
from iot_platform.telemetry.replay.selection import Selection
from iot_platform.telemetry.replay.tally import SAMPLES, STORED, Sample, Tally

Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Work:
    """A batch, and what becomes of its records (masks); records in none of the masks stay as they are and count for nothing."""

    replayed: ReplayBatch
    plan: Plan
    catalog: Catalog
    leave: Bools  # from quarantine into message
    update: Bools  # stay in quarantine, with another reason, detail or project
    restore: Bools  # from Kafka into message or quarantine
    stored: Bools  # messages that may lack measurements
    refused: Bools  # messages that would be quarantined today
    staying: Bools  # quarantined, and still bad
    elsewhere: Bools  # another replay was faster; or restored, and their tenant was deleted
    removed: Bools  # restored from Kafka, where retention had removed them: only what is added is counted
    values: Values | None = None
    result: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    @classmethod
    def of(
        cls, replayed: ReplayBatch, batch: DecodedRecords, copies: Copies, catalog: Catalog, *, selection: Selection, removed: Removed
    ) -> "Work":
        """Decide about a batch. Commits: names it needs are created, in transactions of their own, if the catalog may."""
        wanted = _wanted(replayed, batch, selection)
        forbidden = removed.forbidden(replayed, batch)
        wanted &= ~forbidden
        stored = wanted & ~replayed.in_quarantine & ~replayed.restored
        refused = resolve_names(catalog, batch, copies, wanted & ~(stored & (replayed.duplicate_of >= 0)))
        plan = Plan.of(batch, copies, refused)
        quarantined = wanted & replayed.in_quarantine
        return cls(
            replayed,
            plan,
            catalog,
            leave=quarantined & ~plan.is_bad,
            update=quarantined & plan.is_bad & _changed_reason(replayed, plan),
            restore=wanted & replayed.restored,
            stored=stored & ~plan.is_bad,
            refused=stored & plan.is_bad,
            staying=quarantined & plan.is_bad,
            elsewhere=forbidden,
            removed=replayed.restored & removed.by_retention(replayed),
        )

    def select(self) -> Values:
        """The measurements of everything that is, or will be, a message: of stored ones where they stood, of restored ones that were
        drained before where their values are found."""
        replayed = self.replayed
        drained = self.restore & (self.removed | replayed.counted)
        chosen = self.plan.measured & (self.leave | self.restore | self.stored)
        self.values = select(self.plan, chosen, self.catalog, replayed.shift, drained if drained.any() else None)
        return self.values

    @property
    def shifts(self) -> dict[int, int]:
        """Records whose receive times were shifted, and by how many µs."""
        return {} if self.values is None else self.values.shifts

    @property
    def added(self) -> Bools:
        """Records of which measurements were inserted."""
        added = np.zeros(len(self.replayed), np.bool_)
        if self.values is not None:
            added[self.values.row[has_outcome(self.result, ADDED)]] = True
        return added

    def projects(self, rows: npt.NDArray[np.intp]) -> list[Project]:
        """Tenant and project by the rules of today."""
        return [project_of(self.plan.batch, row) for row in rows.tolist()]

    def places(self, mask: Bools) -> list[tuple[int, int]]:
        """Kafka partition and place (see records.place_of) of the masked records."""
        records = self.plan.records
        return list(zip(records.partition[mask].tolist(), records.places[mask].tolist(), strict=True))

    def tally(self) -> Tally:
        """Counts of everything that was decided, and of the measurements."""
        plan, replayed, result, added = self.plan, self.replayed, self.result, self.added
        of_stored = self.stored[self.values.row] if self.values is not None else np.zeros(0, np.bool_)
        tally = Tally(
            read=len(replayed),
            moved=int(self.leave.sum()),
            moved_copies=int((self.leave & (plan.duplicate_of >= 0)).sum()),
            still_bad=int(self.staying.sum()),
            updated=int(self.update.sum()),
            complete=int((self.stored & ~added).sum()),
            completed=int((self.stored & added).sum()),
            refused=int(self.refused.sum()),
            elsewhere=int(self.elsewhere.sum()),
            restored=int(self.restore.sum()),
            restored_bad=int((self.restore & plan.is_bad).sum()),
            measurements=int(has_outcome(result, ADDED).sum()),
            measurement_duplicates=int(((result == DUPLICATE) & ~of_stored).sum()),
            measurement_conflicts=int(has_outcome(result, CONFLICTING).sum()),
        )
        tally.reasons = Counter((replayed.reason[row], str(plan.bad[row][0])) for row in np.flatnonzero(self.staying).tolist())
        tally.reasons.update(Counter((replayed.reason[row], STORED) for row in np.flatnonzero(self.leave).tolist()))
        tally.projects = Counter(self.projects(np.flatnonzero(self.leave | self.restore & ~plan.is_bad | self.stored & added)))
        bad = np.flatnonzero(self.staying | self.refused)[:SAMPLES].tolist()
        records = plan.records
        places = zip(records.partition[bad].tolist(), records.offset[bad].tolist(), strict=True)
        tally.samples = [
            Sample(partition, offset, str(plan.bad[row][0]), detail_text(plan.bad[row][1]))
            for row, (partition, offset) in zip(bad, places, strict=False)
        ]
        return tally


def _wanted(replayed: ReplayBatch, batch: DecodedRecords, selection: Selection) -> Bools:
    if selection.tenant is None and selection.project is None:
        return np.ones(len(replayed), np.bool_)
    named = (project_of(batch, row) for row in range(len(replayed)))
    return np.array([selection.wants(before, now) for before, now in zip(replayed.project, named, strict=True)], np.bool_)


def _changed_reason(replayed: ReplayBatch, plan: Plan) -> Bools:
    """Quarantined records of which the table says something else than what would be said today."""
    found = np.zeros(len(replayed), np.bool_)
    for row, (reason, detail) in plan.bad.items():
        if replayed.in_quarantine[row]:
            said = replayed.reason[row], replayed.detail[row], replayed.project[row]
            found[row] = said != (str(reason), detail_text(detail), project_of(plan.batch, row))
    return found
