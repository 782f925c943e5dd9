"""Wire format 1 of a sketch, the ``sketch`` object of the request log: packing and unpacking. Knows no text and no key.

::

    {"v": 1, "key_id": "k1",
     "form": base64 of 42 bytes    shape 24, lexicon u32, script u8, which texts u8, characters 3 x u32
     "text": base64 of 120 bytes   7 hashes u64 (TEXT_HASHES), MinHash 64
     "ids":  base64 of 132 bytes   16 hashes u64 (SEALED_IDS), number of tools + 1 u32
     "corpus": base64 of 15 bytes  check of the corpus key 3 x u8, bits of the corpora u32, hash of the item u64
     "generator": base64 of 3 bytes  bits of the generator families
     "blobs": 16 hex digits each
     "next": {"key_id", "text", "ids", "blobs"}}     the same under the newer key, while two keys are live

Integers are little endian. Members that would say nothing are left out; a hash of 0 is "not known". ``form`` does not
depend on the key, and ``corpus`` on the corpus key alone (it is there where the gateway knows a corpus and saw a
prompt). Whoever reads it must treat it as hostile: every length, character and range is checked.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.siphash import U64Array

from .vocabulary import LEXICON_FLAGS, MAX_BLOBS, SCRIPTS, SEALED_IDS, SHAPE_NAMES, TEXT_HASHES, WIRE_VERSION

FORM = np.dtype(
    [
        ("shape", "u1", (len(SHAPE_NAMES),)),
        ("lexicon", "<u4"),
        ("script", "u1"),
        ("texts", "u1"),
        ("chars", "<u4", (3,)),
    ]
)
TEXT = np.dtype([("hashes", "<u8", (len(TEXT_HASHES),)), ("minhash", "u1", (64,))])
IDS = np.dtype([("ids", "<u8", (len(SEALED_IDS),)), ("n_tools", "<u4")])
GENERATOR = np.dtype([("bits", "u1", (3,))])
CORPUS = np.dtype([("key", "u1", (3,)), ("corpus", "<u4"), ("item", "<u8")])
LENGTHS: Final[Mapping[str, int]] = {"form": 56, "text": 160, "ids": 176, "corpus": 20, "generator": 4}
"""Characters of each packed member."""
PARTS: Final[Mapping[str, np.dtype[np.void]]] = {
    "form": FORM, "text": TEXT, "ids": IDS, "corpus": CORPUS, "generator": GENERATOR,
}  # fmt: skip
HAS_PROMPT, HAS_SYSTEM, HAS_RESPONSE = 1, 2, 4

_DIGITS = np.full(256, 255, np.uint8)
_DIGITS[np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)] = np.arange(64)
_HEX = np.full(256, 255, np.uint8)
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def pack(record: npt.NDArray[np.void]) -> str:
    """One record of :data:`PARTS` as base64."""
    return base64.b64encode(record.tobytes()).decode("ascii")


def pack_blobs(hashes: Sequence[int]) -> str:
    """Hashes as hex, 16 digits each, the smallest ``MAX_BLOBS`` in order."""
    return "".join(f"{h:016x}" for h in sorted(set(hashes))[:MAX_BLOBS])


def unpack(name: str, packed: Sequence[str | None]) -> tuple[npt.NDArray[np.void], npt.NDArray[np.bool_]]:
    """The records of one member, zeros where it is absent; and false where it is malformed."""
    length, dtype = LENGTHS[name], PARTS[name]
    fits = [p is not None and len(p) == length for p in packed]
    blank = "A" * length
    joined = "".join(p if ok and p is not None else blank for p, ok in zip(packed, fits, strict=True))
    digits = _DIGITS[np.frombuffer(joined.encode("ascii", "replace"), np.uint8)].reshape(len(packed), length // 4, 4)
    good = (digits < 64).all(axis=(1, 2))
    d = digits.astype(np.uint32)
    triples = d[..., 0] << 18 | d[..., 1] << 12 | d[..., 2] << 6 | d[..., 3]
    raw = np.stack([triples >> 16 & 255, triples >> 8 & 255, triples & 255], axis=-1).astype(np.uint8)
    records = np.ascontiguousarray(raw.reshape(len(packed), length // 4 * 3)).view(dtype).reshape(len(packed))
    absent = np.array([p is None for p in packed], bool)
    good &= np.array(fits, bool) | absent
    if name == "form":
        good &= records["script"] < len(SCRIPTS)
        good &= records["lexicon"] < 1 << len(LEXICON_FLAGS)
        good &= records["texts"] < 8
        good &= (records["chars"] < 1 << 31).all(axis=1)
    elif name == "ids":
        good &= records["n_tools"] < 1 << 31
    elif name == "corpus":
        good &= (records["corpus"] != 0) == (records["item"] != 0)
    records[~good] = np.zeros(1, dtype)[0]
    return records, good


def unpack_blobs(packed: Sequence[str | None]) -> tuple[U64Array, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """All hashes one row after another, how many each row has (0 also where absent), and false where malformed."""
    fits = np.array([p is None or (len(p) % 16 == 0 and len(p) <= 16 * MAX_BLOBS) for p in packed], bool)
    kept = [p if p is not None and ok else "" for p, ok in zip(packed, fits, strict=True)]
    counts = np.array([len(p) // 16 for p in kept], np.int64)
    digits = _HEX[np.frombuffer("".join(kept).encode("ascii", "replace"), np.uint8)].reshape(-1, 16)
    good = (digits < 16).all(axis=1)
    values = np.zeros(len(digits), np.uint64)
    for i in range(16):
        values = values << np.uint64(4) | digits[:, i].astype(np.uint64)
    good &= values != 0
    owner = np.repeat(np.arange(len(packed)), counts)
    fits[owner[~good]] = False
    keep = fits[owner]
    counts[~fits] = 0
    return values[keep], counts, fits


def clean(sketch: object) -> dict[str, Any] | None:
    """A sketch object with nothing in it but what the format allows; None: it is none of ours.

    For a gateway that passes on the sketch that another one made: no text may travel in unknown members.
    """
    if not isinstance(sketch, Mapping) or sketch.get("v") != WIRE_VERSION or isinstance(sketch.get("v"), bool):
        return None
    kept = _section(sketch)
    if kept is None:
        return None
    for name in ("form", "corpus", "generator"):
        value = sketch.get(name)
        if isinstance(value, str) and unpack(name, [value])[1][0]:
            kept[name] = value
    following = _section(sketch["next"]) if isinstance(sketch.get("next"), Mapping) else None
    return {"v": WIRE_VERSION, **kept, **({"next": following} if following else {})}


def _section(part: Mapping[str, Any]) -> dict[str, Any] | None:
    key_id = part.get("key_id")
    if not isinstance(key_id, str) or not 1 <= len(key_id) <= 64:
        return None
    kept: dict[str, Any] = {"key_id": key_id}
    for name in ("text", "ids"):
        value = part.get(name)
        if isinstance(value, str) and unpack(name, [value])[1][0]:
            kept[name] = value
    blobs = part.get("blobs")
    if isinstance(blobs, str) and unpack_blobs([blobs])[2][0]:
        kept["blobs"] = blobs
    return kept


assert {name: 4 * len(np.zeros(1, dtype).tobytes()) // 3 for name, dtype in PARTS.items()} == LENGTHS
