"""This checkout against an earlier one, alternated in one run: the drain from a backlog in Kafka, the ingest daemon from a backlog at the
broker, or the decoder alone. The other checkout needs its own .venv (`make bootstrap` in it), and runs its own code on its own defaults.

    python -m bench.before_after drain ../before --kind flat --messages 400000 --rounds 15
    python -m bench.before_after ingest ../before --messages 150000 --rounds 8
    python -m bench.before_after ingest ../before --messages 2000 --window 1
    python -m bench.before_after decode ../before --messages 20000 --rounds 8

Servers as for bench.drain and bench.ingest; the decoder needs none. Both ingest daemons write to topics with flush.messages=1; the earlier
one to topics with Kafka's own settings if --no-flush-before asks for the price of syncing. The first round warms up and is not counted.
Prints, per figure, the medians, their ratio (above 1: this checkout is faster or needs less) and the median of the ratios of the pairs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from bench import drain
from bench.ingest import WINDOW, topics
from iot_platform.settings import Settings, exports, get_settings

HERE = Path(__file__).parents[1]
Result = dict[str, float]

# What runs in either checkout: its own bench module on a topic that is there already.
DRAIN = """
import json, sys
from bench import drain
from iot_platform.settings import get_settings
own = get_settings().model_copy(update={"kafka_topic": sys.argv[1]})
with drain.database(own, sys.argv[2]) as target:
    print(json.dumps(drain.drain(target)))
"""
INGEST = """
import json, sys
from bench import ingest
mqtt, kafka, topic, count = sys.argv[1:4] + [int(sys.argv[4])]
ingest.WINDOW = int(sys.argv[5])  # the broker's Receive Maximum and the daemon's setting alike
ingest.prepare(mqtt, topic, topic, count, v5=True)
print(json.dumps(ingest.daemon(mqtt, kafka, topic, topic, count)))
"""
DECODE = """
import gc, json, sys, time
from bench.decode import flat, realistic, records
from iot_platform.settings import Settings
from iot_platform.telemetry.decode import Decoder, DecodeRules
gc.disable()
count, rules, found = int(sys.argv[1]), DecodeRules.from_settings(Settings()), {}
for name, make in (("flat_us", flat), ("mix_us", realistic)):
    decoder = Decoder(rules)
    batches = [records(make, count, seed) for seed in range(4)]
    times = []
    for batch in batches:
        begun = time.process_time()
        decoder.decode(batch.topics, batch.payloads, batch.received_at)
        times.append((time.process_time() - begun) / count * 1e6)
    found[name] = sorted(times[1:])[1]
print(json.dumps(found))
"""


def run(checkout: Path, code: str, *arguments: str, settings: Settings | None = None) -> Result:
    """Run code with a checkout's packages, under these settings or those of this process; the last line that it prints is the result."""
    python = sys.executable if checkout == HERE else str(checkout / ".venv" / "bin" / "python")
    environment = os.environ | (exports(settings) if settings else {})
    done = subprocess.run([python, "-c", code, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr[-2000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(before: Path, rounds: int, once: Callable[[Path, str], Result]) -> dict[str, list[Result]]:
    """Results by "before" and "now" of so many rounds and one more to warm up; who begins changes with each round."""
    checkouts = {"before": before, "now": HERE}
    results: dict[str, list[Result]] = {name: [] for name in checkouts}
    for number in range(rounds + 1):
        for name in ("before", "now") if number % 2 else ("now", "before"):
            result = once(checkouts[name], f"{os.getpid()}_{number}_{name}")
            if number:
                results[name].append(result)
    return results


def show(results: dict[str, list[Result]], figures: dict[str, bool]) -> None:
    """One line for each figure; those that are True are better when they are larger."""
    for figure, more_is_better in figures.items():
        before, now = ([result[figure] for result in results[name]] for name in ("before", "now"))
        turn = 1 if more_is_better else -1
        ratio = (statistics.median(now) / statistics.median(before)) ** turn
        pairs = statistics.median((new / old) ** turn for old, new in zip(before, now, strict=True))
        medians = f"before {statistics.median(before):,.2f}, now {statistics.median(now):,.2f}"
        print(f"{figure:12} {medians}, ratio {ratio:.3f}, of pairs {pairs:.3f}")


def compare_drain(options: argparse.Namespace) -> None:
    settings = get_settings()
    topic = f"bench-before-after-{os.getpid()}"
    with AdminClient(settings.kafka_config()) as admin:
        new = NewTopic(topic, drain.PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})
        admin.create_topics([new])[topic].result(30)
        try:
            drain.produce(settings.model_copy(update={"kafka_topic": topic}), drain.MIXES[options.kind](), options.messages)
            found = compare(options.before, options.rounds, lambda checkout, name: run(checkout, DRAIN, topic, f"bench_{name}"))
        finally:
            admin.delete_topics([topic])[topic].result(30)
    show(found, {"seconds": False, "cpu": False, "resident_mb": False})


def compare_ingest(options: argparse.Namespace) -> None:
    def once(checkout: Path, name: str) -> Result:
        topic = f"bench-before-after-{name}"
        synced = checkout == HERE or options.flush_before
        with topics(options.mqtt, options.kafka, topic, {"flush.messages": "1"} if synced else {}):
            return run(checkout, INGEST, options.mqtt, options.kafka, topic, str(options.messages), str(options.window))

    show(compare(options.before, options.rounds, once), {"per_second": True, "cpu_us": False, "resident_mb": False})


def compare_decode(options: argparse.Namespace) -> None:
    found = compare(options.before, options.rounds, lambda checkout, _: run(checkout, DECODE, str(options.messages)))
    show(found, {"flat_us": False, "mix_us": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(COMPARE))
    parser.add_argument("before", type=lambda text: Path(text).resolve(), help="the earlier checkout")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--window", type=int, default=WINDOW, help="most messages in flight at the ingest daemon; a few: as some brokers do"
    )
    parser.add_argument("--flush-before", action=argparse.BooleanOptionalAction, default=True, help="flush.messages=1 for the earlier one")
    parser.add_argument("--kind", choices=list(drain.MIXES), default="flat", help="of the drain's messages")
    parser.add_argument("--mqtt", default=os.environ.get("IOT_MQTT_URL", "mqtt://127.0.0.1:1883"))
    parser.add_argument("--kafka", default=os.environ.get("IOT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    options = parser.parse_args()
    COMPARE[options.what](options)


COMPARE = {"drain": compare_drain, "ingest": compare_ingest, "decode": compare_decode}


if __name__ == "__main__":
    main()
