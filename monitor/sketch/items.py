"""What a prompt could be known by: keyed hashes of all of it, of it with its slots masked, and of each longer line.

These are under the corpus key, which rotation does not touch, so they are made from the bytes; where the words stand
comes from the scan that makes every other sketch (:mod:`monitor.sketch.scan`). What is hashed is normal form: words in
lower case, in order; white space, punctuation and symbols do not count. A line is read without its label
(``Question:``, ``1.``, ``### Input:``): an item is known inside a harness's frame, and by the same hash either way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.jit import njit
from monitor.siphash import ZERO, State, U8Array, U64Array, load64, sip_block, sip_end, sip_start

from .codepoints import decode, fold
from .fuse import U32Array, has
from .prints import is_template
from .scan import F_MASK, K_ID, K_NUMBER, K_QUOTE, K_URL, N_PLAIN, I64Array

WHOLE, SKELETON, LINES = 0, 1, 2
"""Places of a text's hashes; its lines follow. 0: there is none."""
MOST_LINES = 64
"""Lines looked at, from the top: what one prompt costs is bounded, and a frame's item stands near the top."""
PLACES = LINES + MOST_LINES
ROOM = 256  # bytes of a word with letters above ASCII that count
LEAST_BYTES, LEAST_WORDS = 24, 4
"""What is shorter in letters (bytes of UTF-8) or words is everybody's: no item. A text of single characters, 3 bytes
each, needs 8 of them."""
LEAST_PLAIN = 8
"""Words that masks must leave for a skeleton to be an item's."""
_LABEL_WORDS, _LABEL_BYTES = 3, 24
_HIGH, _CASE = np.uint64(0x8080808080808080), np.uint64(0x2020202020202020)
_EIGHT, _S56 = np.uint64(8), np.uint64(56)
_ONE = np.uint64(1)


class Filters(NamedTuple):
    """The known corpora as kernels read them; ``keys`` are the four words of the corpus key.

    Filter ``f`` is ``prints[at[f]:at[f + 1]]`` with ``params[f]`` (see ``Fuse.params``), and ``bits[f]`` its bit.
    """

    keys: U64Array
    prints: U32Array
    at: I64Array
    params: U64Array
    bits: U32Array


def no_filters(keys: U64Array) -> Filters:
    """No corpus at all."""
    none = np.zeros(0, np.uint32)
    return Filters(keys, none, np.zeros(1, np.int64), np.zeros((0, 4), np.uint64), none)


@njit
def fold_word(data: U8Array, start: int, end: int, room: U8Array) -> int:
    """The word in lower case in ``room``, at most all of it: how many bytes."""
    size, i = 0, start
    while i < end and size + 12 <= len(room):
        if data[i] < 0x80:
            room[size] = data[i] | 0x20  # a word has letters and digits only
            size += 1
            i += 1
            continue
        p, length = decode(data, i, end)
        lower = fold(p)
        if lower == p:
            for j in range(length):
                room[size + j] = data[i + j]
        elif length == 2:
            room[size] = 0xC0 | (lower >> 6)
            room[size + 1] = 0x80 | (lower & 0x3F)
        else:
            room[size] = 0xE0 | (lower >> 12)
            room[size + 1] = 0x80 | ((lower >> 6) & 0x3F)
            room[size + 2] = 0x80 | (lower & 0x3F)
        size += length
        i += length
    return size


@njit
def is_plain(data: U8Array, start: int, end: int) -> bool:
    """Whether a word is ASCII and eight bytes may be read at each of its steps: nearly all are."""
    if end + 8 > len(data):
        return False
    seen = ZERO
    i = start
    while end - i > 7:
        seen |= load64(data, i)
        i += 8
    seen |= load64(data, i) & rest_mask(end - i)
    return bool(seen & _HIGH == ZERO)


@njit
def rest_mask(size: int) -> np.uint64:
    """Ones in the lowest ``size`` bytes, 0 to 7."""
    return (_ONE << (_EIGHT * np.uint64(size))) - _ONE


