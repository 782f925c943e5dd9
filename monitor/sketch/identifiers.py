"""Client-chosen and network identifiers as keyed 64-bit numbers: what is normalised how, and the HMAC.

HMAC-SHA256 costs 1 to 2 us, so each distinct value of a batch is hashed once and remembered in a bounded cache. The
caches live in memory only. Knows nothing of text and of frames.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from .keyring import Keyring
from .siphash import U64Array

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

    def many(self, kind: str, values: Sequence[str], slot: int) -> U64Array:
        """:meth:`one` of each."""
        return np.fromiter((self.one(kind, v, slot) for v in values), np.uint64, len(values))
