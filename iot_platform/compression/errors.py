"""Errors of compression; each message names the cause and the remedy."""


class CompressionError(Exception):
    """A policy that makes no sense, or a table that has none. Never retry."""
