"""What a replay that restores records from Kafka must know of those that were removed on purpose."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.telemetry.drain.plan import project_of
from iot_platform.telemetry.envelope import EARLIEST
from iot_platform.telemetry.records import DecodedRecords
from iot_platform.telemetry.replay.rows import ReplayBatch

_HORIZON: Final = "SELECT nullif(audit_horizon(), '-infinity')"
_DELETED: Final = """
SELECT d.tenant_id, o.topic_id, o.kafka_partition, max(record_place(o.log_generation, o.next_offset))
FROM tenant_deletion d JOIN tenant_deletion_offset o USING (deletion_id) GROUP BY 1, 2, 3"""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Removed:
    """`horizon`: records received before it (µs) may have been removed by the policies for everybody. `offsets`: by tenant and partition,
    the place (see records.place_of) where the records begin that are not of a deleted tenant."""

    horizon: int = EARLIEST
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    @classmethod
    def look(cls, connection: Connection, topic_ids: dict[int, str]) -> "Removed":
        """As the database says now; `topic_ids` by partition. Rolls back."""
        with connection.cursor() as cursor:
            cursor.execute(_HORIZON)
            (begin,) = cursor.fetchone() or (None,)
            cursor.execute(_DELETED)
            found = cursor.fetchall()
        connection.rollback()
        horizon = EARLIEST if begin is None else (begin - _EPOCH) // timedelta(microseconds=1)
        return cls(horizon, {(tenant, part): offset for tenant, topic_id, part, offset in found if topic_ids.get(part) == topic_id})

    def by_retention(self, replayed: ReplayBatch) -> Bools:
        """Records that are not lost when neither table has them: of these, only measurements they add are counted, as they were before."""
        early: Bools = replayed.records.envelope.received_at < self.horizon
        return early

    def forbidden(self, replayed: ReplayBatch, batch: DecodedRecords) -> Bools:
        """Records to restore of tenants that were deleted: they never come back."""
        found = np.zeros(len(replayed), np.bool_)
        if self.offsets:
            records = replayed.records
            for row in np.flatnonzero(replayed.restored).tolist():
                tenant, _ = project_of(batch, row)
                found[row] = records.place_at(row) < self.offsets.get((tenant, int(records.partition[row])), 0)
        return found
