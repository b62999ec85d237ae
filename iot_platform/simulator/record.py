"""The simulator's memory on disk: JSON lines of what was published, whether it was acknowledged, and what must become of it."""

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from sys import intern
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from iot_platform.simulator.connection import Delivery
from iot_platform.simulator.message import Expected, Measurement, Message

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Published:
    """One line of a record. Stored exactly once if `acked` and `sends` is 1; else at least `acked` times and at most `sends` times."""

    message: Message
    acked: bool
    refused: bool
    sends: int
    published_us: int


class Recorder:
    """Writes a record; lines appear in the order in which messages settle, `number` gives the order of publishing."""

    def __init__(self, path: Path, plan: dict[str, Any]) -> None:
        self._file = path.open("w", buffering=1, encoding="utf-8")  # by line: drills follow it, and a killed simulation leaves a record
        self._write({"record": "iot-simulator", "version": VERSION, **plan})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, delivery: Delivery) -> None:
        """Note one settled or given-up publish."""
        message = delivery.message
        self._write(
            {
                "number": message.number,
                "kind": message.kind,
                "copy_of": message.copy_of,
                "topic": message.topic,
                "payload": base64.b64encode(message.payload).decode(),
                "qos": 1,
                "retain": message.retain,
                "device": message.device,
                "offset_us": message.offset_us,
                "published_us": delivery.published_us,
                "acked_us": delivery.acked_us,
                "acked": delivery.acked_us is not None,
                "refused": delivery.refused is not None,
                "sends": delivery.sends,
                "expect": _compact(message.expected),
            }
        )

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


def _compact(expected: Expected) -> dict[str, Any]:
    if expected.reason is not None:
        return {"outcome": "quarantine", "reason": expected.reason}
    document = asdict(expected) | {"outcome": "message"}
    document["measurements"] = [
        {key: value for key, value in item.items() if value is not None or key == "value"} for item in document["measurements"]
    ]
    del document["reason"]
    return document


def read_record(path: Path) -> Iterator[Published]:
    """All lines of a record, in the file's order.

    Raises:
        ValueError: the file is no record of this version.
    """
    with path.open(encoding="utf-8") as lines:
        head = json.loads(next(lines, "{}"))
        if head.get("record") != "iot-simulator" or head.get("version") != VERSION:
            raise ValueError(f"{path} is no simulator record of version {VERSION}")
        for line in lines:
            yield _parse(msgspec.json.decode(line))


def _parse(line: dict[str, Any]) -> Published:
    expect = line["expect"]
    if expect["outcome"] == "quarantine":
        expected = Expected(expect["reason"])
    else:
        measurements = tuple(Measurement(**{**item, "metric": intern(item["metric"])}) for item in expect["measurements"])
        tenant, project, device = (intern(expect[name]) for name in ("tenant", "project", "device"))  # a million times in a long record
        expected = Expected(None, tenant, project, device, expect["time_source"], measurements)
    message = Message(
        line["number"], line["offset_us"], line["device"], intern(line["kind"]), intern(line["topic"]), base64.b64decode(line["payload"]),
        expected, line["retain"], line["copy_of"],
    )  # fmt: skip
    return Published(message, line["acked"], line["refused"], line["sends"], line["published_us"])
