"""The sketch step of the pipeline: a decoded frame in, a frame of ``EVENT_SCHEMA`` without any text out.

Everything is done by column: texts go to the kernels as Arrow buffers, identifiers are hashed once a distinct value.
Only the sketch objects of gateways are read one by one, as every JSON object is. Knows nothing of features.

Where a field occurs as it is and in a sketch, the field wins. A sketch under a key that the keyring lacks, and a
malformed one, leave their columns null and are counted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from monitor.arrow import to_arrow
from monitor.jit import njit, warmup
from monitor.records import EVENT_SCHEMA
from monitor.siphash import ZERO, U8Array, U64Array, sip_bytes, sip_words

from . import wire
from .arrow import Bools, array_series, arrow_texts, hash_series, large_texts
from .heavy import HeavyStage
from .identifiers import SEPARATOR, client_of
from .kernel import Texts
from .received import Received, SketchStats, Slots, receive
from .residual import HeavyGrams, HeavyPlan
from .sketcher import Sketcher, TextSketches
from .vocabulary import CHAR_COUNTS, MAX_BLOBS, OPEN_IDS, SEALED_IDS, TEXT_HASHES

RAW_OF: Final[dict[str, str]] = {
    "batch_key": "batch_id", "conversation": "conversation_id", "end_user": "end_user_id",
    "tool_schema": "tool_schema_fp", "ip": "ip", "net": "ip", "country": "country", "user_agent": "user_agent",
    "client_name": "client_name", "ja4": "ja4", "payment": "payment_fp", "referral": "referral_fp",
    "contact": "contact_domain", "marketplace_account": "marketplace_account_id", "reseller": "reseller_of_record",
}  # fmt: skip
"""Keyed column -> the column of the decoded frame whose values it is the hash of; the compound ones are below."""
KEYED: Final = (*SEALED_IDS, *OPEN_IDS, *TEXT_HASHES)
"""Columns that get a ``_next`` beside them while two keys are live, where asked for; and ``blobs``."""


def sketch_frame(
    frame: pl.DataFrame,
    sketcher: Sketcher,
    heavy: HeavyGrams | HeavyStage | None = None,
    *,
    entity: str = "account",
    both: bool = False,
) -> tuple[pl.DataFrame, SketchStats]:
    """``frame`` (``Decoded.frame``) as the columns of ``EVENT_SCHEMA``, in that order, rows in the same order.

    With ``heavy``, ``residual`` (as ``shape``, of the text without heavy grams) and ``residual_share`` (words left, of
    255) are known where a table is; both null for requests that came as sketches: their text is gone. A stage plans
    this batch, and whoever takes the events in tells it (``HeavyStage.commit``).
    With ``both``, ``<column>_next`` of each keyed column follow: the same under the newer key where two are live at the
    event's time, else null.
    ``entity`` is decode's: for ``account+end_user`` the subject is the account, ``:`` and the end user's keyed hash in
    16 hex digits; the account alone where no end user, or none of the entity's ids, is known.
    """
    rows = frame.height
    t_ms = frame.get_column("t_ms").to_numpy()
    main, following = sketcher.keyring.slots_at(t_ms)
    columns: dict[str, pl.Series] = {}
    for name, dtype in EVENT_SCHEMA.items():
        if name in frame.columns and frame.get_column(name).dtype in (dtype, pl.Null):
            columns[name] = frame.get_column(name).cast(dtype)
    prompt, system = _texts(frame, "prompt"), _texts(frame, "system")
    response = frame.get_column("response") if "response" in frame.columns else None
    raw = _any_text(frame, rows)
    received, stats = receive(frame, sketcher.keyring, main)
    stats = replace(stats, rows=rows, texts=int(raw.sum()))
    received.form[raw], received.text[raw] = np.zeros(1, wire.FORM)[0], np.zeros(1, wire.TEXT)[0]

    plan = heavy if not isinstance(heavy, HeavyStage) else heavy.plan(
        frame.get_column("partition").to_numpy(), t_ms, large_texts(frame.get_column("account_id")),
        large_texts(frame.get_column("request_id")), prompt, main,
    )  # fmt: skip
    made = sketcher.sketch_texts(prompt, system, main, plan)
    if made.residual is not None and made.residual_share is not None:
        has = _valid(prompt, rows) & (plan.row_table >= 0 if isinstance(plan, HeavyPlan) else True)
        columns["residual"] = array_series("residual", made.residual, has)
        columns["residual_share"] = pl.Series("residual_share", pa.array(made.residual_share, mask=~has))
    columns |= _text_columns(frame, made, received, prompt, system, response)
    columns |= _known_columns(sketcher, made, received, prompt, system, raw)
    keyed, bad_ip = _identifiers(frame, sketcher, main, received)
    columns |= keyed
    columns["n_tools"] = _n_tools(frame, received)
    columns |= _row_keys(frame, sketcher)
    columns["subject"] = _subject(frame, columns["end_user"], entity)
    out = [
        columns[name].alias(name) if name in columns else pl.Series(name, [None] * rows, dtype=dtype)
        for name, dtype in EVENT_SCHEMA.items()
    ]
    if both:
        out += _next(frame, sketcher, following, prompt, system, raw)
    return pl.DataFrame(out), replace(stats, invalid_ip=bad_ip)


def _next(
    frame: pl.DataFrame, sketcher: Sketcher, slots: Slots, prompt: Texts | None, system: Texts | None, raw: Bools
) -> list[pl.Series]:
    """The ``_next`` columns: everything keyed once more, under the newer key."""
    received, _ = receive(frame, sketcher.keyring, slots, strict=True)
    received.text[raw] = np.zeros(1, wire.TEXT)[0]
    made = sketcher.sketch_texts(prompt, system, slots)
    columns, _ = _identifiers(frame, sketcher, slots, received)
    hashes = made.hashes | received.text["hashes"]
    columns |= {name: hash_series(name, hashes[:, i]) for i, name in enumerate(TEXT_HASHES)}
    return [columns[name].alias(f"{name}_next") for name in (*KEYED, "blobs")]


def _text_columns(
    frame: pl.DataFrame, made: TextSketches, received: Received, prompt: Texts | None, system: Texts | None,
    response: pl.Series | None,
) -> dict[str, pl.Series]:  # fmt: skip
    rows = frame.height
    texts = received.form["texts"]
    flags = (wire.HAS_PROMPT, wire.HAS_SYSTEM, wire.HAS_RESPONSE)
    own = [_valid(prompt, rows), _valid(system, rows)]
    own.append(np.zeros(rows, bool) if response is None else response.is_not_null().to_numpy())
    has = [here | (texts & flag > 0) for here, flag in zip(own, flags, strict=True)]
    hashes = made.hashes | received.text["hashes"]
    columns = {name: hash_series(name, hashes[:, i]) for i, name in enumerate(TEXT_HASHES)}
    # a prompt without a word has a shape, but nothing that it could be similar to
    columns["minhash"] = array_series("minhash", made.minhash | received.text["minhash"], hashes[:, 1] != 0)
    columns["shape"] = array_series("shape", made.shape | received.form["shape"], has[0])
    lexicon = made.lexicon | received.form["lexicon"]
    columns["lexicon"] = pl.Series("lexicon", pa.array(lexicon, mask=~(has[0] | has[1])))
    columns["script"] = pl.Series("script", pa.array(made.script | received.form["script"], mask=~has[0]))
    for i, name in enumerate(CHAR_COUNTS):
        chars = received.form["chars"][:, i].astype(np.int32)
        field = name.removesuffix("_chars")
        if field in frame.columns:
            lengths = frame.get_column(field).str.len_chars().fill_null(0).to_numpy()
            chars = np.where(own[i], lengths, chars).astype(np.int32)
        columns[name] = pl.Series(name, pa.array(chars, mask=~has[i]))
    return columns


def _known_columns(
    sketcher: Sketcher, made: TextSketches, received: Received, prompt: Texts | None, system: Texts | None, raw: Bools
) -> dict[str, pl.Series]:
    """What texts are known as: null where no corpus is known, or the gateway's are under another key or do not tell."""
    rows = len(raw)
    here = received.has_generator & ~raw
    families = made.generator | np.where(here, received.generator, 0).astype(np.uint32)
    here |= _valid(prompt, rows) | _valid(system, rows)
    told = received.has_corpus & ~raw
    told &= (received.corpus["key"] == np.frombuffer(sketcher.corpora.check, np.uint8)).all(axis=1)
    bits, item = np.where(told, received.corpus["corpus"], 0), np.where(told, received.corpus["item"], 0)
    if made.corpus is not None and made.corpus_item is not None:
        own = _valid(prompt, rows)
        told, bits, item = told | own, bits | made.corpus, item | made.corpus_item
    return {
        "corpus": pl.Series("corpus", pa.array(bits.astype(np.uint32), mask=~told)),
        "corpus_item": hash_series("corpus_item", item.astype(np.uint64)),
        "generator": pl.Series("generator", pa.array(families, mask=~here)),
    }


