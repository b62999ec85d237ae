"""`python -m iot_platform.drills.rig.second_drain`: drains every Kafka partition without asking for the lock of the shard, again and again,
until SIGTERM. What a run would do that Dagster took for dead and that lives."""

import threading

from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.settings import get_settings
from iot_platform.signals import stop_on_signals
from iot_platform.telemetry.drain.drain import Drain, Shift
from iot_platform.telemetry.errors import TransientError

RUN_ID = "drill second drain"


def main() -> None:
    """Drain until a signal stops it."""
    stop = threading.Event()
    settings = get_settings()
    with TopicOffsets(settings) as topic:
        partitions = topic.partitions()
    with stop_on_signals(stop):
        while not stop.is_set():
            try:
                Drain(settings, Shift(partitions, RUN_ID), stop=stop).run()
            except TransientError:
                stop.wait(1)


if __name__ == "__main__":
    main()
