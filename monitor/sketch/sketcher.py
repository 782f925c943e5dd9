"""Sketches of texts and of whole events, with numpy and numba alone: what a gateway imports. Knows no frame.

``Sketcher.sketch_one(event)`` takes an event of the request log and gives it back without a string that the client
chose: the texts, the address and the other strings become the ``sketch`` object of :mod:`monitor.sketch.wire`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.fields import FIELDS, ID_LENGTH, TABLES, TIME_MAX_S, TIME_MIN_S, Field, Kind, spelling
from monitor.siphash import U8Array, U64Array

from . import wire
from .corpora import Corpora, CorpusKey
from .generators import Generators, builtin
from .identifiers import IdentifierHasher, client_of, tools_of
from .kernel import CORPUS, PRINTS, SCALARS, SIM, Sketched, Texts, grams, sketch, texts_of
from .keyring import Keyring
from .lexicon import Tables, build
from .residual import NO_GRAMS, HeavyGrams, HeavyPlan
from .scan import K_CHAIN, K_MUL0, KEY_WORDS
from .vocabulary import SEALED_IDS, SHAPE_NAMES, TEXT_HASHES, WIRE_VERSION

_LONE = re.compile("[\ud800-\udfff]")
_DIRECT: Final[Mapping[str, str]] = {
    "batch_id": "batch_key", "conversation_id": "conversation", "end_user_id": "end_user",
    "tool_schema_fp": "tool_schema", "ip": "ip", "country": "country", "user_agent": "user_agent",
    "client_name": "client_name", "ja4": "ja4", "payment_fp": "payment", "referral_fp": "referral",
    "contact_domain": "contact",
}  # fmt: skip
"""Contract fields that one identifier is the hash of, by column; the compound ones are made by hand."""


@dataclass
class TextSketches:
    """What the kernel made of a batch, one row each; zeros where there is no text (see ``vocabulary``).

    ``hashes`` (n, 7), ``minhash`` (n, 64), ``shape`` (n, 24); ``residual`` (n, 24) and ``residual_share`` (n) are the
    shape without heavy grams and the share (of 255) of the words that are left, and None where none were given.
    ``corpus`` (n) are the bits of the known corpora that a prompt is an item of, and ``corpus_item`` (n) the item's
    keyed hash, 0 for none; both None where no corpus is known. ``generator`` (n) are the bits of generator families
    whose signature the prompt or the system prompt has.
    """

    hashes: U64Array
    minhash: U8Array
    shape: U8Array
    lexicon: npt.NDArray[np.uint32]
    script: U8Array
    generator: npt.NDArray[np.uint32]
    residual: U8Array | None = None
    residual_share: U8Array | None = None
    corpus: npt.NDArray[np.uint32] | None = None
    corpus_item: U64Array | None = None


class Sketcher:
    """Makes sketches under the keys of ``keyring``. One instance may serve several threads' calls one at a time.

    ``corpora`` may be set anew between two calls.
    """

    def __init__(self, keyring: Keyring, corpora: Corpora | None = None, generators: Generators | None = None):
        self.keyring = keyring
        self.generators = generators or builtin()
        self.corpora = corpora or Corpora.of(CorpusKey.of(keyring))
        self.identifiers = IdentifierHasher(keyring)
        self._words: dict[int, U64Array] = {}
        self._tables: dict[int, Tables] = {}

    def text_keys(self, slot: int) -> U64Array:
        """The derived key words of the kernels; the multipliers among them are odd."""
        if slot not in self._words:
            key = self.keyring.keys[slot]
            words = np.concatenate([key.words(f"text {i}", 4) for i in range((KEY_WORDS + 3) // 4)])[:KEY_WORDS]
            words[K_MUL0 : K_CHAIN + 1] |= np.uint64(1)
            self._words[slot] = np.maximum(words, np.uint64(1))
        return self._words[slot]

    def tables(self, slot: int) -> Tables:
        """Word and phrase lists under the key in ``slot`` (0.2 s the first time)."""
        if slot not in self._tables:
            self._tables[slot] = build(self.text_keys(slot), self.generators.phrases)
        return self._tables[slot]

    def sketch_texts(
        self,
        prompt: Texts | None,
        system: Texts | None,
        slots: npt.NDArray[np.int64],
        heavy: HeavyGrams | HeavyPlan | None = None,
        *,
        want: int = PRINTS | SCALARS | CORPUS,
    ) -> TextSketches:
        """Everything of prompts and system prompts, row ``i`` under the key in ``slots[i]`` (-1: leave the row).

        With a plan, rows without a table have zeros as ``residual`` and ``residual_share``.
        """
        n = len(slots)
        made = TextSketches(
            np.zeros((n, len(TEXT_HASHES)), np.uint64), np.zeros((n, 64), np.uint8),
            np.zeros((n, len(SHAPE_NAMES)), np.uint8), np.zeros(n, np.uint32), np.zeros(n, np.uint8),
            np.zeros(n, np.uint32),
        )  # fmt: skip
        if heavy is not None:
            made.residual, made.residual_share = np.zeros_like(made.shape), np.zeros(n, np.uint8)
        known = self.corpora.filters if want & CORPUS and len(self.corpora) else None
        if known is not None:
            made.corpus, made.corpus_item = np.zeros(n, np.uint32), np.zeros(n, np.uint64)
        for slot in np.unique(slots[slots >= 0]).tolist():
            chosen = (slots == slot).astype(np.uint8)
            keys, tables = self.text_keys(slot), self.tables(slot)
            if prompt is not None:
                for low, high, rows, subtract in self._shares(prompt.valid & chosen, heavy, slot):
                    part = prompt if high - low == n else Texts(
                        prompt.data, prompt.offsets[low : high + 1], prompt.valid[low:high]
                    )  # fmt: skip
                    _put(made, low, rows, sketch(part, rows, want, keys, tables, subtract, known))
            if system is not None:
                one = sketch(system, system.valid & chosen, want & ~PRINTS, keys, tables, None)
                made.hashes[:, 4:6] |= one.hashes[:, :2]
                made.lexicon |= one.lexicon
        made.lexicon, made.generator = self.generators.split(made.lexicon)
        return made

    def _shares(
        self, rows: U8Array, heavy: HeavyGrams | HeavyPlan | None, slot: int
    ) -> Iterator[tuple[int, int, U8Array, U64Array | None]]:
        """Ranges of rows, which rows there, and the grams to subtract from them: one for each table."""
        if not isinstance(heavy, HeavyPlan):
            grams: U64Array | None = None
            if heavy is not None:
                grams = heavy.hashes if self.keyring.slot(heavy.key_id) == slot else NO_GRAMS
            yield 0, len(rows), rows, grams
            return
        for number in np.unique(heavy.row_table[rows == 1]).tolist():
            mine = rows & (heavy.row_table == number)
            at = np.flatnonzero(mine)
            low, high = int(at[0]), int(at[-1]) + 1
            yield low, high, mine[low:high], heavy.tables[number].hashes if number >= 0 else None

    def grams(self, texts: Texts, slot: int) -> tuple[npt.NDArray[np.int32], U64Array]:
        """Every 4-word gram of each text, and its first and last three words as such, once a text: (row, keyed hash),
        by row. What heavy grams are counted from.

        Transient: they must not be kept by request.
        """
        return grams(texts, self.text_keys(slot))

    def sketch_one(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """``event`` (contract 1, text included) as an event with ``sketch`` and without any string of the client.

        Members outside the contract and values of a wrong type are left out: they might carry text. Never raises on
        what an event holds.
        """
        return self.sketch_many([event])[0]

    def sketch_many(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """:meth:`sketch_one` of each, with one call of the kernel for all: about ten times faster."""
        main, following = self.keyring.slots_at(np.array([_time_ms(e) for e in events], np.int64))
        read = [{name: _string(e, name) for name in ("prompt", "system", "response")} for e in events]
        for event, texts in zip(events, read, strict=True):
            policy = event.get("content_policy")
            word = "full" if policy is None else spelling("content_policy", policy) if isinstance(policy, str) else ""
            has_sketch = isinstance(event.get("sketch"), Mapping)
            if word not in ("full", "sketch") or (word == "sketch" and has_sketch):
                texts.update(prompt=None, system=None, response=None)
        prompt, system = (texts_of([t[name] for t in read]) for name in ("prompt", "system"))
        first = self.sketch_texts(prompt, system, main)
        second = self.sketch_texts(prompt, system, following, want=PRINTS) if (following >= 0).any() else None
        key = np.frombuffer(self.corpora.check, np.uint8)
        result = []
        for i, (event, texts) in enumerate(zip(events, read, strict=True)):
            kept = _kept(event)
            sketch: dict[str, Any] = {"v": WIRE_VERSION, "key_id": self.keyring.keys[main[i]].id}
            if any(text is not None for text in texts.values()):
                sketch["form"] = wire.pack(_form(first, i, texts))
            if texts["prompt"] is not None or texts["system"] is not None:
                families = np.zeros((), wire.GENERATOR)
                families["bits"] = np.frombuffer(int(first.generator[i]).to_bytes(3, "little"), np.uint8)
                sketch["generator"] = wire.pack(families)
            if texts["prompt"] is not None and first.corpus is not None and first.corpus_item is not None:
                hit = np.zeros((), wire.CORPUS)
                hit["key"], hit["corpus"], hit["item"] = key, first.corpus[i], first.corpus_item[i]
                sketch["corpus"] = wire.pack(hit)
            sketch |= self._sealed(event, texts, first, i, int(main[i]))
            if second is not None and following[i] >= 0:
                slot = int(following[i])
                section = self._sealed(event, texts, second, i, slot)
                sketch["next"] = {"key_id": self.keyring.keys[slot].id, **section}
            earlier = wire.clean(event.get("sketch")) if _policy_allows(event) else None
            if len(sketch.keys() - {"next"}) > 2 and earlier is not None:
                sketch = _overlay(earlier, sketch)
            elif earlier is not None:
                sketch = earlier
            if len(sketch.keys() - {"next"}) > 2:
                kept["sketch"] = sketch
                if not _policy_allows(event):
                    # The decoder drops a sketch where no content may be looked at; this one holds identifiers alone.
                    kept["content_policy"] = "sketch"
            result.append(kept)
        return result

    def _sealed(
        self, event: Mapping[str, Any], texts: Mapping[str, str | None], made: TextSketches, i: int, slot: int
    ) -> dict[str, Any]:
        """The members that depend on the key."""
        sealed: dict[str, Any] = {}
        if texts["prompt"] is not None or texts["system"] is not None:
            text = np.zeros((), wire.TEXT)
            text["hashes"], text["minhash"] = made.hashes[i], made.minhash[i]
            sealed["text"] = wire.pack(text)
        ids = np.zeros((), wire.IDS)
        for column, value in _values(event).items():
            ids["ids"][SEALED_IDS.index(column)] = self.identifiers.one(column, value, slot)
        tools = _strings(event, "tools")
        if tools is not None:
            ids["n_tools"] = len(tools) + 1
        if ids["n_tools"] or ids["ids"].any():
            sealed["ids"] = wire.pack(ids)
        blobs = _strings(event, "reasoning_blob_fp")
        if blobs is not None:
            hashes = (self.identifiers.one("blobs", b, slot) for b in blobs)
            sealed["blobs"] = wire.pack_blobs([h for h in hashes if h])
        return sealed


def _put(made: TextSketches, low: int, rows: U8Array, one: Sketched) -> None:
    """The ``rows`` of ``one``, which begin at ``low``, into the batch."""
    own = np.flatnonzero(rows)
    at = own + low
    made.hashes[at, :4], made.hashes[at, 6] = one.hashes[own, :4], one.hashes[own, SIM]
    made.minhash[at], made.shape[at] = one.minhash[own], one.shape[own]
    made.lexicon[at], made.script[at] = one.lexicon[own], one.script[own]
    if made.residual is not None and made.residual_share is not None and len(one.residual):
        made.residual[at], made.residual_share[at] = one.residual[own], one.residual_share[own]
    if made.corpus is not None and made.corpus_item is not None:
        made.corpus[at], made.corpus_item[at] = one.corpus[own], one.corpus_item[own]


def _form(made: TextSketches, i: int, texts: Mapping[str, str | None]) -> npt.NDArray[np.void]:
    form = np.zeros((), wire.FORM)
    form["shape"], form["lexicon"], form["script"] = made.shape[i], made.lexicon[i], made.script[i]
    for bit, name in enumerate(("prompt", "system", "response")):
        text = texts[name]
        if text is not None:
            form["texts"] |= 1 << bit
            form["chars"][bit] = min(len(text), 2**31 - 1)
    return form


def _overlay(earlier: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The sketch of an earlier gateway with what this one knows: only under the same key can the two be one."""
    if earlier["key_id"] != new["key_id"]:
        return new if "text" in new else earlier
    merged = {**earlier, **{name: value for name, value in new.items() if name != "next"}}
    if "ids" in earlier and "ids" in new:
        (old, fresh), _ = wire.unpack("ids", [earlier["ids"], new["ids"]])
        fresh = fresh.copy()
        fresh["ids"] = np.where(fresh["ids"] == 0, old["ids"], fresh["ids"])
        fresh["n_tools"] = fresh["n_tools"] or old["n_tools"]
        merged["ids"] = wire.pack(fresh)
    if "next" in earlier and "next" in new:
        merged["next"] = {**earlier["next"], **new["next"]}
    return merged