def _identifiers(
    frame: pl.DataFrame, sketcher: Sketcher, slots: Slots, received: Received
) -> tuple[dict[str, pl.Series], int]:
    rows = frame.height
    columns, bad_ip = {}, 0
    for name in (*SEALED_IDS, *OPEN_IDS):
        values = _raw_values(frame, name)
        hashes = np.zeros(rows, np.uint64) if values is None else _hash(values, name, sketcher, slots)
        if name == "ip" and values is not None:
            bad_ip = int((values.is_not_null().to_numpy() & (hashes == 0) & (slots >= 0)).sum())
        if name in SEALED_IDS:
            column = received.ids["ids"][:, SEALED_IDS.index(name)]
            given = np.zeros(rows, bool) if values is None else values.is_not_null().to_numpy()
            hashes = np.where(given, hashes, column)
        columns[name] = hash_series(name, hashes)
    columns["blobs"] = _blobs(frame, sketcher, slots, received)
    return columns, bad_ip


def _raw_values(frame: pl.DataFrame, name: str) -> pl.Series | None:
    """The strings whose hashes are the column ``name``; None where the log has none."""
    has = frame.columns
    if name == "asn":
        return frame.get_column("asn").cast(pl.String) if "asn" in has else None
    if name == "tools":
        if "tools" not in has:
            return None
        lists = frame.select(pl.col("tools").list.unique().list.sort().list.join(SEPARATOR)).to_series()
        empty = frame.get_column("tools").list.len() == 0
        return lists.set(empty.fill_null(False), None)
    if name == "client":
        parts = [c for c in ("client_name", "client_version", "user_agent") if c in has]
        if not {"client_name", "user_agent"} & set(parts):
            return None
        # by distinct combination, so that Python sees each once
        distinct = frame.select(parts).unique()
        made = [
            client_of(r.get("client_name"), r.get("client_version"), r.get("user_agent"))
            for r in distinct.iter_rows(named=True)
        ]
        table = distinct.with_columns(pl.Series("client", made, dtype=pl.String))
        joined = frame.select(parts).join(table, on=parts, how="left", nulls_equal=True, maintain_order="left")
        return joined.get_column("client")
    raw = RAW_OF[name]
    return frame.get_column(raw) if raw in has else None


