"""One pass over the bytes of a text: its words by keyed hash, the same with slots masked, and what is counted.

Words are runs of letters and digits; letters fold to lower case, a run of digits to one ``0``. In scripts without
spaces each character is a word of its own. Two streams come out:

* ``W``: every word, also inside quotes: word lists and the lexicon read this one, so quoting a phrase hides nothing.
* ``M``: the template. What fills a template's slots is one mask a slot: quoted strings, URLs, numbers (with what joins
  them: dates, prices, lists of numbers), ids (eight or more letters and digits, or 32 letters).

Knows nothing of prompts or requests, of shape scalars or fingerprints.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.jit import njit
from monitor.siphash import ZERO, U8Array, U64Array, load64, sip_block, sip_end, sip_start

from .codepoints import (
    A_DIGIT,
    A_LOWER,
    A_NEWLINE,
    A_PUNCT,
    A_SPACE,
    A_UPPER,
    ALONE,
    ASCII_CLASS,
    DIGIT,
    HAN,
    JOIN,
    KANA,
    PUNCT,
    SPACE,
    SYMBOL,
    classify,
    closer_of,
    decode,
    ends_sentence,
    fold,
)  # fmt: skip
from .slots import QUOTE_MAX, all_hex, find_close, is_list_item, is_option, url_end

I64Array = npt.NDArray[np.int64]

# Flags of a word.
F_ALONE, F_MASK, F_QUOTE = 1, 2, 4
# Derived key words, in this order in the `keys` argument of every kernel.
K_WORD0, K_WORD1, K_EXACT0, K_EXACT1, K_TEXT0, K_TEXT1, K_MUL0, K_MUL1, K_MUL2, K_CHAIN = range(10)
K_NUMBER, K_ID, K_URL, K_QUOTE, KEY_WORDS = 10, 11, 12, 13, 14
# What is counted.
(
    CHARS, UPPER, LETTERS, DIGITS, SPACES, PUNCTS, CODES, NEWLINES, NON_ASCII, QUOTED, WORDS, WORD_CHARS, SENTENCES,
    LIST_LINES, URLS, QUESTIONS, EXCLAMATIONS, FENCES, STARTS_UPPER, ENDS_STOPPED, OPTIONS, N_PLAIN,
) = range(22)  # fmt: skip
SCRIPT0 = 32
COUNTS = 48

_LONG_WORD, _LONG_ID = 32, 8
_S7, _S8, _S56 = np.uint64(7), np.uint64(8), np.uint64(56)
_ZERO_DIGIT = np.uint64(0x30)
# Eight bytes at once: each constant is one byte, eight times.
_ONES, _HIGH, _LOW7, _CASE = (np.uint64(b * 0x0101010101010101) for b in (0x01, 0x80, 0x7F, 0x20))
_FROM_A, _AFTER_Z = (np.uint64((0x80 - b) * 0x0101010101010101) for b in (0x61, 0x7B))
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE = np.uint64(1)
_SPREAD, _S51 = np.uint64(0x9E3779B97F4A7C15), np.uint64(51)
CACHE = 8192  # words of the cache: 4,096 pairs, 64 KB, stays in the second level


def _ascii_kinds() -> U8Array:
    table = np.full(128, PUNCT, np.uint8)
    table[(ASCII_CLASS == A_LOWER) | (ASCII_CLASS == A_UPPER)] = JOIN
    table[ASCII_CLASS == A_DIGIT] = DIGIT
    table[(ASCII_CLASS == A_SPACE) | (ASCII_CLASS == A_NEWLINE)] = SPACE
    table[ASCII_CLASS > A_PUNCT] = SYMBOL
    return table


_KIND = _ascii_kinds()


@njit
def push_mask(
    hashes: U64Array, flags: U8Array, span: I64Array, first: int, n: int, mask: np.uint64, flag: int, at: int
) -> int:  # fmt: skip
    """Append a mask to M (this row's begins at ``first``) at byte ``at``; one stands for a run of the same kind."""
    if n > first and flags[n - 1] & F_MASK and hashes[n - 1] == mask:
        return n
    hashes[n] = mask
    flags[n] = F_MASK | flag
    span[n] = at << 32 | at
    return n + 1


@njit
def ascii_word(
    data: U8Array, start: int, end: int, k0: np.uint64, k1: np.uint64, cache: U64Array
) -> tuple[np.uint64, int]:
    """Hash and end of the word at ``start`` if it is of ASCII letters only, eight bytes a step; else its end is 0.

    A loop over the bytes costs 45 cycles a byte here, this 3. Needs eight readable bytes at each step, so the last
    words of the buffer take the other way. ``cache`` (pairs of block and hash) remembers words of up to seven letters:
    four rounds of SipHash are 18 ns, and nine of ten words of a text are among the 4,096 last seen.
    """
    v0, v1, v2, v3 = sip_start(k0, k1)
    i = start
    while i + 8 <= len(data):
        raw = load64(data, i)
        x = (raw & _LOW7) | _CASE
        letters = (x + _FROM_A) & ~(x + _AFTER_Z) & ~raw & _HIGH
        others = letters ^ _HIGH
        if others == ZERO and i + 8 <= end:
            v0, v1, v2, v3 = sip_block(v0, v1, v2, v3, x)
            i += 8
            continue
        mask = (((others & (~others + _ONE)) >> _S7) - _ONE) if others != ZERO else _ALL
        size = int(np.int64(((mask & _ONES) * _ONES) >> _S56))
        if i + size >= end:
            size = end - i
            mask = (_ONE << np.uint64(8 * size)) - _ONE
        elif data[i + size] >= 0x80 or 0x30 <= data[i + size] <= 0x39:
            return ZERO, 0
        i += size
        last = (x & mask) | np.uint64((i - start) & 0xFF) << _S56
        if i - start > 7:
            return sip_end(v0, v1, v2, v3, last), i
        place = int(np.int64((last * _SPREAD) >> _S51)) & ~1
        if cache[place] != last:
            cache[place] = last
            cache[place + 1] = sip_end(v0, v1, v2, v3, last)
        return cache[place + 1], i
    return ZERO, 0


@njit
def scan_rows(
    data: U8Array, offsets: I64Array, wanted: U8Array, keys: U64Array,
    w_hash: U64Array, w_flag: U8Array, w_span: I64Array, w_at: I64Array,
    m_hash: U64Array, m_flag: U8Array, m_span: I64Array, m_at: I64Array,
    counts: I64Array, cache: U64Array,
) -> None:  # fmt: skip
    """The streams W and M of each ``wanted`` row ``data[offsets[r]:offsets[r + 1]]``, one row after another.

    ``*_hash``, ``*_flag`` (F_*), ``*_span`` (start << 32 | end, from the row's first byte) hold the words of row ``r``
    from ``*_at[r]`` to ``*_at[r + 1]``; room needed: half the bytes and 4 a row. ``counts[r]`` as named above; the
    classes of ASCII are those of :mod:`.classes`. ``cache``: ``CACHE`` zeros, or what calls with the same key left.
    One function with the loop in it: numba optimises a callee once for itself and again in each caller.
    """
    k0, k1 = keys[K_WORD0], keys[K_WORD1]
    n_w = n_m = 0
    w_at[0] = m_at[0] = 0
    for r in range(len(offsets) - 1):
        count = counts[r]
        count[:] = 0
        if wanted[r] == 0:
            w_at[r + 1], m_at[r + 1] = n_w, n_m
            continue
        begin, end = offsets[r], offsets[r + 1]
        m_first = n_m
        v0, v1, v2, v3 = sip_start(k0, k1)
        block, absorbed, shift = ZERO, 0, ZERO
        n_plain = word_chars = 0
        start, size, digits, last_digit = begin, 0, 0, False  # the word in hand: first byte, characters, digits
        quoted_until, no_close_before = begin, begin
        masked_end = -1  # end of the last masked number or id, while nothing but a joiner follows it
        next_option = 0
        line_start, stopped, lettered = True, False, False
        i = begin
        while True:
            # -- find the end of a word, or one character and its kind (JOIN and DIGIT go on with a word)
            h, kind, script, length, p = ZERO, SPACE, 0, 1, 0
            if i < end:
                p = int(np.int64(data[i]))
                if p < 0x80:
                    kind = int(np.int64(_KIND[p]))
                    if kind == JOIN and size == 0:
                        if not lettered:
                            lettered = True
                            count[STARTS_UPPER] = p < 0x60
                        line_start = stopped = False
                        h, after = ascii_word(data, i, end, k0, k1, cache)
                        # most words: letters with a space behind, no quotation, no number before. Nothing else to ask.
                        while (
                            h != ZERO and after < end and data[after] == 0x20 and masked_end < 0
                            and i >= quoted_until and after - i < _LONG_WORD
                        ):  # fmt: skip
                            w_hash[n_w] = m_hash[n_m] = h
                            w_flag[n_w] = m_flag[n_m] = 0
                            w_span[n_w] = m_span[n_m] = (i - begin) << 32 | (after - begin)
                            n_w += 1
                            n_m += 1
                            n_plain += 1
                            word_chars += after - i
                            i = after + 1
                            h = ZERO
                            if i < end and data[i] < 0x80 and _KIND[data[i]] == JOIN:
                                h, after = ascii_word(data, i, end, k0, k1, cache)
                            else:
                                size = -1
                        if size < 0:  # what follows is no letter of ASCII
                            size = 0
                            continue
                        if h != ZERO:
                            start, size, digits, i = i, after - i, 0, after
                        else:  # a word with more in it than letters: one character after another
                            p = int(np.int64(data[i]))
                else:
                    p, length = decode(data, i, end)
                    kind, script = classify(p)
            if size > 0 and h == ZERO and kind != JOIN and kind != DIGIT:
                h = sip_end(v0, v1, v2, v3, block | np.uint64(absorbed & 0xFF) << _S56)
            # -- a word has ended at i
            if h != ZERO:
                w_hash[n_w] = h
                w_flag[n_w] = 0
                w_span[n_w] = (start - begin) << 32 | (i - begin)
                n_w += 1
                word_chars += size
                first = data[start] | 0x20
                if size == 1 and first <= 0x7A and is_option(data, start, i, begin, end):
                    option = int(np.int64(first)) - 0x61
                    if option == 0 or option == next_option:
                        next_option = option + 1
                        count[OPTIONS] = max(count[OPTIONS], next_option)
                joined = masked_end >= 0 and start - masked_end <= 1  # to a number or an id, by one character at most
                masked_end = -1
                link = i
                if (first == 0x68 or first == 0x77) and 3 <= size <= 5 and i - start == size:
                    link = url_end(data, start, i, end)
                if start >= quoted_until:
                    if link > i:
                        n_m = push_mask(m_hash, m_flag, m_span, m_first, n_m, keys[K_URL], 0, start - begin)
                    elif joined and (digits > 0 or all_hex(data, start, i)):
                        masked_end = i
                    elif digits > 0 and digits == size:
                        n_m = push_mask(m_hash, m_flag, m_span, m_first, n_m, keys[K_NUMBER], 0, start - begin)
                        masked_end = i
                    elif (digits > 0 and size >= _LONG_ID) or (size >= _LONG_WORD and i - start == size):
                        n_m = push_mask(m_hash, m_flag, m_span, m_first, n_m, keys[K_ID], 0, start - begin)
                        masked_end = i
                    else:
                        m_hash[n_m] = h
                        m_flag[n_m] = 0
                        m_span[n_m] = (start - begin) << 32 | (i - begin)
                        n_m += 1
                        n_plain += 1
                size = 0
                if link > i:  # the rest of a URL is not read as words
                    count[URLS] += 1
                    i = link
                    stopped = False
                elif i < end and data[i] == 0x20:  # nearly always: save a turn of the loop
                    i += 1
                    masked_end = -1
                continue
            if i >= end:
                break
            # -- the character itself
            if script > 0 and (kind in (JOIN, ALONE)):
                # a character of Chinese or Japanese says about as much as three letters
                count[SCRIPT0 + script] += 3 if script in (HAN, KANA) else 1
                count[LETTERS] += 1
            if line_start and kind != SPACE:
                line_start = False
                count[LIST_LINES] += p == 0x2022 or (p < 0x80 and is_list_item(data, i, end))
            if kind in (JOIN, DIGIT):
                stopped = False
                if size == 0:
                    start, digits, last_digit = i, 0, False
                    v0, v1, v2, v3 = sip_start(k0, k1)
                    block, absorbed, shift = ZERO, 0, ZERO
                size += 1
                lower = p
                if kind == DIGIT:
                    digits += 1
                    count[DIGITS] += p >= 0x80
                else:
                    lower = p | 0x20 if p < 0x80 else fold(p)
                    if p >= 0x80:
                        count[UPPER] += lower != p
                    if not lettered:
                        lettered = True
                        count[STARTS_UPPER] = lower != p
                single = p < 0x80 or kind == DIGIT
                if single and kind == DIGIT:
                    lower = 0x30
                for j in range(0 if last_digit and kind == DIGIT else (1 if single else length)):
                    b = np.uint64(lower) if single else np.uint64(data[i + j])
                    if not single and lower != p:  # folding keeps the number of bytes, 2 or 3
                        b = np.uint64((lower >> (6 * (length - 1 - j))) & 0x3F)
                        b |= np.uint64(0x80 if j > 0 else (0xC0 if length == 2 else 0xE0))
                    block |= b << shift
                    absorbed += 1
                    shift += _S8
                    if absorbed & 7 == 0:
                        v0, v1, v2, v3 = sip_block(v0, v1, v2, v3, block)
                        block, shift = ZERO, ZERO
                last_digit = kind == DIGIT
            elif kind == ALONE:
                stopped, lettered = False, True
                masked_end = -1
                v0, v1, v2, v3 = sip_start(k0, k1)
                h = ZERO
                for j in range(length):
                    h |= np.uint64(data[i + j]) << np.uint64(8 * j)
                h = sip_end(v0, v1, v2, v3, h | np.uint64(length) << _S56)
                w_hash[n_w] = h
                w_flag[n_w] = F_ALONE
                w_span[n_w] = (i - begin) << 32 | (i + length - begin)
                n_w += 1
                word_chars += 1
                if i >= quoted_until:
                    m_hash[n_m] = h
                    m_flag[n_m] = F_ALONE
                    m_span[n_m] = (i - begin) << 32 | (i + length - begin)
                    n_m += 1
                    n_plain += 1
            elif kind == SPACE:
                masked_end = -1
                count[SPACES] += p >= 0x80
                line_start = line_start or p == 0x0A
            else:
                if p < 0x80:
                    last = i + 1 >= end or data[i + 1] <= 0x22 or data[i + 1] == 0x29
                    if p == 0x3F or p == 0x21 or (p == 0x2E and last):
                        stopped = True
                        count[SENTENCES] += last
                    elif p != 0x22 and p != 0x29 and p != 0x27:
                        stopped = False
                    count[QUESTIONS] += p == 0x3F
                    count[EXCLAMATIONS] += p == 0x21
                else:
                    count[PUNCTS] += kind == PUNCT
                    if ends_sentence(p):
                        stopped = True
                        count[SENTENCES] += 1
                    count[QUESTIONS] += p == 0xFF1F or p == 0x61F or p == 0x37E
                    count[EXCLAMATIONS] += p == 0xFF01
                if i >= quoted_until and closer_of(p) != 0:
                    if p == 0x60 and i + 2 < end and data[i + 1] == 0x60 and data[i + 2] == 0x60:
                        count[FENCES] += 1
                        length = 3
                    elif i >= no_close_before:
                        close = find_close(data, i + length, end, p)
                        if close < 0:
                            # one failed search serves for its whole reach: a text of openers only stays linear
                            no_close_before = i + QUOTE_MAX
                        else:
                            count[QUOTED] += close - i
                            # a quoted name before a colon is a key of JSON: part of the template, not a slot
                            if close >= end or data[close] != 0x3A:
                                quoted_until = close
                                n_m = push_mask(m_hash, m_flag, m_span, m_first, n_m, keys[K_QUOTE], F_QUOTE, i - begin)
                            else:
                                no_close_before = close
            i += length
        count[WORDS] = n_w - w_at[r]
        count[N_PLAIN] = n_plain
        count[WORD_CHARS] = word_chars
        count[ENDS_STOPPED] = stopped
        w_at[r + 1], m_at[r + 1] = n_w, n_m
