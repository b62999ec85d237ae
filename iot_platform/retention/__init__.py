"""Retention: how long rows are kept (policies), and removing what is older (plan, run). The rules live in sql/repeatable/retention.sql."""

from iot_platform.retention.errors import PolicyError, RetentionError
from iot_platform.retention.plan import Removal, plan
from iot_platform.retention.policies import Policy, behind_mark, parse_keep, policies, remove_policy, set_policy
from iot_platform.retention.remove import RetentionReport, run_retention

__all__ = [
    "Policy",
    "PolicyError",
    "Removal",
    "RetentionError",
    "RetentionReport",
    "behind_mark",
    "parse_keep",
    "plan",
    "policies",
    "remove_policy",
    "run_retention",
    "set_policy",
]
