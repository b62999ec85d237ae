"""What a failed TLS connection to the MQTT broker means, with the setting to look at."""

import ssl

# OpenSSL's names of the alerts by which a server refuses a client's certificate, or the lack of one.
_OURS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")


def tls_cause(error: ssl.SSLError) -> str:
    """One sentence."""
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not accepted: {error.verify_message} (IOT_MQTT_TLS_CA_FILE, or the host in IOT_MQTT_URL)"
    if "ALERT" in (error.reason or "") and any(word in error.reason for word in _OURS):
        return f"the broker does not take our certificate: {reason} (IOT_MQTT_TLS_CERT_FILE, IOT_MQTT_TLS_KEY_FILE)"
    if error.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "HTTP_REQUEST"):
        return f"{reason}: is this a TLS port? (IOT_MQTT_URL)"
    return f"{reason} (IOT_MQTT_TLS_*)"
