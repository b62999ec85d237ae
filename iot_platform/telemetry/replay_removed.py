"""What a replay that restores records from Kafka must know of those that were removed on purpose."""

from datetime import UTC, datetime
from typing import Final

import numpy as np
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.telemetry.replay_plan import Work

_HORIZON: Final = "SELECT nullif(audit_horizon(), '-infinity')"
_DELETED: Final = """
SELECT d.tenant_id, o.topic_id, o.kafka_partition, max(o.next_offset)
FROM tenant_deletion d JOIN tenant_deletion_offset o USING (deletion_id)
WHERE d.tenant_id = ANY (%s) GROUP BY 1, 2, 3"""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def mark(connection: Connection, work: Work, topic_ids: dict[int, str]) -> None:
    """Of the records to restore, leave out what belongs to a deleted tenant, for ever; and mark those that retention removed after they
    had been counted, so that only measurements they add are counted now."""
    rows = np.flatnonzero(work.restore)
    tenants = [tenant for tenant, _ in work.projects(rows)]
    with connection.cursor() as cursor:
        cursor.execute(_HORIZON)
        (horizon,) = cursor.fetchone() or (None,)
        cursor.execute(_DELETED, (sorted(set(tenants)),))
        deleted = {(tenant, topic_id, partition): offset for tenant, topic_id, partition, offset in cursor.fetchall()}
    connection.rollback()
    if horizon is not None:
        before = int((horizon - _EPOCH).total_seconds()) * 1_000_000
        work.removed = work.restore & (work.plan.records.envelope.received_at < before)
    for row, tenant, (partition, offset) in zip(rows.tolist(), tenants, work.places(work.restore), strict=True):
        if offset < deleted.get((tenant, topic_ids.get(partition, ""), partition), 0):
            work.restore[row] = False
            work.elsewhere[row] = True
