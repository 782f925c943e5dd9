"""Keys of the sketches: which one holds when, and what is derived from each. Knows no field and no text.

A key is chosen by event time, never by a clock. Rotation: add a key with a later ``from``. From then on, for one
overlap (the life of a link), *both* keys are live: an event's own columns stay under the **older** one, so that no
window breaks in the middle, and ``sketch_frame(..., both=True)`` adds ``<name>_next`` columns under the newer one, by
which a store of links learns the new names of what it knows. When the overlap ends, the newer key takes over.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.errors import BadInput, Problem

MIN_SECRET: Final = 16
"""Shortest secret taken, in bytes. Settings ask for 32 characters."""
DEFAULT_OVERLAP_MS: Final = 30 * 86_400_000
_EVER: Final = -(2**62)
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Key:
    """One secret. ``from_ms`` is the event time (epoch milliseconds) from which it is the newest; None: from ever."""

    id: str
    secret: bytes = field(repr=False)
    from_ms: int | None = None

    def derive(self, purpose: str, size: int) -> bytes:
        """``size`` (up to 32) bytes for one purpose; those of different purposes are unrelated."""
        return hmac.digest(self.secret, b"monitor sketch v1 " + purpose.encode(), hashlib.sha256)[:size]

    def words(self, purpose: str, count: int) -> npt.NDArray[np.uint64]:
        """``count`` (up to 4) derived 64-bit words."""
        return np.frombuffer(self.derive(purpose, 8 * count), dtype="<u8").astype(np.uint64)


class Keyring:
    """Keys in the order of their beginnings, and how long an old one goes on beside its successor.

    Raises :class:`BadInput` with every problem found: no key, ids that occur twice or are malformed, secrets under
    16 bytes, two keys with one beginning.
    """

    def __init__(self, keys: Iterable[Key], overlap_ms: int = DEFAULT_OVERLAP_MS, *, origin: str = "keys"):
        self.keys: tuple[Key, ...] = tuple(sorted(keys, key=lambda k: _EVER if k.from_ms is None else k.from_ms))
        self.overlap_ms = overlap_ms
        problems = [Problem(origin, 0, text) for text in self._problems()]
        if problems:
            raise BadInput(problems)
        self._begins = np.array([_EVER if k.from_ms is None else k.from_ms for k in self.keys], dtype=np.int64)
        self._slots = {k.id: i for i, k in enumerate(self.keys)}

    def _problems(self) -> Iterable[str]:
        if not self.keys:
            yield "no key: add one with an id and a secret_file (`openssl rand -hex 32` makes a secret)"
        if self.overlap_ms < 0:
            yield "the overlap of two keys can't be negative"
        ids = [k.id for k in self.keys]
        begins = [k.from_ms for k in self.keys]
        for key in self.keys:
            if not _ID.fullmatch(key.id):
                yield f"key id {key.id!r}: use 1 to 64 letters, digits, '_', '-' or '.'"
            if len(key.secret) < MIN_SECRET:
                yield f"key {key.id!r}: its secret has {len(key.secret)} bytes, at least {MIN_SECRET} are needed"
        for name in sorted({i for i in ids if ids.count(i) > 1}):
            yield f"the key id {name!r} occurs twice: rotate by a new id, not by a new secret"
        if len(set(begins)) != len(begins):
            yield "two keys have the same `from`: which one is newer must be clear"

    def __repr__(self) -> str:
        return f"Keyring({', '.join(k.id for k in self.keys)})"

    def slot(self, key_id: str) -> int | None:
        """Index of the key called ``key_id`` in :attr:`keys`; None: unknown here."""
        return self._slots.get(key_id)

    def slots_at(self, t_ms: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """For each event time: the slot that its columns are keyed by, and that of ``_next`` (-1: none is due).

        Before the first key's beginning the first key serves: an event older than every key is still an event.
        """
        newest = np.maximum(np.searchsorted(self._begins, t_ms, side="right") - 1, 0)
        # Older keys step down one overlap after their successor began; with rotations closer together than one
        # overlap, the oldest that is still live keeps the columns, and ``_next`` is always the newest.
        main = newest.copy()
        for slot in range(len(self.keys) - 2, -1, -1):
            ends = self._begins[slot + 1] + self.overlap_ms
            main = np.where((slot < newest) & (t_ms < ends), slot, main)
        return main, np.where(main < newest, newest, -1)

    @classmethod
    def from_secret(cls, secret: bytes, key_id: str = "k1") -> Keyring:
        """One key, from ever."""
        return cls([Key(key_id, secret)])

    @classmethod
    def generate(cls) -> Keyring:
        """A random key that dies with the process: a demo, or a backtest that nothing else is compared with."""
        return cls.from_secret(os.urandom(32), "generated")

    @classmethod
    def from_seed(cls, seed: int) -> Keyring:
        """A key that anyone can compute: evaluations that must repeat byte for byte. Never for a real log."""
        return cls.from_secret(hashlib.sha256(f"monitor seed {seed}".encode()).digest(), f"seed-{seed}")

    @classmethod
    def from_settings(cls, ring: Sequence[Mapping[str, Any]], overlap_days: float = 30.0) -> Keyring:
        """``ring`` of ``{id, secret | secret_file, from | active_from}``; times as epoch seconds or RFC 3339."""
        return cls(_read(ring, "keys.ring"), int(overlap_days * 86_400_000), origin="keys.ring")

    @classmethod
    def from_file(cls, path: Path) -> Keyring:
        """One file: the bare secret, or JSON or TOML with ``keys`` (as :meth:`from_settings`) and ``overlap_days``."""
        try:
            body = path.read_bytes()
        except OSError as error:
            raise BadInput([Problem(str(path), 0, f"can't be read: {error.strerror}")]) from None
        document = _document(path, body)
        if document is None:
            return cls([Key("k1", body.strip())], origin=str(path))
        days = document.get("overlap_days", 30.0)
        ring = document.get("keys")
        if not isinstance(ring, list) or isinstance(days, bool) or not isinstance(days, int | float):
            raise BadInput([Problem(str(path), 0, "needs a list `keys`, and a number `overlap_days` if any")])
        return cls(_read(ring, str(path), path.parent), int(days * 86_400_000), origin=str(path))


def _document(path: Path, body: bytes) -> dict[str, Any] | None:
    """The file as a table; None: it is a bare secret."""
    loads: Callable[[str], Any]
    if body.lstrip()[:1] == b"{":
        loads = json.loads
    elif path.suffix == ".toml":
        loads = tomllib.loads
    else:
        return None
    try:
        document = loads(body.decode())
    except ValueError:  # also UnicodeDecodeError; its text would quote the file, which holds secrets
        raise BadInput([Problem(str(path), 0, "is neither JSON nor TOML: check the syntax")]) from None
    return document if isinstance(document, dict) else {}


def _read(ring: Sequence[Mapping[str, Any]], origin: str, base: Path | None = None) -> list[Key]:
    keys, problems = [], []
    for index, entry in enumerate(ring):
        where = f"{origin}[{index}]"
        try:
            keys.append(_key(entry, base))
        except ValueError as error:
            problems.append(Problem(where, 0, str(error)))
        except OSError as error:
            problems.append(Problem(where, 0, f"secret_file can't be read: {error.strerror}"))
    if problems:
        raise BadInput(problems)
    return keys


def _key(entry: Mapping[str, Any], base: Path | None) -> Key:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str):
        raise ValueError("is a table with `id`, `secret_file` (or `secret`) and, from the second key on, `from`")
    secret, file = entry.get("secret"), entry.get("secret_file")
    if secret is not None and hasattr(secret, "get_secret_value"):
        secret = secret.get_secret_value()
    if isinstance(secret, str):
        raw = secret.strip().encode()
    elif file is not None:
        raw = ((base or Path()) / Path(file)).read_bytes().strip()
    else:
        raise ValueError("needs `secret_file` (or `secret`)")
    return Key(entry["id"], raw, _time(entry.get("from", entry.get("active_from"))))


def _time(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("`from` needs a zone, e.g. 2026-01-01T00:00:00Z")
        return round(value.timestamp() * 1000)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return round(value * 1000)
    raise ValueError("`from` is a time: epoch seconds or RFC 3339 with a zone")
