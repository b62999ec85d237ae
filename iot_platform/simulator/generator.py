"""The plan of a simulation: an endless, reproducible stream of messages with their expected outcomes. Pure; no network, no clock."""

import heapq
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from iot_platform.simulator import malformed, payloads
from iot_platform.simulator.fleet import Device, FleetOptions, TopicTemplate, build_fleet
from iot_platform.simulator.message import Expected, Message

UNPACED_STEP_US: Final = 100  # event times of a simulation "as fast as possible" advance as if it made 10,000 messages a second
COPY_DISTANCE: Final = 50  # a duplicate follows its original within this many messages


class Generator:
    """Messages of a seeded fleet.

    Devices report in turn, each at an interval of its own phase. The same options, pattern, rate and start time give the same topics and
    payload bytes in the same order. Unless they are meant as duplicates or conflicts, no two messages claim the same (series, time).
    """

    def __init__(self, options: FleetOptions, pattern: str, start_us: int, rate: float) -> None:
        self.options = options
        self.start_us = start_us
        self._template = TopicTemplate(pattern)
        self.fleet: Sequence[Device] = build_fleet(options, self._template, start_us)
        self._rng = random.Random(f"{options.seed}/messages")  # noqa: S311 - reproducible, no secret
        self._turns = itertools.cycle(self._rng.sample(range(len(self.fleet)), len(self.fleet)))
        self._step_us = 1_000_000 / rate if rate else UNPACED_STEP_US
        self._paced = rate > 0

    def messages(self) -> Iterator[Message]:
        """The stream; may be iterated once."""
        copies: list[tuple[int, int, Message]] = []  # (number at which it is due, tie-break, original)
        for number in itertools.count():
            offset_us = int(number * self._step_us)
            if copies and copies[0][0] <= number:
                original = heapq.heappop(copies)[2]
                message = replace(original, number=number, offset_us=offset_us, kind="duplicate", copy_of=original.number)
            else:
                message = self._new(number, offset_us)
                if self._rng.random() < self.options.duplicate:
                    heapq.heappush(copies, (number + self._rng.randrange(1, COPY_DISTANCE), number, message))
            yield message if self._paced else replace(message, offset_us=0)

    def _new(self, number: int, offset_us: int) -> Message:
        rng, options = self._rng, self.options
        device = self.fleet[next(self._turns)]
        now_us = self.start_us + offset_us
        roll = rng.random()
        if roll < options.malformed:
            kind, topic, payload, reason = malformed.build(device, self._template, rng)
            return Message(number, offset_us, device.number, kind, topic, payload, Expected(reason))
        roll -= options.malformed
        retain = rng.random() < options.retained
        if roll < options.heartbeat:
            name = device.name if device.named_by_topic else ""
            outcome = Expected(None, device.tenant, device.project, name)
            return Message(number, offset_us, device.number, "heartbeat", device.topic, b"{}", outcome, retain)
        kind, stamp = self._stamp(device, now_us, roll - options.heartbeat)
        payload, outcome = payloads.build(device, rng, now_us, stamp)
        return Message(number, offset_us, device.number, kind, device.topic, payload, outcome, retain)

    def _stamp(self, device: Device, now_us: int, roll: float) -> tuple[str, tuple[object, int] | None]:
        """What kind of message this is in time, and its event time; a batch stamps its points itself."""
        if device.clock is None or device.model == "batch":
            return device.model, None
        if roll < self.options.late:
            late = device.clock.late(now_us, self._rng)
            if late is not None:
                return "late", late
        elif roll < self.options.late + self.options.conflict:
            again = device.clock.repeat(self._rng)
            if again is not None:
                return "conflict", again
        return "skewed" if device.clock.skew_us else device.model, device.clock.stamp(now_us, self._rng)