@njit
def last_block(data: U8Array, start: int, end: int) -> np.uint64:
    """The last 0 to 7 bytes of a word in lower case, and how many: words stay apart from each other."""
    keep = rest_mask(end - start)
    return ((load64(data, start) | _CASE) & keep) | np.uint64(end - start + 1) << _S56


@njit
def absorb(state: State, data: U8Array, start: int, end: int) -> State:
    """One plain word into the hash: whole blocks, then the rest."""
    v0, v1, v2, v3 = state
    i = start
    while end - i > 7:
        v0, v1, v2, v3 = sip_block(v0, v1, v2, v3, load64(data, i) | _CASE)
        i += 8
    return sip_block(v0, v1, v2, v3, last_block(data, i, end))


@njit
def absorb_folded(state: State, room: U8Array, size: int) -> State:
    """A word that :func:`fold_word` wrote into ``room``; the same as :func:`absorb` for ASCII."""
    v0, v1, v2, v3 = state
    i = 0
    while size - i > 7:
        v0, v1, v2, v3 = sip_block(v0, v1, v2, v3, load64(room, i))
        i += 8
    last = (load64(room, i) & rest_mask(size - i)) | np.uint64(size - i + 1) << _S56
    return sip_block(v0, v1, v2, v3, last)


@njit
def is_label(data: U8Array, start: int, stop: int, end: int, words: int, line_at: int) -> bool:
    """Whether the word that ends at ``stop`` ends the label of its line: ``Question:``, ``1.``, ``b)``."""
    if words > _LABEL_WORDS or stop - line_at > _LABEL_BYTES or stop >= end:
        return False
    c = data[stop]
    if c == 0x3A or (c == 0xEF and stop + 2 < end and data[stop + 1] == 0xBC and data[stop + 2] == 0x9A):
        return True
    return bool((c == 0x2E or c == 0x29) and stop - start <= 2 and words == 1)


@njit
def text_items(
    data: U8Array, begin: int, end: int, span: I64Array, n: int, m_span: I64Array, m_flag: U8Array, m_hash: U64Array,
    m: int, plain: int, masked: bool, text_keys: U64Array, keys: U64Array, room: U8Array, out: U64Array,
) -> int:  # fmt: skip
    """The hashes of one text into ``out`` (``PLACES``): how many places are used.

    ``span`` are its ``n`` words, ``m_span`` and so on its template's ``m``; ``keys`` the four corpus key words.
    """
    v0, v1, v2, v3 = sip_start(keys[0], keys[1])  # of all of it
    u0, u1, u2, u3 = sip_start(keys[0], keys[1])  # of its line
    used, total = LINES, 0
    words = size = label = 0
    line_at, last = begin, begin
    out[WHOLE] = out[SKELETON] = ZERO
    for i in range(n):
        start, stop = begin + (span[i] >> 32), begin + (span[i] & 0xFFFFFFFF)
        broken = False
        for j in range(last, start):
            broken |= data[j] == 0x0A
        last = stop
        if broken:
            if size >= LEAST_BYTES and words >= LEAST_WORDS and used < PLACES:
                out[used] = sip_end(u0, u1, u2, u3, np.uint64(words & 0xFF))
                used += 1
            u0, u1, u2, u3 = sip_start(keys[0], keys[1])
            words = size = label = 0
            line_at = start
        length = stop - start
        if is_plain(data, start, stop):
            at = start
            while stop - at > 7:
                block = load64(data, at) | _CASE
                v0, v1, v2, v3 = sip_block(v0, v1, v2, v3, block)
                u0, u1, u2, u3 = sip_block(u0, u1, u2, u3, block)
                at += 8
            block = last_block(data, at, stop)
            v0, v1, v2, v3 = sip_block(v0, v1, v2, v3, block)
            u0, u1, u2, u3 = sip_block(u0, u1, u2, u3, block)
        else:
            length = fold_word(data, start, stop, room)
            v0, v1, v2, v3 = absorb_folded((v0, v1, v2, v3), room, length)
            u0, u1, u2, u3 = absorb_folded((u0, u1, u2, u3), room, length)
        words += 1
        size += length
        total += length
        label += 1
        if label <= _LABEL_WORDS and is_label(data, start, stop, end, label, line_at):
            u0, u1, u2, u3 = sip_start(keys[0], keys[1])
            words = size = 0
    if total >= LEAST_BYTES and n >= LEAST_WORDS:
        out[WHOLE] = sip_end(v0, v1, v2, v3, np.uint64(n & 0xFF))
    if size >= LEAST_BYTES and words >= LEAST_WORDS and used < PLACES:
        out[used] = sip_end(u0, u1, u2, u3, np.uint64(words & 0xFF))
        used += 1
    if masked and plain >= LEAST_PLAIN and m > plain:
        state = sip_start(keys[2], keys[3])
        for i in range(m):
            if m_flag[i] & F_MASK:
                kind = 1
                for k in (K_NUMBER, K_ID, K_URL, K_QUOTE):
                    kind += 1
                    if m_hash[i] == text_keys[k]:
                        break
                state = sip_block(state[0], state[1], state[2], state[3], np.uint64(kind))
            else:
                start, stop = begin + (m_span[i] >> 32), begin + (m_span[i] & 0xFFFFFFFF)
                if is_plain(data, start, stop):
                    state = absorb(state, data, start, stop)
                else:
                    state = absorb_folded(state, room, fold_word(data, start, stop, room))
        out[SKELETON] = sip_end(state[0], state[1], state[2], state[3], np.uint64(m & 0xFF))
    return used


