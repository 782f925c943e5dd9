"""The kernel's HMAC against Python's, and what it makes even against what the one-by-one way does."""

from __future__ import annotations

import hashlib
import hmac
import random

import numpy as np
import pytest

from monitor.sketch import Keyring
from monitor.sketch.identifier_rows import AS_IT_IS, hash_rows
from monitor.sketch.identifiers import IdentifierHasher
from monitor.sketch.sha import key_states
from monitor.sketch.sha_lanes import LANES
from monitor.sketch.sketcher import texts_of

KINDS = ("ip", "net", "country", "contact", "client", "client_name", "ja4", "conversation", "tools", "asn", "blobs")
ODD = (
    "",
    " ",
    " a",
    "a ",
    "é",
    "aéb",
    "A@B.com.",
    "a@b",
    "X.",
    "\x1fa",
    "a\x1f1.0",
    "::1",
    "::ffff:1.2.3.4",
    "01.2.3.4",
    "1.2.3",
    "1.2.3.4",
    "1.2.3.4 ",
    "1.2.3.4.5",
    "255.255.255.255",
    "256.1.1.1",
    "0.0.0.0",
    "1..2.3",
    "İx",
    "ß",
    "\u3000a",
    "a\x00b",
)


@pytest.mark.parametrize("size", [1, 3, 54, 55, 56, 57, 63, 64, 65, 118, 119, 120, 121, 127, 128, 129, 1000])
def test_hmac_is_pythons(size: int) -> None:
    secret, head = bytes(range(32)), b"k\0"
    text = "".join(chr(33 + (7 * i + size) % 90) for i in range(size))
    values = texts_of([text])
    assert values is not None
    out, done = np.zeros(1, np.uint64), np.zeros(1, np.uint8)
    message = np.frombuffer(bytearray(head + bytes(size + 4)), np.uint8)
    hash_rows(values.data, values.offsets, AS_IT_IS, message, len(head), *key_states(secret), out, done)
    expected = int.from_bytes(hmac.digest(secret, head + text.encode(), hashlib.sha256)[:8], "little")
    assert done[0] == 1
    assert int(out[0]) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_many_are_as_one_by_one(kind: str) -> None:
    rng = random.Random(7)
    made = ["".join(rng.choice("abcXYZ09.@_- é") for _ in range(rng.randrange(130))) for _ in range(500)]
    made += [".".join(str(rng.choice([0, 7, 10, 99, 255, 256, 300])) for _ in range(4)) for _ in range(200)]
    values = [*ODD, *made]
    hasher = IdentifierHasher(Keyring.from_seed(1))
    texts = texts_of(values)
    assert texts is not None
    assert hasher.many(kind, texts, 0).tolist() == [hasher.one(kind, value, 0) for value in values]


@pytest.mark.parametrize("count", [1, LANES - 1, LANES, LANES + 1, 3 * LANES + 5])
def test_rows_of_all_lengths_are_pythons_wherever_they_stand(count: int) -> None:
    rng = random.Random(count)
    secret, head = rng.randbytes(32), b"kind\0"
    made = ["".join(chr(rng.randrange(33, 127)) for _ in range(rng.choice([0, 1, 8, 36, 50, 51, 60, 200])))
            for _ in range(count)]  # fmt: skip
    values = texts_of(made)
    assert values is not None
    out, done = np.zeros(count, np.uint64), np.zeros(count, np.uint8)
    message = np.frombuffer(bytearray(head + bytes(204)), np.uint8)
    hash_rows(values.data, values.offsets, AS_IT_IS, message, len(head), *key_states(secret), out, done)
    expected = [hmac.digest(secret, head + text.encode(), hashlib.sha256)[:8] if text else bytes(8) for text in made]
    assert out.tolist() == [int.from_bytes(digest, "little") for digest in expected]
