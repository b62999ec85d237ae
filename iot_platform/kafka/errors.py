"""Errors of reading from Kafka; each message names the cause and the setting to look at."""


class KafkaUnavailableError(Exception):
    """Kafka did not answer. Retry later."""


class TopicMissingError(KafkaUnavailableError):
    """Kafka answers, and has no such topic or partition. A person decides: never retry by itself."""
