"""What a replay that restores records from Kafka must know of those that were removed on purpose."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812

<<<<<<< HEAD
from iot_platform.telemetry.decode import Decoder
from iot_platform.telemetry.plan import Plan, project_of
from iot_platform.telemetry.replay_plan import Bools, Work
=======
from iot_platform.telemetry.catalog import Catalog
from iot_platform.telemetry.envelope import EARLIEST
from iot_platform.telemetry.plan import Plan, project_of
>>>>>>> retention
from iot_platform.telemetry.replay_rows import Held

_HORIZON: Final = "SELECT nullif(audit_horizon(), '-infinity')"
_DELETED: Final = """
SELECT d.tenant_id, o.topic_id, o.kafka_partition, max(o.next_offset)
FROM tenant_deletion d JOIN tenant_deletion_offset o USING (deletion_id) GROUP BY 1, 2, 3"""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Bools = npt.NDArray[np.bool_]

<<<<<<< HEAD
def of_deleted_tenants(connection: Connection, held: Held, plan: Plan, decoder: Decoder, topic_ids: dict[int, str]) -> Bools:
    """Records to restore that belong to a tenant as it was before its deletion: they never come back, nor do their names."""
    rows = np.flatnonzero(held.restored)
    tenants = [project_of(plan, decoder, row)[0] for row in rows.tolist()]
    with connection.cursor() as cursor:
        cursor.execute(_DELETED, (sorted(set(tenants)),))
        deleted = {(tenant, topic_id, partition): offset for tenant, topic_id, partition, offset in cursor.fetchall()}
    connection.rollback()
    gone = np.zeros(len(held), np.bool_)
    records = held.records
    for row, tenant in zip(rows.tolist(), tenants, strict=True):
        partition = int(records.partition[row])
        gone[row] = records.offset[row] < deleted.get((tenant, topic_ids.get(partition, ""), partition), 0)
    return gone


def mark_removed(connection: Connection, work: Work) -> None:
    """Mark the records to restore that retention removed after they had been counted: only measurements they add are counted now."""
    with connection.cursor() as cursor:
        cursor.execute(_HORIZON)
        (horizon,) = cursor.fetchone() or (None,)
    connection.rollback()
    if horizon is not None:
        before = int((horizon - _EPOCH).total_seconds()) * 1_000_000
        work.removed = work.restore & (work.plan.records.envelope.received_at < before)
=======

@dataclass(frozen=True)
class Removed:
    """`horizon`: records received before it (µs) may have been removed by the policies for everybody. `offsets`: by tenant and partition, where
    the records begin that are not of a deleted tenant."""

    horizon: int = EARLIEST
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    @classmethod
    def look(cls, connection: Connection, topic_ids: dict[int, str]) -> "Removed":
        """As the database says now; `topic_ids` by partition. Rolls back."""
        with connection.cursor() as cursor:
            cursor.execute(_HORIZON)
            (moment,) = cursor.fetchone() or (None,)
            cursor.execute(_DELETED)
            found = cursor.fetchall()
        connection.rollback()
        horizon = EARLIEST if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)
        return cls(horizon, {(tenant, part): offset for tenant, topic_id, part, offset in found if topic_ids.get(part) == topic_id})

    def by_retention(self, held: Held) -> Bools:
        """Records that are not lost when they are in neither table: of these, only measurements they add are counted, as they were before."""
        early: Bools = held.records.envelope.received_at < self.horizon
        return early

    def forbidden(self, held: Held, plan: Plan, catalog: Catalog) -> Bools:
        """Records to restore of tenants that were deleted: they never come back."""
        found = np.zeros(len(held), np.bool_)
        if self.offsets:
            records = held.records
            for row in np.flatnonzero(held.restored).tolist():
                tenant, _ = project_of(plan, catalog.decoder, row)
                found[row] = records.offset[row] < self.offsets.get((tenant, int(records.partition[row])), 0)
        return found
>>>>>>> retention
