"""A batch of texts through the kernels: exact hashes, words, fingerprints, scalars, residuals. Knows no request.

Texts come as Arrow's large strings, one run of bytes and an offset for each row, so nothing is copied. They go through
in pieces small enough that the words of a piece stay in the cache between one kernel and the next. A text that
occurred before in the batch (by its keyed hash) is copied, not computed: one system prompt may fill thousands of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from monitor.jit import njit, warmup
from monitor.siphash import U8Array, U64Array, sip_bytes

from .items import PLACES, ROOM, Filters, item_rows, no_filters
from .lexicon import Tables
from .prints import BINS, GRAM, PLANES, gram_rows, print_rows
from .residual import NO_GRAMS, sieve_of, strip_rows
from .scan import CACHE, COUNTS, K_EXACT0, K_EXACT1, I64Array, scan_rows
from .shape import SET_SIZE, I32Array, U32Array, scalar_rows
from .vocabulary import SHAPE_NAMES

PRINTS, SCALARS, CORPUS = 1, 2, 4
"""What is asked for, as bits; the exact and the skeleton hash are always made."""
EXACT, SKELETON, PREFIX, TAIL, SIM, HASHES = range(6)
"""Columns of ``Sketched.hashes``."""
PIECE_BYTES, PIECE_ROWS = 1 << 17, 1024
"""A piece ends before this many bytes (unless it is one text); 128 KiB make about 0.5 MB of words, a second level."""


@dataclass(frozen=True)
class Texts:
    """Large strings as arrays: row ``i`` is ``data[offsets[i]:offsets[i + 1]]``, null where ``valid[i]`` is 0.

    ``data`` is a C-contiguous uint8 array *marked writable* (it is never written): numba compiles a second copy of
    every kernel for a read-only one. ``owner`` keeps the memory alive where it is somebody else's.
    """

    data: U8Array
    offsets: I64Array
    valid: U8Array
    owner: object = None

    def __len__(self) -> int:
        return len(self.valid)


@dataclass(frozen=True)
class Sketched:
    """What was made of ``n`` texts: zeros in the rows that were not wanted, and where a text has no word."""

    n: int
    with_residual: bool = False
    hashes: U64Array = field(init=False)
    minhash: U8Array = field(init=False)
    shape: U8Array = field(init=False)
    lexicon: U32Array = field(init=False)
    script: U8Array = field(init=False)
    residual: U8Array = field(init=False)
    residual_share: U8Array = field(init=False)
    corpus: U32Array = field(init=False)
    corpus_item: U64Array = field(init=False)

    def __post_init__(self) -> None:
        n, left = self.n, self.n if self.with_residual else 0
        for name, array in (
            ("hashes", np.zeros((n, HASHES), np.uint64)), ("minhash", np.zeros((n, 64), np.uint8)),
            ("shape", np.zeros((n, len(SHAPE_NAMES)), np.uint8)), ("lexicon", np.zeros(n, np.uint32)),
            ("script", np.zeros(n, np.uint8)), ("residual", np.zeros((left, len(SHAPE_NAMES)), np.uint8)),
            ("residual_share", np.zeros(left, np.uint8)), ("corpus", np.zeros(n, np.uint32)),
            ("corpus_item", np.zeros(n, np.uint64)),
        ):  # fmt: skip
            object.__setattr__(self, name, array)


@njit
def exact_rows(
    data: U8Array, offsets: I64Array, valid: U8Array, keys: U64Array, exact: U64Array, first: I32Array, seen: I32Array
) -> None:
    """Keyed hash of each valid text, and the row in which it occurred first (-1: not valid).

    ``seen``: -1, a power of two of them and at least twice as many as texts.
    """
    size = len(seen)
    for r in range(len(valid)):
        first[r] = -1
        if valid[r] == 0:
            continue
        h = sip_bytes(keys[K_EXACT0], keys[K_EXACT1], data, offsets[r], offsets[r + 1])
        place = np.int64(h & np.uint64(size - 1))
        while seen[place] >= 0 and exact[seen[place]] != h:
            place = (place + 1) & (size - 1)
        if seen[place] < 0:
            seen[place] = r
        exact[r] = h
        first[r] = seen[place]


def pieces(offsets: I64Array) -> Iterator[tuple[int, int]]:
    """Row ranges of at most ``PIECE_ROWS`` rows and, unless one row is longer, ``PIECE_BYTES`` bytes."""
    start, rows = 0, len(offsets) - 1
    while start < rows:
        stop = int(np.searchsorted(offsets, offsets[start] + PIECE_BYTES, side="right")) - 1
        stop = min(max(stop, start + 1), start + PIECE_ROWS, rows)
        yield start, stop
        start = stop


class Words:
    """Room for the words of one piece (see ``scan.scan_rows``), used again for the next."""

    def __init__(self, rows: int) -> None:
        rows = min(rows, PIECE_ROWS)
        self._room = 0
        self.w_at = np.zeros(rows + 1, np.int64)
        self.m_at = np.zeros(rows + 1, np.int64)
        self.counts = np.zeros((rows, COUNTS), np.int64)
        self.cache = np.zeros(CACHE, np.uint64)
        self.lowest, self.planes = np.empty(BINS, np.uint64), np.empty(PLANES, np.uint64)

    def _grow(self, room: int) -> None:
        if room > self._room:
            self._room = room
            self.w_hash, self.m_hash = np.empty(room, np.uint64), np.empty(room, np.uint64)
            self.w_flag, self.m_flag = np.empty(room, np.uint8), np.empty(room, np.uint8)
            self.w_span, self.m_span = np.empty(room, np.int64), np.empty(room, np.int64)
            self.covered = np.empty(room + 1, np.uint8)

    def scan(self, data: U8Array, offsets: I64Array, wanted: U8Array, keys: U64Array) -> None:
        """Take in the words of one piece."""
        self._grow(int(offsets[-1] - offsets[0]) // 2 + 4 * len(offsets))
        scan_rows(
            data, offsets, wanted, keys, self.w_hash, self.w_flag, self.w_span, self.w_at,
            self.m_hash, self.m_flag, self.m_span, self.m_at, self.counts, self.cache,
        )  # fmt: skip


def texts_of(strings: Sequence[str | None]) -> Texts | None:
    """Strings as one run of bytes; None where there is none at all."""
    if all(s is None for s in strings):
        return None
    encoded = [b"" if s is None else s.encode("utf-8", "replace") for s in strings]
    return Texts(
        np.frombuffer(bytearray().join(encoded), np.uint8),
        np.cumsum([0, *map(len, encoded)], dtype=np.int64),
        np.array([s is not None for s in strings], np.uint8),
    )


def sketch(
    texts: Texts, wanted: U8Array, want: int, keys: U64Array, tables: Tables, heavy: U64Array | None,
    known: Filters | None = None,
) -> Sketched:  # fmt: skip
    """Everything of the ``wanted`` rows. ``heavy``: sorted grams to subtract, may be empty; None: no residual.

    ``known``: corpora to look each text up in; None: none.
    """
    n = len(texts)
    made = Sketched(n, with_residual=heavy is not None)
    exact, first = np.zeros(n, np.uint64), np.empty(n, np.int32)
    seen = np.full(max(16, 1 << (2 * n - 1).bit_length()), -1, np.int32)
    exact_rows(texts.data, texts.offsets, wanted, keys, exact, first, seen)
    fresh = (first == np.arange(n, dtype=np.int32)).astype(np.uint8)
    words = Words(n)
    sieve = sieve_of(NO_GRAMS if heavy is None else heavy)
    for start, stop in pieces(texts.offsets):
        chosen, offsets = fresh[start:stop], texts.offsets[start : stop + 1]
        if not chosen.any():
            continue
        words.scan(texts.data, offsets, chosen, keys)
        print_rows(
            chosen, keys, words.w_hash, words.w_flag, words.w_at, words.m_hash, words.m_flag, words.m_at, words.counts,
            bool(want & PRINTS), made.hashes[start:stop], made.minhash[start:stop], words.lowest, words.planes,
        )  # fmt: skip
        if known is not None:
            item_rows(
                texts.data, offsets, chosen, keys, words.w_span, words.w_at, words.m_span, words.m_flag, words.m_hash,
                words.m_at, words.counts, known, made.corpus[start:stop], made.corpus_item[start:stop],
                np.zeros(PLACES, np.uint64), np.empty(ROOM, np.uint8),
            )  # fmt: skip
        if not want & SCALARS:
            continue
        shape = made.shape[start:stop]
        _scalars(
            texts.data, offsets, chosen, keys, words, tables, shape, made.lexicon[start:stop], made.script[start:stop]
        )
        if heavy is None:
            continue
        if not len(heavy):
            made.residual[start:stop], made.residual_share[start:stop] = shape, 255 * chosen
            continue
        rest = np.empty(int(offsets[-1] - offsets[0]) + 8, np.uint8)
        rest_offsets = np.zeros(len(offsets), np.int64)
        touched = np.zeros(stop - start, np.uint8)
        strip_rows(
            texts.data, offsets, chosen, keys, heavy, sieve, words.w_hash, words.w_flag, words.w_span, words.w_at,
            words.m_hash, words.m_flag, words.m_span, words.m_at, words.counts, rest, rest_offsets,
            made.residual_share[start:stop], touched, words.covered,
        )  # fmt: skip
        residual = made.residual[start:stop]
        residual[touched == 0] = shape[touched == 0]  # most texts have no heavy gram: nothing is measured again
        if touched.any():
            words.scan(rest, rest_offsets, touched, keys)
            unused = np.zeros(stop - start, np.uint32), np.zeros(stop - start, np.uint8)
            _scalars(rest, rest_offsets, touched, keys, words, tables, residual, *unused)
    again = np.flatnonzero((first >= 0) & (fresh == 0))
    for array in (
        made.hashes, made.minhash, made.shape, made.lexicon, made.script, made.residual, made.residual_share,
        made.corpus, made.corpus_item,
    ):  # fmt: skip
        if len(array):
            array[again] = array[first[again]]
    made.hashes[:, EXACT] = exact
    return made


def _scalars(
    data: U8Array, offsets: I64Array, wanted: U8Array, keys: U64Array, words: Words, t: Tables,
    shape: U8Array, lexicon: U32Array, script: U8Array,
) -> None:  # fmt: skip
    scalar_rows(
        data, offsets, wanted, keys, words.w_hash, words.w_flag, words.w_at, words.counts,
        t.begins, t.table, t.entry_at, t.entry_language, t.entry_kinds,
        np.empty(SET_SIZE, np.uint64), np.full(SET_SIZE, -1, np.int64),
        np.empty(t.languages, np.int64), np.empty(t.languages, np.int64), np.empty(8, np.uint8), shape, lexicon, script,
    )  # fmt: skip


def grams(texts: Texts, keys: U64Array) -> tuple[npt.NDArray[np.int32], U64Array]:
    """Every 4-word gram of each valid text and its edges (slots masked), once a text: (row, hash), by row."""
    room = len(texts.data) // 2 + 4 * len(texts) + GRAM
    hashes, rows, found = np.empty(room, np.uint64), np.empty(room, np.int32), 0
    words = Words(len(texts))
    for start, stop in pieces(texts.offsets):
        chosen = texts.valid[start:stop]
        words.scan(texts.data, texts.offsets[start : stop + 1], chosen, keys)
        found = gram_rows(
            chosen, keys, words.w_hash, words.w_at, words.m_hash, words.m_at, words.counts, start, hashes, rows, found
        )
    order = np.lexsort((hashes[:found], rows[:found]))
    rows, hashes = rows[:found][order], hashes[:found][order]
    new = np.ones(found, bool)
    new[1:] = (rows[1:] != rows[:-1]) | (hashes[1:] != hashes[:-1])
    return rows[new], hashes[new]


@warmup
def warm_kernels() -> None:
    """Compile what a batch needs, on one short text."""
    from .lexicon import build

    keys = np.arange(1, 28, 2, dtype=np.uint64)
    data = np.frombuffer(bytearray(b"one two three four five"), np.uint8)
    texts = Texts(data, np.array([0, len(data)], np.int64), np.ones(1, np.uint8))
    gram = np.ones(1, np.uint64)
    sketch(texts, texts.valid, PRINTS | SCALARS, keys, build(keys), gram, no_filters(keys[:4].copy()))
