"""Errors of the retention package; each message names the cause and the remedy."""


class RetentionError(Exception):
    """Root of this package's errors. Never retry."""


class PolicyError(RetentionError):
    """A policy that means nothing, or contradicts another one. Never retry."""
