"""What a replay that restores records from Kafka must know of those that were removed on purpose."""

from datetime import UTC, datetime
from typing import Final

import numpy as np
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.telemetry.decode import Decoder
from iot_platform.telemetry.plan import Plan, project_of
from iot_platform.telemetry.replay_plan import Bools, Work
from iot_platform.telemetry.replay_rows import Held

_HORIZON: Final = "SELECT nullif(audit_horizon(), '-infinity')"
_DELETED: Final = """
SELECT d.tenant_id, o.topic_id, o.kafka_partition, max(o.next_offset)
FROM tenant_deletion d JOIN tenant_deletion_offset o USING (deletion_id)
WHERE d.tenant_id = ANY (%s) GROUP BY 1, 2, 3"""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
