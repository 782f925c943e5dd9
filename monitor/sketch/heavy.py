"""Heavy grams as the stream goes: four words in a row that many prompts of a partition share, frozen each epoch.

Each partition counts the keyed grams of a sample of its prompts (Misra and Gries 1982, with the purge of Anderson et
al. 2017: when the table is full, the median count is taken from all). At the end of an epoch what is heavy becomes the
table that the next epoch's prompts are stripped by (:mod:`monitor.sketch.residual`), and the counts are halved, so
that a quiet partition has a memory. Counts hang on no request, and prompts in which a gram occurred are not kept.

Everything is a function of record order within a partition, so polls and restarts change nothing. The state that a
checkpoint writes is that of the batches whose events were taken in (:meth:`HeavyStage.commit`): sketching may run
ahead of the steps that follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.arrays import pack, unpack
from monitor.jit import njit, warmup
from monitor.siphash import ZERO, U8Array, U64Array, sip_bytes

from .kernel import Texts, Words, pieces
from .prints import EDGE, GRAM, edge_gram, gram, is_template, mix
from .residual import HeavyGrams, HeavyPlan
from .scan import I64Array
from .sketcher import Sketcher

KIND, VERSION = "heavy", 1
SIZE: Final = 1 << 15
"""Places of a partition's table, three quarters of them used: 16 bytes each."""
ONE_IN: Final = 8
"""Prompts of which one is counted, by keyed hash of account and request: all of them would add a third to the step."""
MOST_TEXTS: Final = 4096
"""Prompts counted in an epoch: then a gram in 1 % of them is known to within a sixth."""
SHARE: Final = 64
"""A gram is heavy if one in so many of the counted prompts has it: 1.6 %."""
LEAST: Final = 5
"""And at least so many: the pilot's figure for a window."""
ENOUGH: Final = 32
"""Prompts counted before anything can be said; until then what was frozen last stays."""
ACCOUNTS_TO_AGREE, RECORDS_TO_AGREE, CALM = 3, 8, 8
"""So many accounts, or records in a row, end an epoch; so many records within it forget earlier votes: one request
dated 2099 moves nothing."""
FAR: Final = 24
"""Epochs behind which a record says that the clock is wrong, not that it is late."""

I32Array = npt.NDArray[np.int32]
CLOCK = 6  # epoch, run, calm, votes, and room


