"""Randomness that can be asked in any order: a hash of seed and position. The same on every machine and with every numpy."""

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

UInts = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)


def key(seed: int, purpose: str) -> np.uint64:
    """A starting point for one purpose under one seed."""
    return np.uint64(int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "big"))


def scatter(start: np.uint64, *positions: npt.NDArray[np.int64]) -> UInts:
    """64 random bits for each position (one or more integer columns of equal length): SplitMix64, once per column."""
    state: UInts = np.full(len(positions[0]), start, np.uint64)
    for column in positions:
        state ^= column.astype(np.uint64) * _GOLDEN
        state += _GOLDEN
        state ^= state >> np.uint64(30)
        state *= _FIRST
        state ^= state >> np.uint64(27)
        state *= _SECOND
        state ^= state >> np.uint64(31)
    return state


def uniform(bits: UInts) -> Floats:
    """Numbers in [0, 1)."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(bits: UInts) -> Floats:
    """About normal: mean 0, variance 1, within ±3.5 (the sum of four 16-bit numbers)."""
    total = np.zeros(len(bits), np.float64)
    for shift in (0, 16, 32, 48):
        total += ((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float64)
    total /= 65535.0
    total -= 2.0
    total *= 3.0**0.5
    return total
