"""What flush.messages=1 costs: the daemon's producer against topics with and without it, alternated in one run.

Two loads: as fast as the in-flight window allows, and one message at a time (its latency is the price of a sync). Beside them, how
often the disk under `--disk` syncs a second: the folder of that Kafka's data, on this machine.

    python -m bench.kafka_flush --kafka 127.0.0.1:9092 --disk .local/data/kafka --messages 200000 --rounds 3
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from iot_platform.diagnostics.disk_syncs import syncs_per_second

PARTITIONS = 6
TOPICS = {"with": {"flush.messages": "1"}, "without": {}}
PAYLOAD = b'{"deviceId":"sensor-001","temp":25.3,"ok":true,"n":%07d}'


def producer(kafka: str) -> Producer:
    """As the ingest daemon's."""
    config = {"linger.ms": 5, "compression.type": "lz4", "batch.size": 900_000, "acks": "all", "enable.idempotence": True}
    return Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random", **config})


def fast(client: Producer, topic: str, messages: int, window: int) -> float:
    """Messages a second."""
    began, sent = time.perf_counter(), 0
    while sent < messages:
        while len(client) < window and sent < messages:
            client.produce(topic, PAYLOAD % sent, key=b"sensor-%d" % (sent % 500))
            sent += 1
        client.poll(0.001)
    assert client.flush(120) == 0
    return messages / (time.perf_counter() - began)


def alone(client: Producer, topic: str, messages: int) -> list[float]:
    """Milliseconds from produce to report, one message at a time."""
    took = []
    for number in range(messages):
        began = time.perf_counter()
        client.produce(topic, PAYLOAD % number, key=b"sensor-1")
        assert client.flush(60) == 0
        took.append((time.perf_counter() - began) * 1000)
    return took


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kafka", default="127.0.0.1:9092")
    parser.add_argument("--disk", type=Path, required=True)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=10_000, help="IOT_INGEST_IN_FLIGHT_WINDOW")
    options = parser.parse_args()
    with AdminClient({"bootstrap.servers": options.kafka}) as admin:
        names = {kind: f"bench-flush-{kind}-{time.time_ns()}" for kind in TOPICS}
        made = admin.create_topics(
            [NewTopic(names[kind], PARTITIONS, 1, config=config) for kind, config in TOPICS.items()], operation_timeout=15
        )
        for future in made.values():
            future.result(20)
        client = producer(options.kafka)
        rates: dict[str, list[float]] = {kind: [] for kind in TOPICS}
        latencies: dict[str, list[float]] = {kind: [] for kind in TOPICS}
        try:
            for kind in TOPICS:
                fast(client, names[kind], 20_000, options.window)  # warm
            for number in range(options.rounds):
                for kind in list(TOPICS) if number % 2 == 0 else reversed(TOPICS):
                    rates[kind].append(fast(client, names[kind], options.messages, options.window))
                    latencies[kind] += alone(client, names[kind], 200)
            document = {
                "syncs_per_second": round(syncs_per_second(options.disk)),
                "messages_per_second": {kind: [round(rate) for rate in found] for kind, found in rates.items()},
                "ratio": round(statistics.median(rates["with"]) / statistics.median(rates["without"]), 3),
                "one_message_milliseconds": {
                    kind: {"p50": round(statistics.median(found), 2), "p99": round(statistics.quantiles(found, n=100)[98], 2)}
                    for kind, found in latencies.items()
                },
            }
            print(json.dumps(document))
        finally:
            for future in admin.delete_topics(list(names.values())).values():
                future.result(30)


if __name__ == "__main__":
    main()
