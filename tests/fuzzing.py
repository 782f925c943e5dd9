"""Mutated settings, rules and HTTP requests, and what must hold for each: an answer in words or in HTTP, in time.

Each ``*_once`` makes one from a seeded generator and checks it; it returns a word for what came of it, for counting.
Anything but the answers named here is a failure: another exception, an answer that is not HTTP, more than ``SLOW_S``.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from monitor import wiring
from monitor.errors import BadInput
from monitor.features.catalogue import CLIENT_CLASSES
from monitor.features.vocabulary import CATALOGUE
from monitor.records import ROW_KEYS
from monitor.rules import HoldState, load_rules
from monitor.settings import load_settings

SLOW_S = 60.0
"""A file or request that takes longer hangs. Generous: other work may have the processor."""
ODD = [
    "null", "~", "true", "-1", "0", "1e400", "-1e-400", ".nan", ".inf", "9223372036854775808", "1_000", "0x1f", "0o17",
    "''", "' '", '"\\0"', '"\\ud800"', "\u202e", "\x00", "[]", "{}", "[[[]]]", "{a: {b: {c: {}}}}",
    "!!python/name:os.system",
    "!!binary aGk=", "*a", "&a [*a]", "<<: *b", "2026-02-30", "12:30:00", "'''", '"', "|", ">", "- -", "? x", "%YAML 9",
    "---", "...", "9" * 400, "é" * 300, "a" * 70_000, "../../etc/passwd", "/dev/zero", "/proc/self/mem", "redis://[::1",
    "[" * 300, "{" * 300 + "}" * 300, "x: " * 50,
]  # fmt: skip
CEL = [
    "&&", "||", "!", "==", "!=", "<", ">=", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", "?", ":", ",", ".",
    "in", "true", "null", "1", "0", "-1", "1.5", "1e400", "9223372036854775808", "'a'", '"', "'", "\\", "size(", "has(",
    "params.x", "params.", "lists.y", "requests_1h", "requests_24h / requests_1h", "client_class",
    "client_class == 'new'",
    "template_top_share_24h", "matches(", "a.b.c.d", "(" * 200, "!" * 500, "1+" * 400 + "1", "\u202e", "\x00",
]  # fmt: skip


def bomb(rng: random.Random) -> str:
    """Aliases that would unfold to 10^9 values."""
    names = "abcdefghi"
    lines = [f"{names[0]}: &{names[0]} [{','.join(['x'] * 10)}]"]
    lines += [f"{n}: &{n} [{','.join([f'*{m}'] * 10)}]" for m, n in pairwise(names)]
    return "\n".join(lines[: rng.randrange(2, 10)])


def mutated(rng: random.Random, text: str) -> bytes:
    """A YAML text with one to six things done to it."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        i = rng.randrange(len(lines))
        line, draw = lines[i], rng.randrange(12)
        key, colon, _value = line.partition(":")
        if draw <= 3 and colon:
            lines[i] = f"{key}: {rng.choice(ODD)}"
        elif draw == 4:
            lines[i] = line.replace(key.strip(), rng.choice(ODD)[:50], 1) if key.strip() else rng.choice(ODD)
        elif draw == 5:
            lines.insert(i, lines[rng.randrange(len(lines))])
        elif draw == 6 and len(lines) > 2:
            del lines[i : i + rng.randrange(1, 4)]
            lines = lines or [""]
        elif draw == 7:
            lines[i] = " " * rng.randrange(12) + line.strip()
        elif draw == 8:
            lines[i] = f"{line} {rng.choice(ODD)}"
        elif draw == 9:
            lines.insert(i, "\t" + line)
        elif draw == 10:
            lines.insert(i, bomb(rng))
        else:
            lines[i] = "".join(rng.sample(line, len(line)))
    raw = bytearray("\n".join(lines).encode("utf-8", "surrogatepass"))
    if rng.random() < 0.15:
        for _ in range(rng.randrange(1, 8)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    return bytes(raw[: rng.randrange(len(raw))] if rng.random() < 0.05 and raw else raw)


@contextlib.contextmanager
def in_time(what: bytes | str) -> Iterator[None]:
    """Fails where the block takes long, by the processors' time: beside other work a clock on the wall says little."""
    began = time.process_time()
    yield
    took = time.process_time() - began
    assert took < SLOW_S, f"{took:.0f} s for {what[:300]!r}"


def checked(error: BadInput) -> None:
    """Every problem says where and what."""
    assert error.problems
    for problem in error.problems:
        assert problem.file
        assert problem.message
        assert len(str(problem)) < 4_000, str(problem)[:200]


def settings_once(rng: random.Random, folder: Path, example: str) -> str:
    """A settings file, or an environment: settings, or every problem in words."""
    path = folder / "settings.yaml"
    raw = mutated(rng, example)
    env: dict[str, str] = {}
    if rng.random() < 0.2:
        names = re.findall(r"^  (\w+):", example, re.M)
        sections = re.findall(r"^(\w+):", example, re.M)
        for _ in range(3):
            name = f"MONITOR__{rng.choice(sections)}__{rng.choice(names)}".upper()
            env[name] = rng.choice(ODD).replace("\x00", "")
        raw = example.encode() if rng.random() < 0.5 else raw
    path.write_bytes(raw)
    with in_time(raw):
        try:
            # secrets are files that a setting names: /dev/zero among them must not be read to its end
            load_settings(path, env, read_secrets=rng.random() < 0.3)
        except BadInput as error:
            checked(error)
            return "refused"
    return "accepted"


_KEYS = zip(ROW_KEYS.items(), ("a", 0, 1, 10_000, 1), strict=True)
ROWS = pl.DataFrame(
    {name: pl.Series([value] * 6, dtype=kind) for (name, kind), value in _KEYS}
    | {f.name: pl.Series([0.0, 1.0, None, 1e9, -1.0, 0.5], dtype=pl.Float64) for f in CATALOGUE if f.kind == "float"}
)  # fmt: skip
"""Rows on which a rule that was accepted must be able to say something."""


NAMES = [f.name for f in CATALOGUE if f.kind == "float" and f.scope == "account"]


def number(rng: random.Random, depth: int) -> str:
    """A well-formed expression of a number."""
    if depth <= 0 or rng.random() < 0.4:
        literals = ("0.0", "1.5", "0", "-3", "1e300", "9007199254740993")
        return rng.choice((rng.choice(NAMES), rng.choice(literals)))
    return f"({number(rng, depth - 1)} {rng.choice('+-*/%')} {number(rng, depth - 1)})"


def condition(rng: random.Random, depth: int) -> str:
    """A well-formed condition, if not always one of the right types."""
    draw = rng.randrange(6)
    if depth <= 0 or draw <= 1:
        return f"{number(rng, 2)} {rng.choice(('<', '<=', '>', '>=', '==', '!='))} {number(rng, 2)}"
    a, b = condition(rng, depth - 1), condition(rng, depth - 1)
    if draw == 2:
        return f"!({a})"
    if draw == 3:
        return f"(({a}) ? ({b}) : ({condition(rng, depth - 1)}))"
    return f"({a}) {rng.choice(('&&', '||'))} ({b})"


def rule_once(rng: random.Random, folder: Path, texts: list[str]) -> str:
    """A rule file, mostly its condition: a rule set that can be evaluated, or problems in words."""
    text = rng.choice(texts)
    if rng.random() < 0.6:
        found = re.search(r"^when: *(?:>-\n(?:  .*\n)+|.*\n)", text, re.M)
        assert found, text[:200]
        given = found[0].removeprefix("when:").replace(">-", " ")
        words = re.findall(r"\w+(?:\.\w+)*|'[^']*'|&&|\|\||[<>=!]=|\S", given)
        whole = rng.random() < 0.6
        if whole:
            words += [rng.choice(("&&", "||")), f"({condition(rng, rng.randrange(6))})"]
        for _ in range(0 if whole else rng.choice((1, 1, 2, 4, 8))):
            at = rng.randrange(len(words) + 1)
            words[at : at + rng.choice((0, 1, 1, 2))] = [rng.choice(CEL)]
        raw = text.replace(found[0], f"when: {json.dumps(' '.join(words), ensure_ascii=False)}\n")
        body = raw.encode("utf-8", "surrogatepass")
    else:
        body = mutated(rng, text)
    family, name = (re.findall(rf"^{key}: (\S+)", text, re.M)[0] for key in ("family", "id"))
    path = folder / family / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(body)
    with in_time(body):
        try:
            # most changes of a condition turn one of the rule's own examples red, and would get no further
            rules = load_rules([folder], CATALOGUE, CLIENT_CLASSES, tests=rng.random() < 0.2)
        except BadInput as error:
            checked(error)
            return "refused"
        finally:
            path.unlink()
        rules.evaluate(ROWS, HoldState(10))
    return "accepted"


def rule_texts() -> list[str]:
    """The package's own rules over accounts that need no list, macro or second file."""
    found = [p.read_text() for p in sorted(wiring.packaged_rules().glob("*/*.yaml"))]
    return [t for t in found if "\nwhen:" in t and not any(w in t for w in ("over: campaign", "macro", "lists."))]


@dataclass(frozen=True)
class Target:
    """A server: its address, and requests that it answers well."""

    url: str
    requests: tuple[bytes, ...]


METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"DELETE", b"CONNECT", b"get", b"", b"\x00", b"P" * 5_000]
PATHS = [
    b"/", b"/healthz", b"/metrics", b"/v1/alerts?limit=-1", b"/v1/alerts?limit=" + b"9" * 400, b"/v1/verdict/%00",
    b"/v1/verdict/" + b"%F0%9F%92%A9" * 50, b"/v1/accounts/../../etc", b"/v1/ingest/litellm",
    b"/v1/ingest/" + b"x" * 70,
    b"//", b"/%", b"/%zz", b"*", b"http://other/", b"/" + b"a/" * 3_000, b"/\xff\xfe", b"/?" + b"a=b&" * 2_000,
]  # fmt: skip
HEADERS = [
    b"Content-Length: -1", b"Content-Length: 99999999999999", b"Content-Length: 1e3",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Transfer-Encoding: chunked", b"Content-Encoding: gzip", b"Content-Encoding: zstd", b"Content-Encoding: br",
    b"Authorization: Bearer ", b"Authorization: Bearer \xff\xfe", b"Authorization: Basic eA==", b"Host: \x00", b": x",
    b"x",
    b"Cookie: " + b"a=b;" * 3_000, b"X-" + b"y" * 70_000 + b": z", b"Expect: 100-continue", b"Connection: keep-alive",
    b"Upgrade: h2c", b"Range: bytes=0-,0-,0-", b"Accept: " + b"*/*," * 2_000, b"Content-Type: application/x-protobuf",
    b" folded: line", b"Origin: null", b"Sec-Fetch-Site: cross-site",
]  # fmt: skip


