"""The audit: fetches what the ingest daemons report, asks the database for its proofs, and says exactly what differs."""

from iot_platform.audit.result import AuditResult, Difference
from iot_platform.audit.run import run_audit

__all__ = ["AuditResult", "Difference", "run_audit"]
