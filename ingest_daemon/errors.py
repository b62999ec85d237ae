"""Errors of the ingest daemon."""


class IngestError(Exception):
    """Base of every error that the daemon raises itself."""


class SettingsError(IngestError):
    """A setting is missing, invalid or unsafe; the message names the variable and the rule. Never retry."""


class UnsafeBrokerError(IngestError):
    """The MQTT broker granted less than at-least-once delivery needs; the message names the setting. Never retry."""


class ProtocolError(IngestError):
    """The MQTT broker sent bytes that break the protocol. Retry with a new connection."""


class SpoolError(IngestError):
    """The spool can't be written or read now; the message names the setting. Retry later."""
