"""Errors of the quality package; each message names the cause and the remedy."""


class QualityError(Exception):
    """Root of this package's errors."""


class BusyError(QualityError):
    """Another evaluation is running. Retry later, or leave it to that one."""


class RulesError(QualityError):
    """Settings of rules that make no sense; nothing was changed. The message names the place. Never retry."""
