"""JSON, the default: strict RFC 8259."""

from iot_platform.telemetry.decode.codecs.codec import Codec, Record
from iot_platform.telemetry.decode.document import Document, read_json


class JsonCodec(Codec):
    """No options."""

    def read(self, payload: bytes, record: Record) -> Document:
        return read_json(payload)
