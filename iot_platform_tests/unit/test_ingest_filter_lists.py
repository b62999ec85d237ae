"""Several topic filters: what is one, and which pairs of them some topic matches both of."""

import pytest

from ingest_daemon import probe, topic_filters


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("a/#", ("a/#",)),
        ("a,b", ("a,b",)),  # a comma is legal in a topic
        ("[a]/b", ("[a]/b",)),
        ('["a/#", "b,c/+"]', ("a/#", "b,c/+")),
        ('["a/#", "a/#"]', ("a/#",)),
    ],
)
def test_one_or_a_json_list(text: str, filters: tuple[str, ...]) -> None:
    assert topic_filters.parse(text) == filters


@pytest.mark.parametrize("text", ["", "a/#/b", "a+", "$share/g/a", '["a/#", 1]', '["a/#"', '["a/#", "b+"]', "a\0b"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        topic_filters.parse(text)


def test_lines_of_a_file() -> None:
    assert topic_filters.parse_lines("a/#\r\n\n  \nb c/d \n") == ("a/#", "b c/d ")  # a blank is part of a topic
    with pytest.raises(ValueError, match="at least one"):
        topic_filters.parse_lines("\n")
    with pytest.raises(ValueError, match="# a comment"):
        topic_filters.parse_lines("a/#\n# a comment\n")


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/+/c", "a/b/+", True),
        ("#", "x", True),
        ("+/b", "a/+", True),
        ("a/b/#", "a/+", True),
        ("a/b", "a/c", False),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/b/#", "a/c/#", False),
        ("a/b/c/#", "a/+", False),
    ],
)
def test_overlapping(one: str, other: str, overlap: bool) -> None:
    assert topic_filters.overlapping((one, other)) == ([(one, other)] if overlap else [])
    assert topic_filters.overlapping((other, one)) == ([(other, one)] if overlap else [])


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [("a/#", "a/iot-probe"), ("#", "iot-probe"), ("a/+/b/+", "a/iot-probe/b/iot-probe"), ("a/b", "a/b"), ("/+", "/iot-probe")],
)
def test_the_probe_s_topic_matches_the_filter(topic_filter: str, topic: str) -> None:
    assert probe.topic_of(topic_filter) == topic


def test_only_a_probe_is_a_probe() -> None:
    probes = probe.Probes()
    probes.follow(["a/#"])
    content = probe.payload("0" * 32)
    assert len(content) == probe.PAYLOAD_BYTES
    assert probes.take(b"a/iot-probe", content)
    assert not probes.take(b"a/iot-probe", content[:-1])
    assert not probes.take(b"a/iot-probe", b"x" + content[1:])
    assert not probes.take(b"a/other", content)
    probes.follow(["b/#"])
    assert probes.take(b"a/iot-probe", content)  # it was on its way
    assert b'"topics": ["b/iot-probe"]' in probes.page()
    assert probes.page().count(b"0" * 32) == 2