def _hash(values: pl.Series, kind: str, sketcher: Sketcher, slots: Slots) -> U64Array:
    """Keyed hashes of ``values`` (0: null, or nothing of that kind), each distinct value hashed once."""
    encoded = to_arrow(values).dictionary_encode()
    distinct = arrow_texts(encoded.dictionary)
    codes = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    out = np.zeros(len(values), np.uint64)
    for slot in np.unique(slots[slots >= 0]).tolist():
        hashes = np.append(sketcher.identifiers.many(kind, distinct, slot), ZERO)
        out = np.where(slots == slot, hashes[codes], out)
    return out


def _blobs(frame: pl.DataFrame, sketcher: Sketcher, slots: Slots, received: Received) -> pl.Series:
    rows = frame.height
    from_sketch = np.repeat(np.arange(rows), received.blob_counts)
    given = np.zeros(rows, bool)
    owners, hashes = from_sketch, received.blobs
    if "reasoning_blob_fp" in frame.columns:
        lists = frame.get_column("reasoning_blob_fp")
        given = lists.is_not_null().to_numpy()
        counts = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        mine = np.repeat(np.arange(rows), counts)
        flat = lists.explode(empty_as_null=False, keep_nulls=False)
        keep = ~given[from_sketch]
        owners = np.concatenate([mine, from_sketch[keep]])
        hashes = np.concatenate([_hash(flat, "blobs", sketcher, slots[mine]), received.blobs[keep]])
    owners, hashes = owners[hashes != 0], hashes[hashes != 0]
    order = np.lexsort((hashes, owners))
    owners, hashes = owners[order], hashes[order]
    new = np.ones(len(owners), bool)
    new[1:] = (owners[1:] != owners[:-1]) | (hashes[1:] != hashes[:-1])
    owners, hashes = owners[new], hashes[new]
    first = np.searchsorted(owners, np.arange(rows))
    few = np.arange(len(owners)) - first[owners] < MAX_BLOBS
    owners, hashes = owners[few], hashes[few]
    known = (given | received.has_blobs) & (slots >= 0)
    offsets = np.searchsorted(owners, np.arange(rows + 1)).astype(np.int64)
    lists_made = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(hashes, pa.uint64()))
    return pl.Series("blobs", lists_made).set(pl.Series(~known), None) if rows else pl.Series("blobs", lists_made)