@dataclass
class GramCounter:
    """One partition's counts and clock. Never changed once it was handed out: a batch works on a copy."""

    keys: U64Array = field(default_factory=lambda: np.zeros(SIZE, np.uint64))
    counts: I32Array = field(default_factory=lambda: np.zeros(SIZE, np.int32))
    numbers: I64Array = field(default_factory=lambda: np.zeros(3, np.int64))
    """Places used, what purges took from each count, prompts counted."""
    clock: I64Array = field(default_factory=lambda: np.array([-1, 0, 0, 0, 0, 0], np.int64))
    votes: U64Array = field(default_factory=lambda: np.zeros(ACCOUNTS_TO_AGREE, np.uint64))
    vote_epochs: I64Array = field(default_factory=lambda: np.zeros(ACCOUNTS_TO_AGREE, np.int64))
    epoch: int = -1
    key_id: str = ""
    table: HeavyGrams | None = None

    def copy(self) -> GramCounter:
        """One that may be changed."""
        arrays = {n: getattr(self, n).copy() for n in ("keys", "counts", "numbers", "clock", "votes", "vote_epochs")}
        return replace(self, **arrays)

    def enter(self, epoch: int, key_id: str) -> None:
        """A new epoch begins: freeze what was counted and forget half of it; where it is little, count on."""
        enough = self.numbers[2] >= ENOUGH
        if enough:
            self.table = HeavyGrams(self.key_id, self.heavy())
        if key_id != self.key_id:
            self.keys[:], self.counts[:], self.numbers[:] = 0, 0, 0
            self.key_id = key_id
        elif enough:
            halve(self.keys, self.counts, self.numbers)
        self.epoch = epoch

    def heavy(self) -> U64Array:
        """The grams that are heavy now, sorted. A count is too small by at most what purges took."""
        least = max(LEAST, int(self.numbers[2]) // SHARE)
        known, lost = self.counts, int(self.numbers[1])
        return np.sort(self.keys[(known + lost >= least) & (known >= max(LEAST, least // 4))])


class HeavyStage:
    """The counters of all partitions. :meth:`plan` looks ahead; what it came to goes with the batch (:meth:`planned`)
    and is what a checkpoint writes once :meth:`commit` says that the batch was taken in. A batch that never is, as an
    empty one, leaves nothing behind."""

    def __init__(self, sketcher: Sketcher, epoch_ms: int):
        self.sketcher = sketcher
        self.epoch_ms = epoch_ms
        self._next: dict[int, GramCounter] = {}
        self._done: dict[int, GramCounter] = {}
        self._planned: dict[int, GramCounter] = {}

    def plan(
        self, partition: npt.NDArray[np.int32], t_ms: I64Array, account: Texts, request: Texts, prompt: Texts | None,
        slots: I64Array,
    ) -> HeavyPlan:  # fmt: skip
        """Count a batch, rows in record order, and say by which table each row is stripped."""
        tables: list[HeavyGrams] = []
        row_table = np.full(len(t_ms), -1, np.int32)
        changed: dict[int, GramCounter] = {}
        hashes = np.zeros((2, len(t_ms)), np.uint64)
        hash_rows(account.data, account.offsets, request.data, request.offsets, self._words(), hashes)
        sampled = hashes[1] % np.uint64(ONE_IN) == 0
        for number in np.unique(partition).tolist():
            rows = np.flatnonzero(partition == number)
            counter = changed[number] = self._next.get(number, GramCounter()).copy()
            epochs = np.zeros(len(rows), np.int64)
            epochs_of(
                t_ms[rows], hashes[0][rows], self.epoch_ms, counter.clock, counter.votes, counter.vote_epochs, epochs
            )
            cuts = [0, *(np.flatnonzero(np.diff(epochs)) + 1).tolist(), len(rows)]
            for begin, end in pairwise(cuts):
                run = rows[begin:end]
                if not len(run):
                    continue
                if epochs[begin] != counter.epoch:
                    counter.enter(int(epochs[begin]), self.sketcher.keyring.keys[int(slots[run[0]])].id)
                slot = self.sketcher.keyring.slot(counter.key_id)
                if counter.table is not None and slot is not None:
                    at = self.sketcher.keyring.slot(counter.table.key_id)
                    row_table[run[slots[run] == at]] = len(tables)
                    tables.append(counter.table)
                if prompt is not None and slot is not None:
                    wanted = np.zeros(len(t_ms), np.uint8)
                    wanted[run] = sampled[run] & (slots[run] == slot)
                    self._count(prompt, wanted & prompt.valid, slot, counter)
        self._next.update(changed)
        self._planned = changed
        return HeavyPlan(tuple(tables), row_table)

    def planned(self) -> dict[int, GramCounter]:
        """The counters of the last plan, by partition; asked for again, none."""
        planned, self._planned = self._planned, {}
        return planned

    def commit(self, planned: Mapping[int, GramCounter]) -> None:
        """The events of this plan were taken in; plans in their order."""
        self._done.update(planned)

    def _count(self, prompt: Texts, wanted: U8Array, slot: int, counter: GramCounter) -> None:
        chosen = np.flatnonzero(wanted)
        if not len(chosen) or counter.numbers[2] >= MOST_TEXTS:
            return
        low, high = int(chosen[0]), int(chosen[-1]) + 1
        offsets, wanted = prompt.offsets[low : high + 1], wanted[low:high]
        keys, words = self.sketcher.text_keys(slot), Words(high - low)
        stamps = np.full(SIZE, -1, np.int64)
        for start, stop in pieces(offsets):
            if wanted[start:stop].any():
                words.scan(prompt.data, offsets[start : stop + 1], wanted[start:stop], keys)
                count_rows(
                    wanted[start:stop], keys, words.w_hash, words.w_at, words.m_hash, words.m_at, words.counts,
                    counter.keys, counter.counts, stamps, counter.numbers, MOST_TEXTS,
                )  # fmt: skip

    def _words(self) -> U64Array:
        return self.sketcher.keyring.keys[0].words("heavy sample", 4)

    @property
    def nbytes(self) -> int:
        """Bytes of the counters."""
        return sum(c.keys.nbytes + c.counts.nbytes for c in self._done.values())

    def dump(self, partition: int) -> bytes:
        """The partition's counters as of the last batch that was taken in."""
        c = self._done.get(partition) or GramCounter()
        used = np.flatnonzero(c.counts)
        used = used[np.argsort(c.keys[used])]
        arrays: Mapping[str, npt.NDArray[Any]] = {
            "keys": c.keys[used], "counts": c.counts[used], "numbers": c.numbers, "clock": c.clock, "votes": c.votes,
            "vote_epochs": c.vote_epochs, "table": np.zeros(0, np.uint64) if c.table is None else c.table.hashes,
        }  # fmt: skip
        values = {"epoch": c.epoch, "key_id": c.key_id, "table": None if c.table is None else c.table.key_id}
        return pack(KIND, VERSION, arrays, values)

    def load(self, partition: int, blob: bytes) -> None:
        """Take a dump over."""
        arrays, values = unpack(KIND, VERSION, blob)
        table = None if values["table"] is None else HeavyGrams(str(values["table"]), arrays["table"])
        made = GramCounter(
            numbers=arrays["numbers"], clock=arrays["clock"], votes=arrays["votes"], vote_epochs=arrays["vote_epochs"],
            epoch=int(values["epoch"]), key_id=str(values["key_id"]), table=table,
        )  # fmt: skip
        put_all(arrays["keys"], arrays["counts"], made.keys, made.counts)
        self._next[partition] = self._done[partition] = made

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        for held in (self._next, self._done, self._planned):
            held.pop(partition, None)


@njit
def hash_rows(
    account: U8Array, account_at: I64Array, request: U8Array, request_at: I64Array, keys: U64Array, out: U64Array
) -> None:
    """``out[0]`` of each row's account, ``out[1]`` of account and request together."""
    for r in range(out.shape[1]):
        out[0, r] = sip_bytes(keys[0], keys[1], account, account_at[r], account_at[r + 1])
        out[1, r] = mix(out[0, r] ^ sip_bytes(keys[2], keys[3], request, request_at[r], request_at[r + 1]))


@njit
def epochs_of(
    t_ms: I64Array, account: U64Array, epoch_ms: int, clock: I64Array, votes: U64Array, vote_epochs: I64Array,
    out: I64Array,
) -> None:  # fmt: skip
    """The epoch that each record falls in: the partition's, until enough records agree on another."""
    for r in range(len(t_ms)):
        e = t_ms[r] // epoch_ms
        if clock[0] < 0:
            clock[0] = e
        elif e > clock[0] or e < clock[0] - FAR:
            clock[1] += 1
            clock[2] = 0
            known = False
            for k in range(min(clock[3], ACCOUNTS_TO_AGREE)):
                known |= votes[k] == account[r]
            if not known:
                place = clock[3] % ACCOUNTS_TO_AGREE
                votes[place], vote_epochs[place] = account[r], e
                clock[3] += 1
            if clock[3] >= ACCOUNTS_TO_AGREE or clock[1] >= RECORDS_TO_AGREE:
                agreed = e
                for k in range(min(clock[3], ACCOUNTS_TO_AGREE)):
                    agreed = min(agreed, vote_epochs[k])
                clock[0] = agreed
                clock[1] = clock[2] = clock[3] = 0
        else:
            clock[1] = 0
            clock[2] += 1
            if clock[2] >= CALM:
                clock[3] = 0
        out[r] = clock[0]


@njit
def place_of(key: np.uint64, keys: U64Array) -> int:
    """Where ``key`` stands or would stand."""
    at = int(np.int64(key & np.uint64(len(keys) - 1)))
    while keys[at] != ZERO and keys[at] != key:
        at = (at + 1) & (len(keys) - 1)
    return at


@njit
def put_all(keys: U64Array, counts: I32Array, to_keys: U64Array, to_counts: I32Array) -> None:
    """Write different keys into an empty table."""
    for i in range(len(keys)):
        at = place_of(keys[i], to_keys)
        to_keys[at], to_counts[at] = keys[i], counts[i]


@njit(makes_arrays=True)
def keep_positive(keys: U64Array, counts: I32Array) -> int:
    """Make the table anew of the entries whose count is over zero: how many there are."""
    old_keys, old_counts = keys.copy(), counts.copy()
    keys[:] = ZERO
    counts[:] = 0
    kept = 0
    for i in range(len(old_keys)):
        if old_counts[i] > 0:
            at = place_of(old_keys[i], keys)
            keys[at], counts[at] = old_keys[i], old_counts[i]
            kept += 1
    return kept


@njit
def halve(keys: U64Array, counts: I32Array, numbers: I64Array) -> None:
    """Forget half of what was counted."""
    for i in range(len(counts)):
        counts[i] >>= 1
    numbers[0] = keep_positive(keys, counts)
    numbers[1] >>= 1
    numbers[2] >>= 1


@njit
def median_of_positive(counts: I32Array) -> int:
    """The median of the counts over zero, rounded down, by bisection: to compile numpy's takes two seconds."""
    positive, top = 0, 0
    for i in range(len(counts)):
        positive += counts[i] > 0
        top = max(top, counts[i])
    middles = 0
    for rank in ((positive - 1) // 2, positive // 2):
        low, high = 1, top
        while low < high:
            middle = (low + high) // 2
            below = 0
            for i in range(len(counts)):
                below += 0 < counts[i] <= middle
            if below > rank:
                high = middle
            else:
                low = middle + 1
        middles += low
    return middles // 2


@njit
def purge(keys: U64Array, counts: I32Array, numbers: I64Array) -> None:
    """Take the median count from every count, so that half of the places come free."""
    median = median_of_positive(counts)
    for i in range(len(counts)):
        counts[i] = max(counts[i] - median, 0)
    numbers[1] += median
    numbers[0] = keep_positive(keys, counts)


@njit
def count_rows(
    wanted: U8Array, text_keys: U64Array, w_hash: U64Array, w_at: I64Array, m_hash: U64Array, m_at: I64Array,
    counted: I64Array, keys: U64Array, counts: I32Array, stamps: I64Array, numbers: I64Array, most: int,
) -> None:  # fmt: skip
    """Count each gram of each wanted row once a row. ``stamps``: by which prompt of this call a place was last met."""
    for r in range(len(wanted)):
        if wanted[r] == 0 or numbers[2] >= most:
            continue
        masked = is_template(counted[r], w_at[r + 1] - w_at[r])
        words = m_hash[m_at[r] : m_at[r + 1]] if masked else w_hash[w_at[r] : w_at[r + 1]]
        numbers[2] += 1
        text = numbers[2]
        whole = max(len(words) - GRAM + 1, 0)
        edges = 2 if len(words) >= EDGE else 0  # a short frame is known by where it stands
        for i in range(whole + edges):
            h = gram(words, i, GRAM, text_keys) if i < whole else edge_gram(words, len(words), text_keys, i > whole)
            if h == ZERO:
                continue
            at = place_of(h, keys)
            if keys[at] == ZERO:
                if numbers[0] * 4 >= len(keys) * 3:
                    purge(keys, counts, numbers)
                    stamps[:] = -1  # places moved: a gram that this prompt repeats may count twice, once a purge
                    at = place_of(h, keys)
                if keys[at] == ZERO:
                    keys[at] = h
                    numbers[0] += 1
            elif stamps[at] == text:
                continue
            counts[at] += 1
            stamps[at] = text


@warmup
def warm_heavy() -> None:
    """Compile the stage's kernels on a few short prompts."""
    from .keyring import Keyring

    stage = HeavyStage(Sketcher(Keyring.from_seed(1)), 1000)
    data = np.frombuffer(bytearray(b"one two three four five six"), np.uint8)
    texts = Texts(data, np.array([0, len(data)] * 1, np.int64), np.ones(1, np.uint8))
    one = np.zeros(1, np.int64)
    for t in (0, 5000, 9000):
        stage.plan(np.zeros(1, np.int32), one + t, texts, texts, texts, one)
        stage.commit(stage.planned())
    counter = GramCounter()
    stage._count(texts, np.ones(1, np.uint8), 0, counter)
    counter.counts[:3] = 1
    counter.keys[:3] = np.arange(1, 4, dtype=np.uint64)
    purge(counter.keys, counter.counts, counter.numbers)
    halve(counter.keys, counter.counts, counter.numbers)
    stage.load(0, stage.dump(0))
