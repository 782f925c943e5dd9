"""Known corpora: which public instruction set or benchmark is a prompt an item of? Knows no frame and no setting.

A corpus is a file ``NAME.corpus``: a line of magic, a line of JSON (:class:`Header`), then the fingerprints of a
:mod:`binary fuse filter <monitor.sketch.fuse>`. It holds keyed hashes alone: who lacks the key can neither read nor
try an item. Its key is of its own, so that rotating the sketch keys leaves every file good (:class:`CorpusKey`).

Of each item three hashes may enter (:mod:`monitor.sketch.items`): all of it; it with its slots masked; and its first
line that no other item of the corpus has, by which it is found inside a frame. What several items share (a frame, a
skeleton of a whole task) belongs to none of them and is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from monitor.errors import BadInput, Problem
from monitor.siphash import U64Array

from .fuse import BITS, Fuse, build, shape_of
from .items import LINES, PLACES, ROOM, SKELETON, WHOLE, Filters, unit_rows
from .kernel import Words, pieces, texts_of
from .keyring import Key, Keyring
from .scan import KEY_WORDS

MAGIC: Final = b"monitor corpus\n"
VERSION: Final = 1
SUFFIX: Final = ".corpus"
MOST: Final = 32
"""Corpora at a time: each has a bit of the column ``corpus``."""
CHECK_BYTES: Final = 3
"""Bytes of the key's check value that a sketch carries."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_ITEMS_AT_A_TIME: Final = 1024
_HEADER_MOST: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class CorpusKey:
    """What items are hashed under. ``id`` names the secret that it was derived from."""

    id: str
    secret: bytes

    @classmethod
    def of(cls, keyring: Keyring, own: bytes | None = None) -> CorpusKey:
        """Derived from ``own`` if given, else from the ring's oldest key.

        The derivation is one of its own, so sketches tell nothing of it, and it stays when a newer key is added. Once
        the oldest key is to leave the ring, give its secret as ``own``: the same secret derives the same corpus key.
        """
        key = keyring.keys[0] if own is None else Key("corpora", own)
        return cls(key.id, key.derive("corpus", 32))

    @property
    def words(self) -> U64Array:
        """The four words of the kernels."""
        return np.frombuffer(self.secret, dtype="<u8").astype(np.uint64)

    @property
    def check(self) -> str:
        """16 hex digits that tell one key from another and reveal neither."""
        return hashlib.blake2b(b"check", key=self.secret, digest_size=8).hexdigest()

    def mac(self, *parts: bytes) -> str:
        """Authenticates a file: a damaged one, or one under another key, has another."""
        made = hashlib.blake2b(key=self.secret, digest_size=16)
        for part in parts:
            made.update(part)
        return made.hexdigest()


