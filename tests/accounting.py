"""A log with planted duplicates and records that are no request, and whether a run accounted for every one of them."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator

from members import Group, Member, Record

MALFORMED = (
    b"{",
    b"not json",
    b"[1, 2]",
    b'{"ts": 1, "request_id": "r"}',
    b'{"ts": "yesterday", "request_id": "r", "account_id": "a", "model": "m", "input_tokens": 1, "output_tokens": 1,'
    b' "status": 200}',
)


class Spoiled:
    """Records with one in 50 sent twice and one in 100 malformed, after it; ``planted`` counts both."""

    def __init__(self, records: Iterable[Record], seed: int = 1):
        self._records = records
        self._chance = random.Random(seed)
        self.planted: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Record]:
        for key, value, t_ms in self._records:
            yield key, value, t_ms
            self.planted["requests"] += 1
            draw = self._chance.random()
            if draw < 0.02:
                self.planted["duplicates"] += 1
                yield key, value, t_ms
            elif draw < 0.03:
                self.planted["malformed"] += 1
                yield key, self._chance.choice(MALFORMED), t_ms

    @property
    def produced(self) -> int:
        """Records in all."""
        return sum(self.planted.values())


def check(group: Group, member: Member, planted: Counter[str]) -> None:
    """Raises AssertionError where a record is not accounted for."""
    c = member.counts
    rejected = sum(c["rejects"].values())
    assert c["events"] == sum(planted.values())
    assert c["decoded"] + rejected == c["events"]
    assert rejected == planted["malformed"]
    assert c["duplicates"] == planted["duplicates"], (c, planted)
    assert c["decoded"] == c["duplicates"] + c["dropped"] + c["in_rows"], "no tick is open at the end"
    assert c["in_rows"] == planted["requests"]
    letters = [json.loads(value) for _, _, value in records_of(group, f"{group.topic}.dlq")]
    at = [(letter["partition"], letter["offset"]) for letter in letters]
    assert len(at) == len(set(at)), "one letter a reject"
    bad = {(p, o) for p, o, value in records_of(group, group.topic) if value in MALFORMED}
    assert set(at) == bad
    assert Counter(letter["reason"] for letter in letters) == Counter(c["rejects"])


def records_of(group: Group, topic: str) -> Iterator[tuple[int, int, bytes]]:
    """Partition, offset and value of every record of a topic."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=group.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    try:
        parts = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
        consumer.assign(parts)
        ends = consumer.end_offsets(parts)
        while any(consumer.position(tp) < end for tp, end in ends.items()):
            for records in consumer.poll(timeout_ms=500, max_records=20_000).values():
                yield from ((r.partition, r.offset, r.value) for r in records)
    finally:
        consumer.close()
