"""CPU µs per message of the decoder: flat numbers, the realistic mix; beside them the plain decoder and a bare parse.

python -m bench.decode [--messages 20000] [--rounds 7]
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from random import Random
from typing import cast

import msgspec

from iot_platform.settings import Settings
from iot_platform.telemetry.decode import Decoder, DecodeRules, decode_one
from iot_platform_tests.support.feeds.decode_cases import NOW, Records, flat, realistic

Maker = Callable[[Random], tuple[bytes, bytes]]


def records(make: Maker, count: int, seed: int) -> Records:
    random = Random(seed)
    return Records.of([make(random) for _ in range(count)])


def measure(name: str, make: Maker, count: int, rounds: int) -> None:
    rules = DecodeRules.from_settings(Settings())
    decoder = Decoder(rules)
    warm = records(make, count, 0)
    decoder.decode(warm.topics, warm.payloads, warm.received_at)
    fast: list[float] = []
    plain: list[float] = []
    parse: list[float] = []
    measurements = 0
    for seed in range(1, rounds + 1):
        batch = records(make, count, seed)  # new objects: hashes are not cached, as from Kafka
        started = time.process_time()
        measurements = len(decoder.decode(batch.topics, batch.payloads, batch.received_at).m_row)
        fast.append((time.process_time() - started) / count * 1e6)
        started = time.process_time()
        list(map(msgspec.json.Decoder().decode, cast(list[bytes], batch.payloads)))
        parse.append((time.process_time() - started) / count * 1e6)
        part = count // 20
        started = time.process_time()
        for topic, payload in zip(batch.topics[:part], batch.payloads[:part], strict=True):
            decode_one(rules, topic, payload, NOW)
        plain.append((time.process_time() - started) / part * 1e6)
    size = sum(len(payload or b"") for payload in warm.payloads) / count
    print(
        f"{name}: {size:.0f} B, {measurements / count:.2f} measurements; batch {statistics.median(fast):.2f} µs/message "
        f"(best {min(fast):.2f}), plain {statistics.median(plain):.1f}, bare parse {statistics.median(parse):.2f} (best {min(parse):.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    gc.disable()  # as in the drain
    measure("flat numbers", flat, arguments.messages, arguments.rounds)
    measure("realistic mix", realistic, arguments.messages, arguments.rounds)


if __name__ == "__main__":
    main()
