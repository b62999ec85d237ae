"""Errors of reading; each message names the cause and what to change."""


class ReadError(Exception):
    """Root of this package's errors."""


class ReadQuestionError(ReadError, ValueError):
    """What was asked for makes no sense: a time without a zone, an unknown resolution. Never retry."""


class ReadAccessError(ReadError):
    """No address, refused credentials, or a login that belongs to no tenant. Never retry."""


class ReadInterruptedError(ReadError):
    """The server was away, or ended the session, again and again. Retry."""
