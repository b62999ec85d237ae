"""A drain's garbage collector: what circles hold is freed under steady load, too."""

import gc
import weakref

from iot_platform.telemetry.drain.quiet_collector import BUSY_SECONDS, IDLE_SECONDS, QuietCollector


class Circle:
    """Refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_drain_that_never_rests_frees_circles() -> None:
    clock = Clock()
    with QuietCollector(clock) as collector:
        circle = weakref.ref(Circle())
        clock.now += BUSY_SECONDS - 1
        assert not collector.look(busy=True)
        assert circle() is not None
        clock.now += 1
        assert collector.look(busy=True)
        assert circle() is None
        assert not collector.look(busy=True)


def test_one_that_rests_collects_sooner() -> None:
    clock = Clock()
    with QuietCollector(clock) as collector:
        clock.now += IDLE_SECONDS
        assert not collector.look(busy=True)
        assert collector.look(busy=False)


def test_the_collector_is_afterwards_as_it_was() -> None:
    enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    with QuietCollector():
        assert not gc.isenabled()
        assert gc.get_freeze_count() > frozen
    assert gc.isenabled() == enabled
    assert gc.get_freeze_count() == 0
