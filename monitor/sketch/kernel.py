"""A batch of texts through the kernels: exact hashes, words, fingerprints, scalars, residuals. Knows no request.

Texts come as Arrow's large strings, one run of bytes and an offset for each row, so nothing is copied. They go through
in pieces small enough that the words of a piece stay in the cache between one kernel and the next. A text that
occurred before in the batch (by its keyed hash) is copied, not computed: one system prompt may fill thousands of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.jit import njit, warmup

from .lexicon import Tables
from .prints import GRAM, gram_rows, print_rows
from .residual import NO_GRAMS, strip_rows
from .scan import CACHE, COUNTS, K_EXACT0, K_EXACT1, I64Array, scan_rows
from .shape import I32Array, U32Array, scalar_rows
from .siphash import U8Array, U64Array, sip_bytes
from .vocabulary import SHAPE_NAMES

PRINTS, SCALARS = 1, 2
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

    def __post_init__(self) -> None:
        n, left = self.n, self.n if self.with_residual else 0
        for name, array in (
            ("hashes", np.zeros((n, HASHES), np.uint64)), ("minhash", np.zeros((n, 64), np.uint8)),
            ("shape", np.zeros((n, len(SHAPE_NAMES)), np.uint8)), ("lexicon", np.zeros(n, np.uint32)),
            ("script", np.zeros(n, np.uint8)), ("residual", np.zeros((left, len(SHAPE_NAMES)), np.uint8)),
            ("residual_share", np.zeros(left, np.uint8)),
        ):  # fmt: skip
            object.__setattr__(self, name, array)


@njit
def exact_rows(
    data: U8Array, offsets: I64Array, valid: U8Array, keys: U64Array, exact: U64Array, first: I32Array
) -> None:
    """Keyed hash of each valid text, and the row in which it occurred first (-1: not valid)."""
    size = 16
    while size < 2 * len(valid):
        size *= 2
    seen = np.full(size, -1, np.int32)
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

    def grow(self, room: int) -> None:
        """Make room for so many words."""
        if room > self._room:
            self._room = room
            self.w_hash, self.m_hash = np.empty(room, np.uint64), np.empty(room, np.uint64)
            self.w_flag, self.m_flag = np.empty(room, np.uint8), np.empty(room, np.uint8)
            self.w_span, self.m_span = np.empty(room, np.int64), np.empty(room, np.int64)

    def scan(self, data: U8Array, offsets: I64Array, wanted: U8Array, keys: U64Array) -> None:
        """Take in the words of one piece."""
        self.grow(int(offsets[-1] - offsets[0]) // 2 + 4 * len(offsets))
        scan_rows(
            data, offsets, wanted, keys, self.w_hash, self.w_flag, self.w_span, self.w_at,
            self.m_hash, self.m_flag, self.m_span, self.m_at, self.counts, self.cache,
        )  # fmt: skip


def sketch(
    texts: Texts, wanted: U8Array, want: int, keys: U64Array, tables: Tables, heavy: U64Array | None
) -> Sketched:
    """Everything of the ``wanted`` rows. ``heavy``: sorted grams to subtract, may be empty; None: no residual."""
    n = len(texts)
    made = Sketched(n, with_residual=heavy is not None)
    exact, first = np.zeros(n, np.uint64), np.empty(n, np.int32)
    exact_rows(texts.data, texts.offsets, wanted, keys, exact, first)
    fresh = (first == np.arange(n, dtype=np.int32)).astype(np.uint8)
    words = Words(n)
    if heavy is None:
        _sketch_pieces(texts, fresh, want, keys, tables, words, made)
    else:
        _sketch_with_rest(texts, fresh, want, keys, tables, heavy, words, made)
    again = np.flatnonzero((first >= 0) & (fresh == 0))
    for array in (made.hashes, made.minhash, made.shape, made.lexicon, made.script, made.residual, made.residual_share):
        if len(array):
            array[again] = array[first[again]]
    made.hashes[:, EXACT] = exact
    return made


def _sketch_pieces(
    texts: Texts, fresh: U8Array, want: int, keys: U64Array, t: Tables, words: Words, made: Sketched
) -> None:
    """All pieces in one call: the interpreter's lock is taken once a batch, not four times a piece."""
    bounds = np.array(list(pieces(texts.offsets)), np.int64).reshape(-1, 2)
    if not len(bounds):
        return
    size = texts.offsets[bounds[:, 1]] - texts.offsets[bounds[:, 0]]
    words.grow(int((size // 2 + 4 * (bounds[:, 1] - bounds[:, 0] + 1)).max()))
    _piece_rows(
        bounds, texts.data, texts.offsets, fresh, keys, bool(want & PRINTS), bool(want & SCALARS),
        words.w_hash, words.w_flag, words.w_span, words.w_at, words.m_hash, words.m_flag, words.m_span, words.m_at,
        words.counts, words.cache, t.first, t.table, t.entry_at, t.entry_language, t.entry_kinds, t.languages,
        made.hashes, made.minhash, made.shape, made.lexicon, made.script,
    )  # fmt: skip


@njit
def _piece_rows(
    bounds: I64Array, data: U8Array, offsets: I64Array, fresh: U8Array, keys: U64Array, prints: bool, scalars: bool,
    w_hash: U64Array, w_flag: U8Array, w_span: I64Array, w_at: I64Array,
    m_hash: U64Array, m_flag: U8Array, m_span: I64Array, m_at: I64Array, counts: I64Array, cache: U64Array,
    t_first: Any, t_table: Any, t_entry_at: Any, t_entry_language: Any, t_entry_kinds: Any, t_languages: Any,
    hashes: U64Array, minhash: U8Array, shape: U8Array, lexicon: U32Array, script: U8Array,
) -> None:  # fmt: skip
    for piece in range(len(bounds)):
        start, stop = bounds[piece, 0], bounds[piece, 1]
        chosen, at = fresh[start:stop], offsets[start : stop + 1]
        wanted = 0
        for r in range(len(chosen)):
            wanted += chosen[r]
        if wanted == 0:
            continue
        scan_rows(data, at, chosen, keys, w_hash, w_flag, w_span, w_at, m_hash, m_flag, m_span, m_at, counts, cache)
        print_rows(
            chosen, keys, w_hash, w_flag, w_at, m_hash, m_flag, m_at, counts, prints,
            hashes[start:stop, 1:], minhash[start:stop],
        )  # fmt: skip
        if scalars:
            scalar_rows(
                data, at, chosen, keys, w_hash, w_flag, w_at, counts, t_first, t_table, t_entry_at, t_entry_language,
                t_entry_kinds, t_languages, shape[start:stop], lexicon[start:stop], script[start:stop],
            )  # fmt: skip


def _sketch_with_rest(
    texts: Texts, fresh: U8Array, want: int, keys: U64Array, tables: Tables, heavy: U64Array, words: Words,
    made: Sketched,
) -> None:  # fmt: skip
    """Piece by piece, each scanned once more without its heavy grams."""
    for start, stop in pieces(texts.offsets):
        chosen, offsets = fresh[start:stop], texts.offsets[start : stop + 1]
        if not chosen.any():
            continue
        words.scan(texts.data, offsets, chosen, keys)
        print_rows(
            chosen, keys, words.w_hash, words.w_flag, words.w_at, words.m_hash, words.m_flag, words.m_at, words.counts,
            bool(want & PRINTS), made.hashes[start:stop, 1:], made.minhash[start:stop],
        )  # fmt: skip
        if not want & SCALARS:
            continue
        shape = made.shape[start:stop]
        _scalars(
            texts.data, offsets, chosen, keys, words, tables, shape, made.lexicon[start:stop], made.script[start:stop]
        )
        if not len(heavy):
            made.residual[start:stop], made.residual_share[start:stop] = shape, 255 * chosen
            continue
        rest = np.empty(int(offsets[-1] - offsets[0]) + 8, np.uint8)
        rest_offsets = np.zeros(len(offsets), np.int64)
        strip_rows(
            texts.data, offsets, chosen, keys, heavy, words.w_hash, words.w_flag, words.w_span, words.w_at,
            words.m_hash, words.m_flag, words.m_span, words.m_at, words.counts, rest, rest_offsets,
            made.residual_share[start:stop],
        )  # fmt: skip
        words.scan(rest, rest_offsets, chosen, keys)
        unused = np.zeros(stop - start, np.uint32), np.zeros(stop - start, np.uint8)
        _scalars(rest, rest_offsets, chosen, keys, words, tables, made.residual[start:stop], *unused)


def _scalars(
    data: U8Array, offsets: I64Array, wanted: U8Array, keys: U64Array, words: Words, t: Tables,
    shape: U8Array, lexicon: U32Array, script: U8Array,
) -> None:  # fmt: skip
    scalar_rows(
        data, offsets, wanted, keys, words.w_hash, words.w_flag, words.w_at, words.counts,
        t.first, t.table, t.entry_at, t.entry_language, t.entry_kinds, t.languages, shape, lexicon, script,
    )  # fmt: skip


def grams(texts: Texts, keys: U64Array) -> tuple[npt.NDArray[np.int32], U64Array]:
    """Every 4-word gram of each valid text (of its template, slots masked), once a text: (row, hash), by row."""
    room = len(texts.data) // 2 + GRAM
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
    for heavy in (None, NO_GRAMS):
        sketch(texts, texts.valid, PRINTS | SCALARS, keys, build(keys), heavy)
