"""A bundle that shows when something in it was changed: digests of each part, chains over revisions, a signature.

``seal`` adds one entry to a bundle. Each part has a SHA-256 over its canonical JSON. Each revision of the alert,
and each decision on the case, has one as well, and a link: the hash of the link before it and of its own digest,
so that none can be taken out, put in or moved. The signature (HMAC-SHA256) covers digests and links, hence
everything. Who has the key could sign another bundle: keep it where the analysts' notebooks are not.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SCHEMA = "evidence/v1"
CHAINS = ("revisions", "decisions")
ALGORITHM = "HMAC-SHA256"
_LABEL = b"monitor evidence/v1 "


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key and its name."""

    id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found: nothing altered, or each thing that was. ``signed`` is whether a key vouches for it."""

    findings: tuple[str, ...]
    signed: bool

    @property
    def intact(self) -> bool:
        """Whether it is what was sealed, and signed with a known key."""
        return self.signed and not self.findings


def canonical(value: Any) -> bytes:
    """One text for one value: sorted keys, no spaces, UTF-8. Raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        "utf-8", "surrogatepass"
    )


def digest(value: Any) -> str:
    """SHA-256 of the canonical text, hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def chain(origin: str, digests: Sequence[str]) -> list[str]:
    """The link of each digest: SHA-256 over the link before and the digest; the first hangs on ``origin``."""
    last = hashlib.sha256(_LABEL + origin.encode("utf-8", "surrogatepass")).hexdigest()
    links = []
    for value in digests:
        last = hashlib.sha256(f"{last} {value}".encode()).hexdigest()
        links.append(last)
    return links


def seal(body: Mapping[str, Any], key: Key | None) -> dict[str, Any]:
    """The body with its entry ``seal``. ``body`` holds JSON values, lists at :data:`CHAINS`, and ``alert_id``."""
    made: dict[str, Any] = {
        "parts": {name: digest(value) for name, value in body.items()},
        "algorithm": ALGORITHM if key is not None else None,
        "key_id": key.id if key is not None else None,
    }
    for name in CHAINS:
        digests = [digest(item) for item in body[name]]
        origin = f"{name} {body['alert_id']}"
        made[name] = [{"digest": d, "link": k} for d, k in zip(digests, chain(origin, digests), strict=True)]
    made["signature"] = _sign(made, key) if key is not None else None
    return {**body, "seal": made}


def verify(bundle: Mapping[str, Any], keys: Mapping[str, Key]) -> Verdict:
    """Everything that does not fit, in words. ``keys``: those that may have signed it, by id."""
    held = bundle.get("seal")
    if bundle.get("schema") != SCHEMA or not isinstance(held, dict) or not isinstance(held.get("parts"), dict):
        return Verdict((f"is not a bundle of {SCHEMA}: it has no seal",), False)
    found = [*_parts(bundle, held), *(f for name in CHAINS for f in _chain(bundle, held, name))]
    signed, said = _signature(held, keys)
    return Verdict((*found, *said), signed)


def _sign(made: Mapping[str, Any], key: Key) -> str:
    signed = {name: value for name, value in made.items() if name != "signature"}
    return hmac.new(key.secret, _LABEL + canonical(signed), hashlib.sha256).hexdigest()


def _parts(bundle: Mapping[str, Any], held: Mapping[str, Any]) -> Iterator[str]:
    parts = held["parts"]
    body = {name: value for name, value in bundle.items() if name != "seal"}
    for name in sorted(parts.keys() - body.keys()):
        yield f"{name}: was taken out"
    for name in sorted(body.keys() - parts.keys()):
        yield f"{name}: was put in"
    for name in sorted(body.keys() & parts.keys()):
        if digest(body[name]) != parts[name]:
            yield f"{name}: was altered"


def _chain(bundle: Mapping[str, Any], held: Mapping[str, Any], name: str) -> Iterator[str]:
    items, entries = bundle.get(name), held.get(name)
    if not isinstance(items, list) or not isinstance(entries, list):
        yield f"{name}: is no list"
        return
    word = name.removesuffix("s")
    sealed = [e.get("digest") if isinstance(e, dict) else None for e in entries]
    given = [e.get("link") if isinstance(e, dict) else None for e in entries]
    if given != chain(f"{name} {bundle.get('alert_id')}", [str(d) for d in sealed]):
        yield f"{name}: the chain is broken: a {word} was taken out, put in or moved, or its seal was"
    if len(items) != len(entries):
        yield f"{name}: {len(items)} are there, {len(entries)} were sealed"
    for index, item in enumerate(items):
        if index < len(sealed) and digest(item) != sealed[index]:
            yield f"{word} {_name(item, index)}: was altered"
    if name == "revisions":
        numbers = [n for i in items if isinstance(i, dict) and isinstance(n := i.get("revision"), int)]
        if len(numbers) != len(items) or numbers != sorted(set(numbers)):
            yield "revisions: are not in order"


def _name(item: Any, index: int) -> str:
    number = item.get("revision") if isinstance(item, dict) and "alert_id" in item else None
    return str(number if isinstance(number, int) else index + 1)


def _signature(held: Mapping[str, Any], keys: Mapping[str, Key]) -> tuple[bool, list[str]]:
    value, name = held.get("signature"), held.get("key_id")
    if value is None:
        return False, ["signature: there is none, anybody could have made this"]
    key = keys.get(name) if isinstance(name, str) else None
    if key is None:
        return False, [
            f"signature: it was made with the key {name!r}, which is not known here (evidence.signing_key_file)"
        ]
    if held.get("algorithm") != ALGORITHM or not hmac.compare_digest(
        str(value).encode("utf-8", "replace"), _sign(held, key).encode()
    ):
        return False, ["signature: it does not fit: the seal itself was altered, or another key has this name"]
    return True, []
