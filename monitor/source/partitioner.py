"""Which partition a key belongs to: the same answer as Kafka's default partitioner.

Kafka's Java clients hash the key with 32-bit murmur2 (seed 0x9747b28c), clear the sign bit and take the
remainder; every client that promises compatibility does the same. Files get their virtual partitions so,
and a topic that is not keyed by account is recognised so. Knows bytes and numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monitor.records import Int32Array

_M = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """32-bit murmur2 of ``key`` with Kafka's seed, 0 to 2**32 - 1 (A. Appleby, MurmurHash2)."""
    length = len(key)
    h = _SEED ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = (int.from_bytes(key[i : i + 4], "little") * _M) & _MASK
        k = ((k ^ (k >> 24)) * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    if length > whole:
        h = ((h ^ int.from_bytes(key[whole:], "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """Partition 0 to ``partitions - 1`` that Kafka's default partitioner gives a non-null key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


class Partitioner:
    """Partition by the UTF-8 bytes of an id, remembered: a lookup is 60 ns, a hash in Python 2 us.

    The memory is bounded: it starts again after ``remember`` different ids (about 130 MB at a million).
    """

    def __init__(self, partitions: int, remember: int = 1_000_000):
        if partitions < 1:
            raise ValueError(f"partitions must be at least 1, not {partitions}")
        self.partitions = partitions
        self.remember = remember
        self._known: dict[str, int] = {}

    def __call__(self, account_id: str) -> int:
        """Partition of this id."""
        known = self._known.get(account_id)
        if known is None:
            # surrogatepass: an id with a lone surrogate is refused by decode, but must not crash here
            known = partition_of(account_id.encode("utf-8", "surrogatepass"), self.partitions)
            if len(self._known) >= self.remember:
                self._known.clear()
            self._known[account_id] = known
        return known

    def all(self, account_ids: Sequence[str | None]) -> list[int]:
        """Partition of each id; 0 where there is none."""
        known = self._known.get
        return [0 if a is None else p if (p := known(a)) is not None else self(a) for a in account_ids]


def keyed_by_account(
    partition: Int32Array, account_ids: Sequence[str | None], partitions_total: int, sample: int = 200
) -> bool | None:
    """Whether records lie where their account id would put them; None while there is too little to say.

    Looks at up to ``sample`` different accounts. Not keyed by account means that only one in
    ``partitions_total`` lies right by chance; a few strays (a repartition in progress, another client's hash
    for odd keys) are allowed, so the line is at one half. With one partition every topic is keyed.
    """
    if partitions_total <= 1:
        return True
    place = Partitioner(partitions_total)
    seen: dict[str, bool] = {}
    for p, account in zip(np.asarray(partition).tolist(), account_ids, strict=True):
        if account is not None and account not in seen:
            seen[account] = place(account) == p
            if len(seen) >= sample:
                break
    if len(seen) < min(sample, 20):
        return None
    return sum(seen.values()) * 2 >= len(seen)


def not_keyed_remedy(topic: str, group: str) -> str:
    """What to do about a topic that is not keyed by account."""
    keyed = f"{topic}.by-account"
    return (
        f"topic {topic} is not keyed by account_id: one account's requests are spread over several partitions, so no"
        f" replica would see all of them. Write a keyed copy with 'monitor rekey --from {topic} --to {keyed}'"
        f" (--sketch strips the text on the way) and let group {group} read that one, or make the producers"
        " use account_id as the key with the default (murmur2) partitioner."
    )
