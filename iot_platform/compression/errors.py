"""Errors of compression; each message names the cause and the remedy."""


class CompressionError(Exception):
    """An invalid policy, or a table that has none. Never retry."""
