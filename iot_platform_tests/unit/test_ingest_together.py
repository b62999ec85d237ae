"""All topics of a Sparkplug B edge node go to one Kafka partition; all others to where their topic puts them."""

import pytest

from ingest_daemon.together import partition_of


@pytest.mark.parametrize("prefix", [b"", b"site/1/"])
def test_one_edge_node_one_partition(prefix: bytes) -> None:
    for node in range(50):
        topics = [b"NBIRTH/n%d" % node, b"NDATA/n%d" % node, b"NDEATH/n%d" % node, b"DBIRTH/n%d/a" % node, b"DDATA/n%d/b" % node]
        assert len({partition_of(prefix + b"spBv1.0/group/" + topic, 6) for topic in topics}) == 1


def test_edge_nodes_use_all_partitions_that_they_may() -> None:
    assert {partition_of(b"spBv1.0/g/NDATA/n%d" % node, 3) for node in range(100)} == {0, 1, 2}
    assert {partition_of(b"spBv1.0/g/NDATA/n%d" % node, 1) for node in range(100)} == {0}


@pytest.mark.parametrize(
    "topic", [b"mtic/msg/client/realtime/t/p", b"spBv1.0/STATE/host", b"spBv1.0/", b"xspBv1.0/g/NDATA/n", b"", b"\xff"]
)
def test_other_topics_are_left_alone(topic: bytes) -> None:
    assert partition_of(topic, 6) is None
