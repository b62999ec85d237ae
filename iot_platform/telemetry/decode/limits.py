"""Limits of the decode contract that several stages share."""

MAX_NAME_BYTES = 256
MAX_LEVELS = 32
MAX_MEASUREMENTS = 1000
MAX_WINDOW_US = 2**60  # 36,000 years; sums with times stay within 64 bits