def _policy_allows(event: Mapping[str, Any]) -> bool:
    policy = event.get("content_policy")
    return policy is None or (isinstance(policy, str) and spelling("content_policy", policy) in ("full", "sketch"))


def _values(event: Mapping[str, Any]) -> dict[str, str]:
    """The strings that identifiers are the hashes of, by column."""
    found = {column: _string(event, name) for name, column in _DIRECT.items()}
    found["net"] = found["ip"]
    found["client"] = client_of(
        _string(event, "client_name"), _string(event, "client_version"), _string(event, "user_agent")
    )
    tools, asn = _strings(event, "tools"), _kind_of(FIELDS["asn"], event.get("asn"))
    found["tools"] = tools_of(tools) if tools else None
    found["asn"] = None if asn is None else str(int(asn))
    return {column: value for column, value in found.items() if value is not None}


def _kept(event: Mapping[str, Any]) -> dict[str, Any]:
    """The members of the provider's, each of the right type."""
    kept = {}
    for name, field in FIELDS.items():
        value = event.get(name)
        if value is None or field.client_chosen or field.is_text:
            continue
        if field.kind is Kind.CODE and isinstance(value, str):
            word = spelling(name, value)
            value = word if word in TABLES[name] else "other"
        elif name == "content_policy":
            value = "other"  # a policy that can't be read does not allow everything
        else:
            value = _kind_of(field, value)
        if value is not None:
            kept[name] = value
    return kept


