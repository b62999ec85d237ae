"""How often somebody may ask the console."""

from iot_platform.api.limits import MOST_REMEMBERED, Buckets


class Clock:
    """Seconds that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_fills_again() -> None:
    clock = Clock()
    buckets = Buckets(2.0, 3.0, clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0, "somebody else's is his own"
    clock.now += 0.5
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0
    clock.now += 3600
    assert [buckets.take("a") > 0 for _ in range(4)] == [False, False, False, True], "never more than its size"


def test_buckets_do_not_grow_for_ever() -> None:
    clock = Clock()
    buckets = Buckets(1.0, 2.0, clock)
    for number in range(MOST_REMEMBERED + 100):
        buckets.take(number)
    assert len(buckets._buckets) == MOST_REMEMBERED
    clock.now += 10
    buckets.forget()
    assert not buckets._buckets
