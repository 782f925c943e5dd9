"""Client-chosen and network identifiers as keyed 64-bit numbers: what is normalised how, and the HMAC.

HMAC-SHA256 costs 1 to 2 us here, so each distinct value of a batch is hashed once, by a kernel; what that leaves is
hashed one by one and remembered in a bounded cache. The caches live in memory only. Knows nothing of text and frames.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from monitor.jit import warmup
from monitor.siphash import U64Array

from .identifier_rows import ADDRESS, AS_IT_IS, DOMAIN, LOWER, NETWORK, UPPER, hash_rows
from .kernel import Texts
from .keyring import Keyring
from .sha import key_states

SEPARATOR: Final = "\x1f"
"""Between the parts of a compound value (tools; name and version)."""
MAX_CACHED: Final = 50_000
"""Values remembered of one kind under one key; 50,000 of 40 characters are about 8 MB."""


def _text(value: str) -> bytes | None:
    return value.strip().encode("utf-8", "replace") or None


def _address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(value.strip())
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _ip(value: str) -> bytes | None:
    address = _address(value)
    return None if address is None else address.packed


def _net(value: str) -> bytes | None:
    """The /24 of an IPv4 address, the /48 of an IPv6 one: what one customer usually has."""
    address = _address(value)
    return None if address is None else address.packed[: 3 if address.version == 4 else 6]


def _country(value: str) -> bytes | None:
    return _text(value.upper())


def _contact(value: str) -> bytes | None:
    """A domain in lower case, without a dot at its end; of an address what follows the last @."""
    return _text(value.rpartition("@")[2].strip().rstrip(".").lower())


def _client(value: str) -> bytes | None:
    name, _, version = value.partition(SEPARATOR)
    name, version = name.strip().lower(), version.strip()
    return f"{name}/{version}".encode("utf-8", "replace") if name else None


def _client_name(value: str) -> bytes | None:
    return _text(value.lower())


_NORMAL: Final[Mapping[str, Callable[[str], bytes | None]]] = {
    "ip": _ip, "net": _net, "country": _country, "contact": _contact, "client": _client, "client_name": _client_name,
}  # fmt: skip


_MODES: Final[Mapping[str, int]] = {
    "ip": ADDRESS, "net": NETWORK, "country": UPPER, "contact": DOMAIN, "client_name": LOWER,
}  # fmt: skip
"""The same for the kernel, which leaves to :data:`_NORMAL` whatever is not plain; all others are hashed as they are."""
_BY_HAND: Final = frozenset({"client"})


def client_of(name: str | None, version: str | None, user_agent: str | None) -> str | None:
    """The compound value of ``client``: the declared name and version, else the user agent's first product.

    >>> client_of(None, None, "acme-python/1.2 (linux)") == client_of("acme-python", "1.2", None)
    True
    """
    if name is not None and name.strip():
        return name + SEPARATOR + (version or "")
    if user_agent is None or not user_agent.strip():
        return None
    product, _, number = user_agent.split(maxsplit=1)[0].partition("/")
    return product + SEPARATOR + number


def tools_of(names: Iterable[str]) -> str:
    """The compound value of ``tools``: the set of names, in order."""
    return SEPARATOR.join(sorted(set(names)))


class IdentifierHasher:
    """Keyed 64-bit hashes of identifiers; equal strings of two kinds (``kind``: a column's name) differ."""

    def __init__(self, keyring: Keyring):
        self._secrets = [key.derive("identifiers", 32) for key in keyring.keys]
        self._states = [key_states(secret) for secret in self._secrets]
        self._caches: dict[tuple[int, str], dict[str, int]] = {}

    def one(self, kind: str, value: str, slot: int) -> int:
        """The hash of ``value`` under the key in ``slot``, 1 to 2^64 - 1; 0 where it is empty or no such thing."""
        cache = self._caches.setdefault((slot, kind), {})
        found = cache.get(value)
        if found is None:
            normal = _NORMAL.get(kind, _text)(value)
            found = 0
            if normal is not None:
                message = kind.encode() + b"\0" + normal
                found = int.from_bytes(hmac.digest(self._secrets[slot], message, hashlib.sha256)[:8], "little") or 1
            if len(cache) >= MAX_CACHED:
                cache.clear()
            cache[value] = found
        return found

    def many(self, kind: str, values: Texts, slot: int) -> U64Array:
        """:meth:`one` of each string."""
        out, done = np.zeros(len(values), np.uint64), np.zeros(len(values), np.uint8)
        if kind not in _BY_HAND:
            head = kind.encode() + b"\0"
            longest = int(np.diff(values.offsets).max(initial=0))
            message = np.frombuffer(bytearray(head.ljust(len(head) + longest + 4)), np.uint8)
            mode = _MODES.get(kind, AS_IT_IS)
            hash_rows(values.data, values.offsets, mode, message, len(head), *self._states[slot], out, done)
        for r in np.flatnonzero(done == 0).tolist():
            text = values.data[values.offsets[r] : values.offsets[r + 1]].tobytes().decode()
            out[r] = self.one(kind, text, slot)
        return out


@warmup
def warm_identifiers() -> None:
    """Compile the kernel by one value."""
    value = Texts(np.frombuffer(bytearray(b"a"), np.uint8), np.array([0, 1], np.int64), np.ones(1, np.uint8))
    IdentifierHasher(Keyring.from_seed(0)).many("ja4", value, 0)