@njit
def item_rows(
    data: U8Array, offsets: I64Array, wanted: U8Array, text_keys: U64Array,
    w_span: I64Array, w_at: I64Array, m_span: I64Array, m_flag: U8Array, m_hash: U64Array, m_at: I64Array,
    counts: I64Array, known: Filters, corpus: U32Array, item: U64Array, out: U64Array, room: U8Array,
) -> None:  # fmt: skip
    """``corpus[r]``: which filters know row ``r`` (their ``bits``), and ``item[r]`` by which hash (0: none does).

    The first line that is known names the item, else all of it, else its skeleton. ``out`` [PLACES] and ``room``
    [ROOM] are to work in.
    """
    for r in range(len(wanted)):
        if wanted[r] == 0 or w_at[r] == w_at[r + 1]:
            continue
        a, b, c, d = w_at[r], w_at[r + 1], m_at[r], m_at[r + 1]
        used = text_items(
            data, offsets[r], offsets[r + 1], w_span[a:b], b - a, m_span[c:d], m_flag[c:d], m_hash[c:d], d - c,
            counts[r, N_PLAIN], is_template(counts[r], b - a), text_keys, known.keys, room, out,
        )  # fmt: skip
        for turn in range(used):
            u = turn + LINES if turn < used - LINES else turn - (used - LINES)
            if out[u] == ZERO:
                continue
            for f in range(len(known.bits)):
                p = known.params[f]
                if has(out[u], known.prints, known.at[f], p[0], int(np.int64(p[1])), int(np.int64(p[2])), p[3]):
                    corpus[r] |= known.bits[f]
                    if item[r] == ZERO:
                        item[r] = out[u]


@njit
def unit_rows(
    data: U8Array, offsets: I64Array, wanted: U8Array, text_keys: U64Array, keys: U64Array,
    w_span: I64Array, w_at: I64Array, m_span: I64Array, m_flag: U8Array, m_hash: U64Array, m_at: I64Array,
    counts: I64Array, units: U64Array, room: U8Array,
) -> None:  # fmt: skip
    """Every hash of each wanted row in ``units`` [rows, ``PLACES``], 0 for none: what a corpus is made of.

    ``room`` [ROOM] is to work in.
    """
    for r in range(len(wanted)):
        if wanted[r] == 0 or w_at[r] == w_at[r + 1]:
            continue
        a, b, c, d = w_at[r], w_at[r + 1], m_at[r], m_at[r + 1]
        text_items(
            data, offsets[r], offsets[r + 1], w_span[a:b], b - a, m_span[c:d], m_flag[c:d], m_hash[c:d], d - c,
            counts[r, N_PLAIN], is_template(counts[r], b - a), text_keys, keys, room, units[r],
        )  # fmt: skip