def _n_tools(frame: pl.DataFrame, received: Received) -> pl.Series:
    from_sketch = received.ids["n_tools"].astype(np.int64) - 1
    sealed = pl.Series("n_tools", pa.array(from_sketch.astype(np.int32), mask=from_sketch < 0))
    if "n_tools" not in frame.columns:
        return sealed
    return frame.get_column("n_tools").cast(pl.Int32).zip_with(frame.get_column("n_tools").is_not_null(), sealed)


def _subject(frame: pl.DataFrame, end_user: pl.Series, entity: str) -> pl.Series:
    account = frame.get_column("account_id")
    if entity == "account+end_user":
        digits = [None if h is None else f"{h:016x}" for h in end_user.to_list()]
        parts = pl.DataFrame({"a": account, "u": pl.Series(digits, dtype=pl.String)})
        return parts.select(
            pl.when(pl.col("u").is_null()).then(pl.col("a")).otherwise(pl.col("a") + ":" + pl.col("u"))
        ).to_series()
    if "subject" not in frame.columns:
        return account
    subject = frame.get_column("subject").cast(pl.String)
    return subject.zip_with(subject.is_not_null(), account)


@njit
def key_rows(
    account: U8Array, account_at: npt.NDArray[np.int64], request: U8Array, request_at: npt.NDArray[np.int64],
    numbers: U64Array, keys: U64Array, wanted: U8Array, request_key: U64Array, dedup_key: U64Array, parts: U64Array,
) -> None:  # fmt: skip
    """``request_key`` of each wanted row's request id; ``dedup_key`` of account, request id and ``numbers[r]``.

    ``parts`` is room for what goes into the latter.
    """
    for r in range(len(wanted)):
        if wanted[r]:
            parts[0] = sip_bytes(keys[2], keys[3], account, account_at[r], account_at[r + 1])
            parts[1] = sip_bytes(keys[0], keys[1], request, request_at[r], request_at[r + 1])
            for c in range(numbers.shape[1]):  # a slice would compile an error's message for two seconds
                parts[2 + c] = numbers[r, c]
            request_key[r] = parts[1]
            dedup_key[r] = sip_words(keys[2], keys[3], parts, 0, len(parts))


def _row_keys(frame: pl.DataFrame, sketcher: Sketcher) -> dict[str, pl.Series]:
    """``request_key`` and ``dedup_key``. Their key is chosen by ``ts``: two deliveries of one request agree on that."""
    rows = frame.height
    account, request = (large_texts(frame.get_column(name)) for name in ("account_id", "request_id"))
    numbers = np.column_stack(
        [frame.get_column(name).fill_null(0).to_numpy() for name in ("ts_ms", "input_tokens", "output_tokens")]
    ).astype(np.int64).view(np.uint64)  # fmt: skip
    slots, _ = sketcher.keyring.slots_at(frame.get_column("ts_ms").to_numpy())
    out = np.zeros(rows, np.uint64), np.zeros(rows, np.uint64)
    for slot in np.unique(slots).tolist():
        keys = sketcher.keyring.keys[slot].words("requests", 4)
        key_rows(
            account.data, account.offsets, request.data, request.offsets, np.ascontiguousarray(numbers), keys,
            (slots == slot).astype(np.uint8), *out, np.empty(2 + numbers.shape[1], np.uint64),
        )  # fmt: skip
    return {name: hash_series(name, hashes) for name, hashes in zip(("request_key", "dedup_key"), out, strict=True)}


def _any_text(frame: pl.DataFrame, rows: int) -> Bools:
    names = [name for name in ("prompt", "system", "response") if name in frame.columns]
    found = np.zeros(rows, bool)
    for name in names:
        found |= frame.get_column(name).is_not_null().to_numpy()
    return found


def _valid(texts: Texts | None, rows: int) -> Bools:
    return np.zeros(rows, bool) if texts is None else texts.valid == 1


def _texts(frame: pl.DataFrame, name: str) -> Texts | None:
    if name not in frame.columns or frame.get_column(name).null_count() == frame.height:
        return None
    return large_texts(frame.get_column(name))


@warmup
def warm_key_rows() -> None:
    """Compile the kernel of request and dedup keys."""
    text, at, one = np.zeros(1, np.uint8), np.array([0, 1], np.int64), np.ones(1, np.uint8)
    out = np.zeros(1, np.uint64), np.zeros(1, np.uint64)
    room = np.empty(5, np.uint64)
    key_rows(text, at, text, at, np.zeros((1, 3), np.uint64), np.ones(4, np.uint64), one, *out, room)
