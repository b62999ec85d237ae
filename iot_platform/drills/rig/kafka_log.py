"""A Kafka partition's log on disk, cut by hand: what a power cut does to a broker that had not synced, at an offset of our choice."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_HEAD: Final = struct.Struct(">qi")
"""Base offset of a batch, and how many bytes follow these two fields (Kafka's record batch format, version 2)."""
_LAST_DELTA: Final = struct.Struct(">i")
_LAST_DELTA_AT: Final = 23
CLEAN_SHUTDOWN: Final = ".kafka_cleanshutdown"


def cut_log(folder: Path, offset: int) -> int:
    """Forget every batch of a partition's folder that reaches to `offset` or beyond, and return where the log ends now. The broker must be
    dead; it finds an unclean shutdown when it starts.

    Raises:
        ValueError: the log ends before the offset.
    """
    segments = sorted(folder.glob("*.log"))
    if not segments:
        raise ValueError(f"{folder} holds no log")
    kept_to = int(segments[0].stem)
    for segment in segments:
        for position, following, end in _batches(segment):
            if end > offset:
                with segment.open("r+b") as file:
                    file.truncate(position)
                _forget(folder, segment, segments)
                return kept_to
            kept_to = end
            del following
    raise ValueError(f"the log in {folder} ends at {kept_to}, before {offset}")


def _batches(segment: Path) -> Iterator[tuple[int, int, int]]:
    """Where each batch begins and ends in the file, and the offset behind its last record."""
    data = segment.read_bytes()
    position = 0
    while position + _HEAD.size <= len(data):
        base, length = _HEAD.unpack_from(data, position)
        if length <= 0 or position + _HEAD.size + length > len(data):
            return
        (delta,) = _LAST_DELTA.unpack_from(data, position + _LAST_DELTA_AT)
        yield position, position + _HEAD.size + length, base + delta + 1
        position += _HEAD.size + length


def _forget(folder: Path, last: Path, segments: list[Path]) -> None:
    """What the log says beyond its new end: later segments, indexes, producer states; the broker makes them anew."""
    for segment in segments:
        if segment.stem > last.stem:
            segment.unlink()
    for pattern in ("*.index", "*.timeindex", "*.txnindex", "*.snapshot"):
        for path in folder.glob(pattern):
            if path.stem >= last.stem:
                path.unlink()
    (folder.parent / CLEAN_SHUTDOWN).unlink(missing_ok=True)