@dataclass(frozen=True, slots=True)
class Header:
    """The first lines of a corpus file. Counts of items; ``entries`` hashes are in the filter.

    ``bit`` is the corpus' place in the column ``corpus``: part of the file, so that gateway and monitor agree.
    ``short`` items were too short to be anybody's, ``repeated`` were there twice. ``key_id`` names the key,
    ``key_check`` proves it.
    """

    name: str
    bit: int
    items: int
    entries: int
    repeated: int
    short: int
    fingerprint_bits: int
    false_positive_rate: float
    key_id: str
    key_check: str
    seed: int
    segment: int
    spread: int
    version: int = VERSION
    mac: str = ""

    def line(self) -> bytes:
        """As JSON, with its newline."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True)
class Corpus:
    """One known corpus."""

    header: Header
    fuse: Fuse

    def save(self, path: Path, key: CorpusKey) -> None:
        """Write the file, whole or not at all."""
        body = self.fuse.prints.astype(f"<u{self.fuse.bits // 8}").tobytes()
        header = replace(self.header, mac="")
        signed = replace(header, mac=key.mac(header.line(), body))
        beside = path.with_name(f".{path.name}.new")
        beside.write_bytes(MAGIC + signed.line() + body)
        beside.replace(path)


def build_corpus(name: str, texts: Iterable[str], key: CorpusKey, *, bit: int, bits: int) -> Corpus:
    """A corpus of ``texts``. ``bits``: width of a fingerprint, the false-positive rate of one hash is 2^-bits.

    Raises BadInput for a name that is none, a bit outside 0 to 31, and where no text is long enough to be an item.
    """
    problems = []
    if not _NAME.fullmatch(name):
        problems.append(Problem(name, 0, "a corpus is named by 1 to 64 of a-z, 0-9, '_', '-', '.'", "name"))
    if not 0 <= bit < MOST:
        problems.append(Problem(name, 0, f"a corpus has one of the bits 0 to {MOST - 1}, not {bit}", "bit"))
    if bits not in BITS:
        problems.append(Problem(name, 0, f"fingerprints have {', '.join(map(str, BITS))} bits, not {bits}", "bits"))
    if problems:
        raise BadInput(problems)
    units, read = _units(texts, key)
    long = units[units[:, WHOLE] != 0]
    _, first = np.unique(long[:, WHOLE], return_index=True)
    items = long[np.sort(first)]
    if not len(items):
        raise BadInput([Problem(name, 0, f"none of {read} texts is long enough to be an item (4 words, 24 letters)")])
    entries = np.unique(np.concatenate([items[:, WHOLE], _single(items[:, SKELETON]), _anchors(items[:, LINES:])]))
    made = build(entries, bits)
    header = Header(
        name=name, bit=bit, items=len(items), entries=len(entries), repeated=len(long) - len(items),
        short=read - len(long), fingerprint_bits=bits, false_positive_rate=made.false_positive_rate, key_id=key.id,
        key_check=key.check, seed=made.seed, segment=made.segment, spread=made.spread,
    )  # fmt: skip
    return Corpus(header, made)


def _units(texts: Iterable[str], key: CorpusKey) -> tuple[U64Array, int]:
    """The hashes of each text that is long enough, one a row; and how many texts there were."""
    # any key will do for the scan: where the words stand does not depend on it
    text_keys = np.resize(key.words, KEY_WORDS).astype(np.uint64) | np.uint64(1)
    read = 0
    kept: list[tuple[U64Array, int]] = []
    waiting: list[str] = []

    def work() -> None:
        made = texts_of(waiting)
        if made is None:
            return
        units = np.zeros((len(waiting), PLACES), np.uint64)
        words = Words(len(waiting))
        for start, stop in pieces(made.offsets):
            at, chosen = made.offsets[start : stop + 1], made.valid[start:stop]
            words.scan(made.data, at, chosen, text_keys)
            unit_rows(
                made.data, at, chosen, text_keys, key.words, words.w_span, words.w_at, words.m_span, words.m_flag,
                words.m_hash, words.m_at, words.counts, units[start:stop], np.empty(ROOM, np.uint8),
            )  # fmt: skip
        used = int((units != 0).any(axis=0).nonzero()[0].max(initial=0)) + 1
        kept.append((units[units[:, WHOLE] != 0], used))

    for text in texts:
        read += 1
        waiting.append(text)
        if len(waiting) == _ITEMS_AT_A_TIME:
            work()
            waiting.clear()
    work()
    width = max([used for _, used in kept] + [LINES + 1])
    return np.concatenate([np.zeros((0, width), np.uint64), *(u[:, :width] for u, _ in kept)]), read


def _single(values: U64Array) -> U64Array:
    """The values that occur once (0 is none)."""
    distinct, counts = np.unique(values, return_counts=True)
    single: U64Array = distinct[(counts == 1) & (distinct != 0)]
    return single


def _anchors(lines: U64Array) -> U64Array:
    """Of each row the first value that no other row has (0: there is none)."""
    owned = np.sort(lines, axis=1)
    owned[:, 1:][owned[:, 1:] == owned[:, :-1]] = 0  # a line that an item repeats counts once
    single = np.isin(lines, _single(owned.reshape(-1)))
    first = single.argmax(axis=1)
    rows = np.arange(len(lines))
    anchors: U64Array = lines[rows, first][single[rows, first]]
    return anchors


def read_corpus(path: Path, key: CorpusKey | None) -> Corpus:
    """The corpus of a file. Without ``key`` the header is trusted as it is: to list files, never to use them.

    Raises BadInput where it can't be read, is none, is damaged, or is under another key.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput([Problem(str(path), 0, f"cannot be read: {error.strerror or error}")]) from None
    head, _, rest = content[len(MAGIC) :].partition(b"\n")
    header = _header(head) if content.startswith(MAGIC) and len(head) <= _HEADER_MOST else None
    if header is None:
        raise BadInput([Problem(str(path), 0, f"is no corpus of version {VERSION}: make it by `monitor corpus build`")])
    if key is not None and header.key_check != key.check:
        raise BadInput([Problem(
            str(path), 0, f"was built under another key (of {header.key_id!r}, this is of {key.id!r}): give the secret "
            "it was built with as corpora.secret_file, or build it again from its source files",
        )])  # fmt: skip
    if key is not None and key.mac(replace(header, mac="").line(), rest) != header.mac:
        raise BadInput([Problem(str(path), 0, "is damaged: build it again from its source files")])
    expected = (header.spread + 2 * header.segment) * header.fingerprint_bits // 8
    if len(rest) != expected:
        raise BadInput([Problem(str(path), 0, f"has {len(rest)} bytes of fingerprints, not {expected}: it was cut")])
    prints = np.frombuffer(rest, f"<u{header.fingerprint_bits // 8}").astype(np.uint32)
    return Corpus(header, Fuse(prints, header.fingerprint_bits, header.seed, header.segment, header.spread))


