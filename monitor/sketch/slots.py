"""What fills the slots of a template, recognised in bytes: quotations, URLs, list items, options. Knows no hashes."""

from __future__ import annotations

from monitor.jit import njit
from monitor.siphash import U8Array

from .codepoints import closer_of, decode

QUOTE_MAX = 4096  # bytes in which a quotation must close: a passage of half a page, quoted, is one slot


@njit
def find_close(data: U8Array, i: int, end: int, opener: int) -> int:
    """Index after the mark that closes a quotation whose content starts at ``i``; -1 if it does not close."""
    closer = closer_of(opener)
    limit = min(end, i + QUOTE_MAX)
    if closer < 0x80:
        for j in range(i, limit):
            if data[j] == closer:
                return j + 1
        return -1
    lead = 0xC2 if closer < 0x800 else (0xE2 if closer < 0x3000 else 0xE3)
    for j in range(i, limit - 1):
        if data[j] == lead:
            p, size = decode(data, j, end)
            if p == closer or (opener == 0x201E and p == 0x201D):
                return j + size
    return -1


@njit
def is_list_item(data: U8Array, i: int, end: int) -> bool:
    """True if a line whose first character is at ``i`` begins with a bullet or a number."""
    c = data[i]
    if c in (0x2A, 0x2B, 0x2D):
        return i + 1 < end and data[i + 1] == 0x20
    j = i
    while j < end and j < i + 3 and 0x30 <= data[j] <= 0x39:
        j += 1
    return i < j < end - 1 and data[j] in (0x29, 0x2E) and data[j + 1] in (0x20, 0x09)


@njit
def is_option(data: U8Array, start: int, after: int, begin: int, end: int) -> bool:
    """True if the single letter at ``start`` labels an option: ``A)``, ``(B)``, ``C.``, ``D:`` or full-width forms."""
    if start > begin and data[start - 1] not in (0x20, 0x0A, 0x09, 0x28, 0x0D):
        return False
    if after >= end:
        return False
    if data[after] < 0x80:
        return data[after] in (0x29, 0x2E, 0x3A)
    p, _ = decode(data, after, end)
    return p in (0x3001, 0xFF09, 0xFF0E, 0xFF1A)


@njit
def url_end(data: U8Array, start: int, after: int, end: int) -> int:
    """End of the URL whose scheme (or ``www``) is the word ``data[start:after]``; ``after`` if it is none."""
    size = after - start
    first = data[start] | 0x20
    if first == 0x68 and (size == 4 or size == 5):  # http, https
        if data[start + 1] | 0x20 != 0x74 or data[start + 2] | 0x20 != 0x74 or data[start + 3] | 0x20 != 0x70:
            return after
        if size == 5 and data[start + 4] | 0x20 != 0x73:
            return after
        if after + 3 > end or data[after] != 0x3A or data[after + 1] != 0x2F or data[after + 2] != 0x2F:
            return after
    elif first == 0x77 and size == 3:  # www
        if after >= end or data[after] != 0x2E or data[start + 1] | 0x20 != 0x77 or data[start + 2] | 0x20 != 0x77:
            return after
    else:
        return after
    j = after
    while j < end and 0x20 < data[j] < 0x80 and data[j] not in (0x22, 0x27, 0x3C, 0x3E, 0x29, 0x5D, 0x7D, 0x60):
        j += 1
    return j


@njit
def all_hex(data: U8Array, start: int, end: int) -> bool:
    """True if ``data[start:end]`` are letters a to f and digits."""
    for j in range(start, end):
        c = data[j]
        if not (0x30 <= c <= 0x39 or 0x61 <= c | 0x20 <= 0x66):
            return False
    return True
