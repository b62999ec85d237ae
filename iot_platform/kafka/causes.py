"""Why Kafka does not answer: keeps what librdkafka tells only its error callback, and names the setting to look at."""

import re
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from ingest_daemon.kafka_tls import verify_message
from iot_platform.kafka.rights import Right, refused_right
from iot_platform.settings import Settings

# The most telling first: a password that one broker refuses says more than another broker that is down.
_TELLING: Final = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._RESOLVE, KafkaError._TRANSPORT)
_CONNECTION: Final = frozenset(
    {*_TELLING, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._WAIT_COORD, KafkaError.REQUEST_TIMED_OUT}
)
_NO_TOPIC: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
_FILES: Final = {
    "ssl.ca.location": "IOT_KAFKA_SSL_CA_FILE",
    "ssl.certificate.location": "IOT_KAFKA_SSL_CERT_FILE",
    "ssl.key.location": "IOT_KAFKA_SSL_KEY_FILE",
    "sasl": "IOT_KAFKA_SASL_MECHANISM, IOT_KAFKA_SASL_USERNAME, IOT_KAFKA_SASL_PASSWORD",
}
_CLIENT_CERTIFICATE: Final = "IOT_KAFKA_SSL_CERT_FILE, IOT_KAFKA_SSL_KEY_FILE"


class ConnectionCauses:
    """Of one client. Wrong passwords and certificates never come as an answer: calls only time out, and the cause goes to a callback.

    Create the client with `config`; when a call fails, `explain`. Safe beside threads that poll the client.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: dict[int, str] = {}

    @property
    def config(self) -> dict[str, Any]:
        """librdkafka configuration of the connection, with the callback."""
        return {**self._settings.kafka_config(), "error_cb": self.note}

    def note(self, error: KafkaError) -> None:
        """The callback, for a client that has one of its own around it."""
        self._seen[error.code()] = error.str()

    def explain(
        self, failure: KafkaException | KafkaError, poll: Callable[[float], object] | None = None, needs: Right | None = None
    ) -> str:
        """One sentence: which Kafka, what is wrong, which setting to look at.

        `poll` is the client's, which serves the callback (an AdminClient's; of a consumer that is assigned it would eat a message: leave
        it out). `needs` is the right that the call wants, for a user who lacks it.
        """
        error = failure.args[0] if isinstance(failure, KafkaException) else failure
        where = f"Kafka at {self._settings.kafka_bootstrap_servers}"
        if needs is not None and (missing := refused_right(self._settings, error, needs)):
            return f"{where}: {missing}"
        if error.code() == KafkaError._INVALID_ARG:
            return f"{where}: {error.str()} ({_setting_of_file(error.str())})"
        if error.code() not in _CONNECTION:
            return f"{where}: {error.str()}{' (IOT_KAFKA_TOPIC)' if error.code() in _NO_TOPIC else ''}"
        if poll is not None:
            poll(0)
        return f"{where} does not answer: {self._cause(error)}"

    def _cause(self, error: KafkaError) -> str:
        seen = {**self._seen, error.code(): error.str()} if error.code() in _TELLING[:3] else self._seen
        code = next((code for code in _TELLING if code in seen), None)
        if code is None:
            protocol = self._settings.kafka_security_protocol
            if KafkaError._ALL_BROKERS_DOWN in seen:  # it was reached: who is not there is told as "connection refused"
                return f"it ends each connection without a word, as with another IOT_KAFKA_SECURITY_PROTOCOL than ours ({protocol})"
            return f"{error.str()} (IOT_KAFKA_BOOTSTRAP_SERVERS)"
        text = re.sub(r" \(after \d+ms in state .*\)$", "", seen[code])
        if code == KafkaError._SSL and "certificate verify failed" in text:
            return self._untrusted(text)
        return f"{text} ({_setting(code, text, self._settings)})"

    def _untrusted(self, text: str) -> str:
        """librdkafka says the same of an unknown CA, an ended certificate and a wrong name: a handshake of our own tells them apart."""
        reason = verify_message(self._settings)
        if "expired" in reason:
            return f"the broker's certificate has ended ({reason}): it has to be renewed at the broker"
        if "mismatch" in reason or "not match" in reason:
            return f"the broker's certificate is for another name ({reason}): IOT_KAFKA_BOOTSTRAP_SERVERS"
        return f"the broker's certificate is not signed by a CA that we trust ({reason or text}): IOT_KAFKA_SSL_CA_FILE"


def _setting(code: int, text: str, settings: Settings) -> str:
    if code == KafkaError._AUTHENTICATION:
        if "mechanism handshake failed" in text:
            return "IOT_KAFKA_SECURITY_PROTOCOL" if "current SASL state" in text else "IOT_KAFKA_SASL_MECHANISM"
        return f"IOT_KAFKA_SASL_USERNAME, IOT_KAFKA_SASL_PASSWORD{'_FILE' if settings.kafka_sasl_password_file else ''}"
    if "alert" in text:  # the broker's answer to our certificate: absent, ended, or of a CA that it does not trust
        return f"the broker wants another certificate of ours: {_CLIENT_CERTIFICATE}"
    if code == KafkaError._SSL or "SSL handshake" in text or "SSL connection" in text:
        return "IOT_KAFKA_SECURITY_PROTOCOL"
    return "IOT_KAFKA_BOOTSTRAP_SERVERS"


def _setting_of_file(text: str) -> str:
    return next((setting for name, setting in _FILES.items() if name in text), "IOT_KAFKA_*")
