"""Which birth a message goes by: aliases, redeliveries, sequence numbers, deaths, and what a replay may take for the whole."""

import pytest

from iot_platform.telemetry.decode.sparkplug import births as module
from iot_platform.telemetry.decode.sparkplug.births import Birth, Births, Definition, History, Owner, Place
from iot_platform.telemetry.decode.sparkplug.topics import MessageType, SparkplugTopic, parse_topic

OWNER = Owner("t", "p")
NODE = "spBv1.0/g/e"


def at(place: int, partition: int = 0) -> Place:
    return Place(partition, place, 1_000 * place)


def birth(place: int, *names: str, device: str = "", node: str = NODE, bd_seq: int | None = None) -> Birth:
    definitions = tuple(Definition(name, 10, alias) for alias, name in enumerate(names))
    return Birth(node, device, OWNER, at(place), f"{device}{names}".encode(), bd_seq, definitions)


def name(births: Births, place: int, alias: int, device: str = "", partition: int = 0) -> str | None:
    found = births.session(NODE, at(place, partition)).find(device, alias, None)
    return None if found is None else found.name


def test_an_nbirth_ends_what_was_defined_before() -> None:
    births = Births()
    births.take(birth(1, "a", "b"))
    births.take(birth(2, "x", device="d"))
    assert (name(births, 3, 1), name(births, 3, 0, "d"), name(births, 3, 0)) == ("b", "x", "a")
    births.take(birth(4, "c"))
    assert (name(births, 5, 0), name(births, 5, 1), name(births, 5, 0, "d")) == ("c", None, None)


def test_an_alias_of_another_device_counts_where_only_one_has_it() -> None:
    births = Births()
    births.take(birth(1, "a"))
    births.take(birth(2, "a", "b", device="d"))
    births.take(birth(3, "z", device="e"))
    assert (name(births, 4, 1, "e"), name(births, 4, 1), name(births, 4, 1, "unborn")) == ("b", "b", None)
    births.take(birth(5, "a", "c", device="f"))
    assert (name(births, 6, 1, "e"), name(births, 6, 1, "d"), name(births, 6, 1, "f")) == (None, "b", "c")


def test_a_birth_that_is_delivered_again_changes_nothing() -> None:
    births = Births()
    births.take(birth(1, "a"))
    births.take(birth(2, "x", device="d"))
    births.take(birth(3, "a"))
    assert name(births, 4, 0, "d") == "x"
    assert len(births.taken().born) == 2


def test_partitions_have_no_order_between_them() -> None:
    births = Births()
    births.take(birth(1, "a"))
    assert (name(births, 2, 0), name(births, 2, 0, partition=1)) == ("a", None)


@pytest.mark.parametrize(
    ("numbers", "gaps", "missing"),
    [
        ([0, 1, 2], 0, 0),
        ([254, 255, 0, 1], 0, 0),
        ([1, 3], 1, 1),
        ([250, 2], 1, 7),
        ([5, 5, 6], 0, 0),
        ([5, 6, 7, 5, 6, 7, 8], 0, 0),  # delivered again
        ([5, None, 300, 6], 0, 0),
    ],
)
def test_gaps_are_counted_by_the_sequence_number(numbers: list[int | None], gaps: int, missing: int) -> None:
    births = Births()
    for place, number in enumerate(numbers):
        births.count(NODE, OWNER, at(place), number, is_nbirth=False, bd_seq=None)
    counts = births.taken().counts[NODE, 0]
    assert (counts.messages, counts.seq_gaps, counts.seq_missing) == (len(numbers), gaps, missing)
    assert births.taken().counts == {}


@pytest.mark.parametrize(("bd_seq", "deaths"), [(7, 1), (8, 1), (6, 0), (None, 1)])
def test_a_death_ends_its_own_birth_or_the_one_before(bd_seq: int | None, deaths: int) -> None:
    births = Births()
    births.take(birth(1, "a", bd_seq=7))
    births.died(NODE, OWNER, at(2), bd_seq)
    assert births.taken().counts[NODE, 0].deaths == deaths


def test_what_the_database_knows_is_asked_once_and_up_to_the_next_birth() -> None:
    asked = []

    def load(node: str, place: Place) -> History:
        asked.append(place.place)
        return History([birth(1, "a")], 10, 4) if place.place < 10 else History([birth(10, "b")], module.NEVER, None)

    births = Births(load)
    assert [name(births, place, 0) for place in (5, 6, 9, 10, 99, 3)] == ["a", "a", "a", "b", "b", "a"]
    assert asked == [5, 10, 3]


def test_a_replay_asks_again_after_each_birth_that_it_meets() -> None:
    """Between the records that it reads there may be births that are stored already."""

    def load(node: str, place: Place) -> History:
        return History([birth(20, "later")], module.NEVER, None) if place.place >= 20 else History([], 20, None)

    births = Births(load, replays=True)
    births.take(birth(5, "first"))
    assert [name(births, place, 0) for place in (6, 19, 20, 30)] == ["first", "first", "later", "later"]
    births.count(NODE, OWNER, at(30), 9, is_nbirth=False, bd_seq=None)
    found = births.taken()
    assert ([each.at.place for each in found.born], found.counts) == ([5], {})


def test_what_is_surely_stored_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_METRICS", 10)
    asked = []

    def load(node: str, place: Place) -> History:
        asked.append(node)
        return History()

    births = Births(load)
    for number in range(20):
        births.take(birth(number, "a", node=f"n{number}"))
        births.taken()
    assert len(set(asked)) == 20
    del asked[:]
    for number in range(20):
        births.session(f"n{number}", at(100))
    assert "n0" in asked
    assert "n19" not in asked


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("spBv1.0/g/NDATA/e", SparkplugTopic("spBv1.0/g/e", MessageType.NDATA, "")),
        ("site/1/spBv1.0/g/DDATA/e/d", SparkplugTopic("site/1/spBv1.0/g/e", MessageType.DDATA, "d")),
        ("spBv1.0/STATE/host", None),
        ("spBv1.0/g/NDATA", None),
        ("spBv1.0/g/NDATA/e/d", None),
        ("spBv1.0/g/DDATA/e", None),
        ("spBv1.0/g/DDATA/e/", None),
        ("spBv1.0/g/HELLO/e", None),
        ("mtic/x/NDATA/e", None),
    ],
)
def test_topics(topic: str, expected: SparkplugTopic | None) -> None:
    assert parse_topic(topic) == expected


def test_a_replay_takes_a_birth_again_whose_batch_was_rolled_back() -> None:
    """Until the database has it: the batch is decoded once more, and its births are to be written then."""
    stored: list[Birth] = []
    births = Births(lambda *_: History(tuple(stored)), replays=True)
    for _ in range(2):
        assert births.take(birth(1, "a"))
        assert [found.at for found in births.taken().born] == [at(1)]
        assert name(births, 2, 0) == "a"
    stored.append(birth(1, "a"))
    assert not births.take(birth(1, "a"))
    assert births.taken().born == []
