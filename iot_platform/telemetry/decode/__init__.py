"""Kafka records to measurements, by the decode contract: a columnar `Decoder` for batches, `decode_one` as its reference."""

from iot_platform.telemetry.decode.batch import Decoder
from iot_platform.telemetry.decode.plain import decode_one
from iot_platform.telemetry.decode.reasons import Measurement, Message, Quarantined, Reason
from iot_platform.telemetry.decode.result import DecodedBatch
from iot_platform.telemetry.decode.rules import Correction, DecodeRules

__all__ = ["Correction", "DecodeRules", "DecodedBatch", "Decoder", "Measurement", "Message", "Quarantined", "Reason", "decode_one"]