def _header(line: bytes) -> Header | None:
    try:
        values: Any = json.loads(line)
        header = Header(**values)
    except (ValueError, TypeError):
        return None
    whole = all(isinstance(getattr(header, n), int) and getattr(header, n) >= 0 for n in ("bit", "entries", "seed"))
    sound = whole and header.version == VERSION and header.fingerprint_bits in BITS and header.bit < MOST
    if not sound or (header.segment, header.spread) != shape_of(header.entries):
        return None
    return header


@dataclass(frozen=True)
class Corpora:
    """All corpora in force, and as the kernels read them. ``hash`` names the set; ``none`` where it is empty."""

    key: CorpusKey
    headers: tuple[Header, ...]
    filters: Filters
    hash: str

    @classmethod
    def of(cls, key: CorpusKey, corpora: Sequence[Corpus] = ()) -> Corpora:
        """Raises BadInput where two corpora have one name or one bit."""
        problems = []
        for field in ("name", "bit"):
            taken = [str(getattr(c.header, field)) for c in corpora]
            for value in sorted({v for v in taken if taken.count(v) > 1}):
                problems.append(Problem("corpora", 0, f"two corpora have the {field} {value!r}: build one again with "
                                        f"another (`monitor corpus build --bit`)", field))  # fmt: skip
        if problems:
            raise BadInput(problems)
        digest = hashlib.sha256(b"".join(c.header.line() for c in corpora)).hexdigest()[:16]
        return cls(
            key,
            tuple(c.header for c in corpora),
            Filters(
                key.words,
                np.concatenate([np.zeros(0, np.uint32), *(c.fuse.prints for c in corpora)]),
                np.cumsum([0, *(len(c.fuse.prints) for c in corpora)], dtype=np.int64),
                np.array([c.fuse.params() for c in corpora], np.uint64).reshape(-1, 4),
                np.array([1 << c.header.bit for c in corpora], np.uint32),
            ),
            digest if corpora else "none",
        )

    def __len__(self) -> int:
        return len(self.headers)

    @property
    def check(self) -> bytes:
        """What a sketch carries to say under which key its item is hashed."""
        return bytes.fromhex(self.key.check)[:CHECK_BYTES]

    @property
    def versions(self) -> dict[str, str]:
        """What an alert says of them: nothing where there are none."""
        return {"corpora": self.hash} if self.headers else {}

    @property
    def names(self) -> Mapping[int, str]:
        """Names by bit."""
        return {h.bit: h.name for h in self.headers}


def corpus_files(directory: Path) -> list[Path]:
    """The corpora in a directory, by name. Raises BadInput where it is none."""
    if not directory.is_dir():
        raise BadInput([Problem(str(directory), 0, "is no directory of corpora: make it, or unset corpora.dir")])
    return sorted(p for p in directory.glob(f"*{SUFFIX}") if not p.name.startswith("."))


def load_corpora(directory: Path | None, key: CorpusKey) -> Corpora:
    """Every corpus in ``directory`` (None: none), or BadInput with every problem of every file."""
    found: list[Corpus] = []
    problems: list[Problem] = []
    for path in corpus_files(directory) if directory is not None else ():
        try:
            found.append(read_corpus(path, key))
        except BadInput as error:
            problems += error.problems
    if problems:
        raise BadInput(problems)
    return Corpora.of(key, found)


class CorporaWatch:
    """Notices that the files of a directory changed, by name, size and time of each. Knows neither clock nor pipeline.

    A broken file is told once, and the set in force goes on.
    """

    def __init__(self, directory: Path | None, key: CorpusKey):
        self._directory = directory
        self._key = key
        self._seen = self._look()

    def _look(self) -> tuple[tuple[str, int, int], ...]:
        try:
            files = corpus_files(self._directory) if self._directory is not None else []
            return tuple((p.name, s.st_size, s.st_mtime_ns) for p in files for s in (p.stat(),))
        except (OSError, BadInput):
            return ()

    def poll(self) -> Corpora | None:
        """A new set if the files changed since the last answer. Raises BadInput with what is wrong with them."""
        found = self._look()
        if found == self._seen:
            return None
        try:
            corpora = load_corpora(self._directory, self._key)
        except BadInput:
            if self._look() == found:
                self._seen = found
                raise
            return None  # the files are being written: look again
        self._seen = found
        return corpora
