"""The audit: fetches what the ingest daemons report, asks the database for its proofs, and says exactly what differs."""

from iot_platform.audit.audit import run_audit
from iot_platform.audit.result import AuditResult, Difference

__all__ = ["AuditResult", "Difference", "run_audit"]