def request(rng: random.Random, target: Target) -> bytes:
    """A good request with one to four things done to it, or bytes that never were one."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(0, 3_000))
    head, _, body = rng.choice(target.requests).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for _ in range(rng.randrange(1, 5)):
        draw = rng.randrange(7)
        if draw == 0:
            lines[0] = b" ".join((rng.choice(METHODS), rng.choice(PATHS), rng.choice((b"HTTP/1.1", b"HTTP/9", b""))))
        elif draw == 1:
            lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(HEADERS))
        elif draw == 2 and len(lines) > 1:
            del lines[rng.randrange(1, len(lines))]
        elif draw == 3:
            lines += [b"X-%d: y" % i for i in range(rng.choice((10, 300)))]
        elif draw == 4:
            half = body[: len(body) // 2]
            body = rng.choice((rng.randbytes(500), b"[" * 5_000, b"{}" * 50, body + body, half, b"\x1f\x8b"))
            if rng.random() < 0.7:
                lines = [x for x in lines if not x.lower().startswith(b"content-length")]
                lines.append(b"Content-Length: %d" % len(body))
        elif draw == 5:
            i = rng.randrange(len(lines))
            flipped = bytearray(lines[i] or b"x")
            flipped[rng.randrange(len(flipped))] = rng.randrange(256)
            lines[i] = bytes(flipped)
        else:
            lines[0] = lines[0].replace(b"/", rng.choice((b"/", b"//", b"\\", b"/%2e%2e/")), 1)
    raw = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return raw[: rng.randrange(len(raw))] if rng.random() < 0.05 else raw


def send(url: str, raw: bytes) -> bytes:
    """The answer, whole, to bytes after which nothing more comes."""
    where = urlsplit(url)
    answer = bytearray()
    with socket.create_connection((where.hostname or "", where.port or 0), SLOW_S) as connection:
        connection.settimeout(SLOW_S)
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                answer += part
        except TimeoutError:
            raise AssertionError(f"no end of the answer to {raw[:300]!r}") from None
        except OSError:
            pass  # it closed before it had read everything: a reset, which may take the answer along
    return bytes(answer)


def http_once(rng: random.Random, target: Target) -> str:
    """A request: an HTTP answer that is no 500, or a closed connection."""
    raw = request(rng, target)
    with in_time(raw):
        answer = send(target.url, raw)
    if not answer:
        return "closed"
    if len(raw.partition(b"\n")[0].split()) == 2:
        return "bare"  # no version: HTTP/0.9, whose answers have neither status nor headers
    status = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    assert status, (raw[:300], answer[:200])
    assert status[1] != b"500", (raw[:300], answer[:300])
    return status[1].decode()


def good(target: Target) -> None:
    """The server still does its work: each good request is answered well."""
    for raw in target.requests:
        answer = send(target.url, raw)
        assert re.match(rb"HTTP/1\.[01] (200|202) ", answer), (raw[:100], answer[:200])


def example_settings() -> str:
    """The file that shows every setting."""
    return (Path(__file__).resolve().parents[1] / "deploy" / "monitor.yaml").read_text("utf-8")


def resident_mb() -> float:
    """Memory of this process now, in 10^6 bytes."""
    status: Any = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6
