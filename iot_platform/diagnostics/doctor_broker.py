"""What `iot doctor` says about the MQTT broker's settings: whether what it acknowledged to a device waits for a daemon that is away."""

from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

from iot_platform.diagnostics.broker_queue import DROPPED, PUBLISHED, QueueError, ask_broker, kept_for_the_absent
from iot_platform.diagnostics.finding import Finding
from iot_platform.diagnostics.mosquitto_config import MosquittoConfig, local_config
from iot_platform.local import probes
from iot_platform.local.errors import NotReadyError
from iot_platform.settings import Settings, SettingsError

ENOUGH_MESSAGES: Final = 100_000
"""A queue shorter than this is full after 100 s of 1,000 messages a second."""
ENOUGH_BYTES: Final = 100 << 20
OFTEN_SECONDS: Final = 60
_DEFAULT_QUEUE: Final = 1000
_DEFAULT_AUTOSAVE: Final = 1800
_DAY: Final = 86_400
_UNITS: Final = {"h": 3600, "d": _DAY, "w": 7 * _DAY, "m": 30 * _DAY, "y": 365 * _DAY}
_WHAT: Final = "broker"


def broker_findings(settings: Settings, expiry_seconds: int) -> Iterator[Finding]:
    """`expiry_seconds`: what the daemon asks for (IOT_INGEST_SESSION_EXPIRY_SECONDS). Nothing where the broker does not answer, as another
    finding says. Where its configuration can't be read, a session of our own tries how many messages it keeps: about 5 s, 30 at most."""
    url = urlsplit(settings.mqtt_url.get_secret_value())
    config = local_config(url.hostname or "", url.port or (8883 if url.scheme == "mqtts" else 1883))
    try:
        yield from _asked(settings, expiry_seconds)
        told = [*_configured(config, settings, expiry_seconds)] if config else [_probed(settings)]
    except NotReadyError:
        return
    except (QueueError, SettingsError) as error:
        remedy = "see that it keeps 100,000 messages and more (docs/operations.md)"
        yield Finding(_WHAT, "note", f"its queue can't be looked at: {error}", remedy)
        return
    yield from told
    if config and not told:
        yield Finding(_WHAT, "ok", f"{config.file}: its queue, its persistence and its sessions outlive an outage of the daemon")


def _asked(settings: Settings, expiry_seconds: int) -> Iterator[Finding]:
    """What the broker says when somebody connects, and in $SYS."""
    answer = ask_broker(settings, expiry_seconds, probes.mqtt(settings))
    granted = answer.session_expiry_seconds
    if granted is not None and granted < expiry_seconds:
        text = f"it keeps a session for {granted:,} s, and the daemon asks for {expiry_seconds:,} s: away for longer, messages are lost"
        yield Finding(_WHAT, "risk", text, "raise the broker's session expiry (EMQX: mqtt.session_expiry_interval), or "
                      "lower IOT_INGEST_SESSION_EXPIRY_SECONDS")  # fmt: skip
    if answer.most_bytes is not None and answer.most_bytes < settings.ingest_max_record_bytes:
        text = (
            f"it takes no packet above {answer.most_bytes:,} bytes, and IOT_INGEST_MAX_RECORD_BYTES is {settings.ingest_max_record_bytes:,}"
        )
        yield Finding(_WHAT, "note", text, "max_packet_size there, if devices send more")
    if answer.dropped:
        text = f"it has dropped {answer.dropped:,} messages since its start, because a client's queue was full ({DROPPED})"
        yield Finding(_WHAT, "risk", text, "raise max_queued_messages; was it the daemon's queue? Compare with what devices sent")


def _configured(config: MosquittoConfig, settings: Settings, expiry_seconds: int) -> Iterator[Finding]:
    """What a Mosquitto's own configuration endangers."""

    def risk(text: str, remedy: str) -> Finding:
        return Finding(_WHAT, "risk", text, f"{remedy} in {config.file}, and restart it")

    yield from _queue(config, risk=risk)
    if not config.is_on("persistence"):
        yield risk("persistence is off: a restart of the broker loses all that waits for the daemon, and its session", "persistence true")
    elif (every := config.number("autosave_interval", _DEFAULT_AUTOSAVE)) == 0 or every > OFTEN_SECONDS:
        span = f"every {every:,} s" if every else "only when it is stopped"
        text = f"autosave_interval={every}: it saves its queues {span}; killed, it loses what came since, acknowledged to the devices"
        yield risk(text, "autosave_interval 10")
    kept = _seconds(config.options.get("persistent_client_expiration", ""))
    if kept is not None and kept < expiry_seconds:
        text = f"persistent_client_expiration={config.options['persistent_client_expiration']}: the daemon's session and its messages are "
        text += f"gone after {kept:,} s; it asks for {expiry_seconds:,} s, and the broker grants that without a word"
        yield risk(text, f"persistent_client_expiration {-(-expiry_seconds // _DAY)}d or more")
    limit = config.number("message_size_limit", 0)
    if 0 < limit < settings.ingest_max_record_bytes:
        text = f"message_size_limit={limit}: larger messages are taken from no device; IOT_INGEST_MAX_RECORD_BYTES is "
        text += f"{settings.ingest_max_record_bytes:,}"
        yield Finding(_WHAT, "note", text, f"message_size_limit 0 in {config.file}, if devices send more")


def _queue(config: MosquittoConfig, *, risk: Callable[[str, str], Finding]) -> Iterator[Finding]:
    messages, size = config.number("max_queued_messages", _DEFAULT_QUEUE), config.number("max_queued_bytes", 0)
    if 0 < messages < ENOUGH_MESSAGES:
        default = "" if "max_queued_messages" in config.options else " (its default)"
        text = f"max_queued_messages={messages}{default}: of what devices send while the daemon is away, the broker drops all beyond it, "
        yield risk(text + "acknowledged to the devices", "max_queued_messages 1000000")
    if 0 < size < ENOUGH_BYTES:
        text = f"max_queued_bytes={size}: of what devices send while the daemon is away, the broker drops all beyond it"
        yield risk(text, "max_queued_bytes 0")


def _seconds(span: str) -> int | None:
    """Mosquitto's form of a span: a number and h, d, w, m or y."""
    number, unit = span[:-1], span[-1:]
    return int(number) * _UNITS[unit] if number.isdigit() and unit in _UNITS else None


def _probed(settings: Settings) -> Finding:
    kept = kept_for_the_absent(settings, probes.mqtt(settings))
    if kept < PUBLISHED:
        text = f"of {PUBLISHED:,} messages for a client that is away it kept {kept:,} and dropped the rest, acknowledged"
        remedy = "max_queued_messages (Mosquitto), mqtt.max_mqueue_len (EMQX), max_offline_messages (VerneMQ), queued-messages (HiveMQ)"
        return Finding(_WHAT, "risk", text, f"raise its queue to 100,000 and more: {remedy}")
    text = (
        f"keeps {PUBLISHED:,} messages for a client that is away, more than the usual default of 1,000; its limit can't be seen from here"
    )
    return Finding(_WHAT, "ok", text)
