"""Errors of the drain, beside those of kafka and database. What retries.py does not retry stops the drain loudly, and loses nothing."""


class DrainError(Exception):
    """Root of the drain's errors."""


class TransientError(DrainError):
    """PostgreSQL or Kafka did not answer, cut the connection or asked to try again. Retry."""


class DrainedElsewhereError(DrainError):
    """Another drain committed offsets of ours first; nothing of ours was written. Read next_offset again and go on."""


class TopicRecreatedError(DrainError):
    """The topic (or the whole cluster) is not the one whose offsets we noted. A person decides. Never retry."""


class DataGoneError(DrainError):
    """Kafka no longer has, or never had, the offset that comes next. A person decides. Never retry."""


class ReplayError(DrainError):
    """What was selected for a replay does not exist. Never retry."""


class OptionError(DrainError):
    """An option or value that projects do not have. Never retry."""


class CorrectionError(DrainError):
    """A correction of the rules of decoding means nothing; `field` is the setting, if it is one. Never retry."""

    def __init__(self, words: str, field: str = "") -> None:
        super().__init__(words)
        self.field = field


def accept_command(partitions: list[int]) -> str:
    """What a person runs to accept a loss."""
    return "iot offsets accept " + " ".join(f"--partition {partition}" for partition in partitions)
