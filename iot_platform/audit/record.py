"""Keeps what the audit found in table audit_result, for those who may not ask the audit itself: tenants, through the console."""

import json
from contextlib import closing
from typing import Final

from iot_platform.audit.result import AuditResult
from iot_platform.database import connect
from iot_platform.settings import Settings

MOST_FINDINGS: Final = 50
_KEEP: Final = """
INSERT INTO audit_result (proof, audited_at, since, differences, findings) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (proof) DO UPDATE SET audited_at = excluded.audited_at, since = excluded.since, differences = excluded.differences,
    findings = excluded.findings WHERE audit_result.audited_at < excluded.audited_at"""


def keep(settings: Settings, proof: str, result: AuditResult) -> None:
    """Write down the result of one proof; an older one never replaces a newer one.

    Raises:
        DatabaseError, psycopg2.Error: the database does not answer. Retry.
    """
    findings = [{"kind": item.kind, "place": item.place, "text": item.text} for item in result.differences[:MOST_FINDINGS]]
    row = (proof, result.at, result.since, sum(result.counts.values()), json.dumps(findings))
    with closing(connect(settings, "writer", "iot-audit")) as connection, connection, connection.cursor() as cursor:
        cursor.execute(_KEEP, row)