def _kind_of(field: Field, value: object) -> Any:
    """``value`` if the decoder would take it for ``field``, else None."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match field.kind:
        case Kind.TIME:
            good = number or (isinstance(value, str) and len(value) <= 64)
        case Kind.ID | Kind.STRING:
            good = isinstance(value, str) and (len(value) <= ID_LENGTH or field.client_chosen)
        case Kind.INTEGER:
            good = number and value == value and float(value).is_integer() and field.low <= value <= field.high  # type: ignore[operator, arg-type]  # a number, see above
        case Kind.NUMBER:
            good = number and field.low <= value <= field.high  # type: ignore[operator]  # a number, see above
        case Kind.BOOLEAN:
            good = isinstance(value, bool)
        case Kind.STRINGS:
            good = isinstance(value, list) and all(isinstance(v, str) and len(v) <= ID_LENGTH for v in value)
        case _:
            good = False
    return value if good else None


def _string(event: Mapping[str, Any], name: str) -> str | None:
    value = event.get(name)
    return _LONE.sub("\ufffd", value) if isinstance(value, str) else None


def _strings(event: Mapping[str, Any], name: str) -> list[str] | None:
    value = event.get(name)
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        return None
    return [_LONE.sub("\ufffd", v) for v in value]


def _time_ms(event: Mapping[str, Any]) -> int:
    """Event time: ``completed_at``, else ``ts``, as the decoder reads them; 0 where neither can be read."""
    for name in ("completed_at", "ts"):
        value = event.get(name)
        if isinstance(value, str):
            try:
                when = datetime.fromisoformat(value)
            except ValueError:
                continue
            value = when.timestamp() if when.tzinfo is not None else None
        if isinstance(value, int | float) and not isinstance(value, bool) and TIME_MIN_S <= value <= TIME_MAX_S:
            return round(value * 1000)
    return 0
