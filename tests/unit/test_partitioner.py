"""Virtual partitions are Kafka's: equal to kafka-python's own partitioner, key by key."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.cluster import ClusterMetadata
from kafka.partitioner.default import DefaultPartitioner
from kafka.partitioner.default import murmur2 as library_murmur2

from monitor.source.partitioner import Partitioner, keyed_by_account, murmur2, not_keyed_remedy, partition_of


@given(st.binary(max_size=300))
def test_murmur2_equals_the_client_librarys(key):
    assert murmur2(key) == library_murmur2(key) & 0xFFFFFFFF


class _Topic(ClusterMetadata):
    """What the library's partitioner asks of a cluster's metadata."""

    def __init__(self, partitions):
        self.everything = set(range(partitions))

    def topics(self, *_):
        return {"t"}

    def partitions_for_topic(self, _):
        return self.everything

    available_partitions_for_topic = partitions_for_topic


@given(st.binary(min_size=1, max_size=64), st.integers(1, 200))
def test_partition_equals_the_default_partitioners(key, partitions):
    theirs = DefaultPartitioner().partition("t", key, key, b"", b"", _Topic(partitions))
    assert partition_of(key, partitions) == theirs


@pytest.mark.parametrize(
    ("key", "value"),  # from the test of Kafka's own org.apache.kafka.common.utils.Utils.murmur2
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_murmur2_equals_kafkas_published_values(key, value):
    assert murmur2(key) == value & 0xFFFFFFFF


def test_partitioner_remembers_a_bounded_number_and_stays_right():
    place = Partitioner(7, remember=10)
    ids = [f"account-{i}" for i in range(100)]
    assert [place(i) for i in ids] == [partition_of(i.encode(), 7) for i in ids]
    assert len(place._known) <= 10
    assert Partitioner(3)("\ud800") in range(3)
    with pytest.raises(ValueError, match="at least 1"):
        Partitioner(0)


def test_a_topic_keyed_by_something_else_is_recognised():
    ids = [f"account-{i % 500}" for i in range(2000)]
    place = Partitioner(8)
    keyed = np.array([place(i) for i in ids], np.int32)
    by_request = np.array([partition_of(f"request-{n}".encode(), 8) for n in range(2000)], np.int32)
    assert keyed_by_account(keyed, ids, 8) is True
    assert keyed_by_account(by_request, ids, 8) is False
    assert keyed_by_account(keyed[:5], ids[:5], 8) is None, "five accounts say nothing"
    assert keyed_by_account(by_request, [None] * 2000, 8) is None
    assert keyed_by_account(np.zeros(2000, np.int32), ids, 1) is True
    remedy = not_keyed_remedy("requests", "monitor")
    assert "monitor rekey" in remedy
    assert "requests" in remedy
