"""SipHash against the paper and a plain implementation; keys, rotation, identifiers."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import numpy as np
import pytest

from monitor.errors import BadInput
from monitor.siphash import sip_bytes, sip_words, siphash_reference
from monitor.sketch import Key, Keyring
from monitor.sketch.identifiers import MAX_CACHED, IdentifierHasher, client_of, tools_of

KEY = bytes(range(16))
K0, K1 = (np.uint64(int.from_bytes(KEY[i : i + 8], "little")) for i in (0, 8))
DAY = 86_400_000


def array(data: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(data), np.uint8)


def test_reference_gives_the_papers_vectors_for_2_4() -> None:
    # Appendix A of the paper (15 bytes), and the first of the reference implementation's list (no byte).
    assert siphash_reference(KEY, bytes(range(15)), 2, 4) == 0xA129CA6149BE45E5
    assert siphash_reference(KEY, b"", 2, 4) == 0x726FDB47DD0E0E31


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 9, 15, 16, 63, 255, 256, 257, 1000])
def test_kernel_is_siphash_1_3(size: int) -> None:
    data = bytes(i * 7 & 255 for i in range(size))
    assert int(sip_bytes(K0, K1, array(b"xy" + data + b"z"), 2, 2 + size)) == siphash_reference(KEY, data)
    words = np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert int(sip_words(K0, K1, words, 0, size)) == siphash_reference(KEY, words.astype("<u8").tobytes())


def ring(*begins: int | None, overlap_days: float = 30) -> Keyring:
    return Keyring([Key(f"k{i}", bytes([i]) * 32, b) for i, b in enumerate(begins)], int(overlap_days * DAY))


def test_key_of_a_time_older_stays_for_one_overlap_then_newer_takes_over() -> None:
    main, following = ring(None, 100 * DAY).slots_at(np.array([0, 100 * DAY - 1, 100 * DAY, 130 * DAY - 1, 130 * DAY]))
    assert main.tolist() == [0, 0, 0, 0, 1]
    assert following.tolist() == [-1, -1, 1, 1, -1]


def test_rotations_within_one_overlap_keep_the_oldest_live_key() -> None:
    main, following = ring(None, 100 * DAY, 110 * DAY).slots_at(np.array([105, 115, 131, 145]) * DAY)
    assert main.tolist() == [0, 0, 1, 2]
    assert following.tolist() == [1, 2, 2, -1]


def test_event_before_every_key_uses_the_first() -> None:
    main, following = ring(100 * DAY, 200 * DAY).slots_at(np.array([0]))
    assert (main.tolist(), following.tolist()) == ([0], [-1])


def test_all_problems_of_a_ring_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        Keyring([Key("a", b"short"), Key("a", b"x" * 32), Key("b c", b"y" * 32, 5)])
    text = str(caught.value)
    for part in ("5 bytes", "occurs twice", "'b c'", "same `from`"):
        assert part in text
    assert "short" not in text.replace("shorter", "")
    with pytest.raises(BadInput, match="no key"):
        Keyring([])


def test_keys_from_settings_and_files(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("z" * 32 + "\n")
    given = [
        {"id": "old", "secret": "y" * 32},
        {"id": "new", "secret_file": str(tmp_path / "s"), "from": "2026-01-01T00:00:00Z"},
    ]
    a = Keyring.from_settings(given, overlap_days=2)
    assert [(k.id, k.secret, k.from_ms) for k in a.keys] == [
        ("old", b"y" * 32, None),
        ("new", b"z" * 32, 1_767_225_600_000),
    ]
    assert a.overlap_ms == 2 * DAY
    (tmp_path / "k.json").write_text(json.dumps({"keys": given, "overlap_days": 2}))
    (tmp_path / "k.toml").write_text(
        'overlap_days = 2\n[[keys]]\nid = "old"\nsecret = "' + "y" * 32 + '"\n[[keys]]\nid = "new"\n'
        'secret_file = "s"\nfrom = 2026-01-01T00:00:00Z\n'
    )
    for name in ("k.json", "k.toml"):
        assert Keyring.from_file(tmp_path / name).keys == a.keys
    assert Keyring.from_file(tmp_path / "s").keys == (Key("k1", b"z" * 32),)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ('{"keys": [{"id": "a"}, {"id": 3}]}', "secret_file"),
        ('{"keys": [{"id": "a", "secret": "%s", "from": "2026-01-01T00:00:00"}]}' % ("y" * 32), "zone"),
        ('{"keys": [{"id": "a", "secret_file": "missing"}]}', "can't be read"),
        ('{"keys": 3}', "list"),
        ('{"keys": [', "syntax"),
        ("tooshort", "16"),
    ],
)
def test_bad_key_files_say_what_to_do_and_quote_no_secret(tmp_path: Path, body: str, part: str) -> None:
    (tmp_path / "k").write_text(body)
    with pytest.raises(BadInput) as caught:
        Keyring.from_file(tmp_path / "k")
    assert part in str(caught.value)
    assert "yyyy" not in str(caught.value)
    assert "tooshort" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    assert "secret-secret" not in repr(Keyring.from_secret(b"secret-secret-secret")) + repr(Key("k", b"secret-secret"))


def test_identifiers_are_hmac_sha256_under_a_derived_key() -> None:
    keyring = Keyring.from_secret(b"s" * 32)
    derived = hmac.digest(b"s" * 32, b"monitor sketch v1 identifiers", hashlib.sha256)
    expected = int.from_bytes(hmac.digest(derived, b"ja4\0t13d", hashlib.sha256)[:8], "little")
    assert IdentifierHasher(keyring).one("ja4", "t13d", 0) == expected


def test_identifiers_are_normalised() -> None:
    one = IdentifierHasher(Keyring.from_seed(1)).one
    assert one("contact", "Info@Example.COM.", 0) == one("contact", "example.com", 0) != 0
    assert one("country", "de", 0) == one("country", " DE", 0)
    assert one("ip", "::ffff:10.1.2.3", 0) == one("ip", "10.1.2.3", 0) != one("ip", "10.1.2.4", 0)
    assert one("net", "10.1.2.3", 0) == one("net", "10.1.2.250", 0) != one("net", "10.1.3.3", 0)
    assert one("net", "2001:db8:1:2::1", 0) == one("net", "2001:db8:1:ffff::9", 0) != one("net", "2001:db8:2::1", 0)
    assert one("ip", "10.1.2.3", 0) != one("net", "10.1.2.3", 0)
    for bad in ("10.1.2", "300.1.1.1", "", "localhost", "10.1.2.3/24"):
        assert one("ip", bad, 0) == one("net", bad, 0) == 0
    assert one("ja4", "  ", 0) == 0
    assert one("user_agent", "X", 0) != one("user_agent", "x", 0)


def test_compound_identifiers() -> None:
    one = IdentifierHasher(Keyring.from_seed(1)).one
    assert tools_of(["b", "a", "b"]) == tools_of(["a", "b"]) != tools_of(["ab"])
    values = [client_of("Acme", "1.2", None), client_of(None, None, "acme/1.2 (x)"), client_of("acme", "1.2", "y/3")]
    assert len({one("client", v or "", 0) for v in values}) == 1
    assert client_of(None, "1.2", None) is None
    assert client_of(" ", None, " ") is None


def test_cache_of_identifiers_is_bounded() -> None:
    hasher = IdentifierHasher(Keyring.from_seed(1))
    before = hasher.one("ja4", "x", 0)
    hasher._caches[0, "ja4"] = dict.fromkeys((str(i) for i in range(MAX_CACHED)), 1)
    hasher.one("ja4", "new", 0)
    assert len(hasher._caches[0, "ja4"]) == 1
    assert hasher.one("ja4", "x", 0) == before
