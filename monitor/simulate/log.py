"""Requests as a log: contract 1 columns from numbers. The only place where ids become strings.

Knows nothing of scenarios: two accounts with the same numbers get the same line, whoever they are.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from monitor.arrow import to_arrow

from . import rows as r
from .arrivals import DAY
from .draws import I64, Bools, mix, salt, unit
from .population import BUILDS, Accounts, asn_of
from .rows import Profiles, Rows
from .text import Grammar

_CLIENTS = (
    ("sdk-python", "sdk-python/{v} (linux; py311)"), ("sdk-node", "sdk-node/{v} node/22"),
    ("ide-agent", "ide-agent/{v}"), ("web-app", "Mozilla/5.0 (app {v})"),
    ("sdk-go", "sdk-go/{v}"), ("curl", "curl/{v}"), ("sdk-java", "sdk-java/{v}"),
    ("chain", "chainlib/{v}"), ("mobile", "app-mobile/{v}"), ("gateway", "relay-gw/{v}"), ("sdk-rust", "sdk-rs/{v}"),
)  # fmt: skip
_COUNTRIES = ("US", "GB", "DE", "FR", "BR", "IN", "JP", "KR", "CN", "NG", "ZA", "PL", "SE", "CA", "AU", "MX", "ID",
              "TR", "ES", "IT", "NL", "AR", "EG", "VN", "PH", "KE", "UA", "SA", "CH", "CL")  # fmt: skip
_TOOLSETS = (["bash", "edit", "search"], ["get_order", "refund"], ["browser", "screenshot", "click"], ["sql"],
             ["read_file", "write_file", "run_tests"], ["calendar", "mail"], ["lookup"],
             ["code_interpreter"])  # fmt: skip

KEPT_FRAGMENTS = 100_000
"""Accounts up to which their part of a line is made once for the run: 400 bytes each."""


def _numbers(prefix: str, values: I64, bits: int = 48) -> pl.Series:
    """Ids as ``prefix`` and the decimal digits of the value's upper ``bits``; null where the value is -1.

    48 bits: a million accounts collide with probability 0.002, and a line is 200 bytes shorter than with 64.
    """
    text = pl.Series(values.view(np.uint64) >> np.uint64(64 - bits)).cast(pl.String)
    keep = pl.Series(values != -1)
    return pl.select(pl.when(keep).then(pl.lit(prefix) + text)).to_series()


def account_ids(accounts: Accounts) -> pl.Series:
    """Contract ids of a table of accounts, in its order."""
    return _numbers("acct_", accounts.account)


class _Private:
    """Prefixes as addresses of ranges that no customer owns: 10/8, then 172.16/12, 100.64/10 and 198.18/15.

    They hold 86,528 prefixes of 24 bits; a world with more goes on in 11/8, said here because such an
    address exists elsewhere.
    """

    _BLOCKS = ((10 << 16, 1 << 16), (172 << 16 | 16 << 8, 1 << 12), (100 << 16 | 64 << 8, 1 << 14),
               (198 << 16 | 18 << 8, 1 << 9), (11 << 16, 1 << 21))  # fmt: skip

    def __init__(self, prefixes: I64, key: int):
        order = np.argsort(mix(prefixes, key), kind="stable")
        rank = np.empty(len(prefixes), np.int64)
        rank[order] = np.arange(len(prefixes))
        starts = np.concatenate([np.arange(lo, lo + n) for lo, n in self._BLOCKS])
        base = starts[rank % len(starts)]
        octets = [pl.Series(str(i), (base >> shift) & 255).cast(pl.String) for i, shift in enumerate((16, 8, 0))]
        self.prefixes = prefixes
        self._text = pl.DataFrame(octets).select(pl.concat_str(pl.all(), separator=".")).to_series()
        self._host = "." + pl.Series(range(256)).cast(pl.String)

    def text(self, place: I64, addresses: I64) -> pl.Series:
        """Addresses whose prefixes stand at ``place`` in :attr:`prefixes`."""
        return self._text.gather(place) + self._host.gather(addresses & 255)


class Log:
    """Turns :class:`Rows` into contract 1, as a frame or as NDJSON, in their order."""

    def __init__(
        self, seed: int, accounts: Accounts, profiles: Profiles, grammar: Grammar, monday: float, new_model: str,
        channels: tuple[str, ...], plans: tuple[str, ...], billings: tuple[str, ...], own_asn: dict[int, int],
    ):  # fmt: skip
        self._seed, self._a, self._p, self._g, self._monday = seed, accounts, profiles, grammar, monday
        self._models = pl.Series([*r.MODELS, new_model])
        self._channels, self._plans, self._billings = pl.Series(channels), pl.Series(plans), pl.Series(billings)
        self.account_id = account_ids(accounts)
        self.org_id = _numbers("org_", accounts.org)
        self._payment, self._referral = _numbers("pm_", accounts.payment), _numbers("ref_", accounts.referral)
        self._contact = pl.select(_numbers("mail-", accounts.contact) + ".example").to_series()
        self._created = pl.Series(np.floor(monday + accounts.created_s))
        self._ja4 = pl.select(
            pl.lit("t13d1516h2_") + pl.Series(accounts.ja4.view(np.uint64) >> np.uint64(24)).cast(pl.String)
        ).to_series()
        self._clients(accounts.build)
        prefixes = np.unique(accounts.network >> 8)
        self._ips = _Private(prefixes, salt(seed, "prefix"))
        asn = asn_of(prefixes, seed, own_asn)
        self._asn = 64_512 + asn
        country = mix(asn, salt(seed, "country")) % np.uint64(len(_COUNTRIES))
        self._country = pl.Series(_COUNTRIES).gather(country)
        self._tools = pl.Series(_TOOLSETS)
        self._kept: pl.Series | None = None

    def _clients(self, build: I64) -> None:
        known, index = np.unique(build, return_inverse=True)
        self._build = index.astype(np.int64)
        weight = np.array([0.3, 0.2, 0.12, 0.1, 0.06, 0.05, 0.04, 0.04, 0.04, 0.03, 0.02])
        pick = np.minimum(
            np.searchsorted(np.cumsum(weight), unit(mix(known, salt(self._seed, "client")))), len(weight) - 1
        )
        digits = mix(known, salt(self._seed, "version"))
        versions = [f"{int(d) % 4 + 1}.{int(d >> np.uint64(8)) % 40}.{int(d >> np.uint64(16)) % 12}" for d in digits]
        self._client_name = pl.Series([_CLIENTS[i][0] for i in pick])
        self._client_version = pl.Series(versions)
        self._agent = pl.Series([_CLIENTS[i][1].format(v=v) for i, v in zip(pick, versions, strict=True)])
        assert len(known) < BUILDS + len(build) + 1

    def frame(self, rows: Rows) -> pl.DataFrame:
        """One line a request, columns of contract 1."""
        columns = {**self._accounts(rows.account), **self._manners(rows), **self._turns(rows), **self._tools_of(rows),
                   **self._own(rows)}  # fmt: skip
        listed = pl.when(pl.col("reasoning_blob_fp").is_not_null()).then(pl.concat_list("reasoning_blob_fp"))
        return pl.DataFrame(columns).with_columns(listed.alias("reasoning_blob_fp"))

    def ndjson(self, rows: Rows) -> bytes:
        """What ``frame(rows).write_ndjson`` says, fields in another order and at half its cost.

        Fields that hang on the account, or on a few parameters together, are written once for each of their values;
        a line is joined of such fragments. Polars' own writer asks 53 columns for each row.
        """
        parts: list[pl.Series] = [self._account_fragments(rows.account)]
        for key, make in ((self._manner_key(rows), self._manners), (2 * rows.turn + _bit(rows, r.TOOLS), self._turns),
                          (rows.schema, self._tools_of)):  # fmt: skip
            _, first, index = np.unique(key, return_index=True, return_inverse=True)
            parts.append(_fragments(make(rows.take(first))).gather(index))
        own = {name: pl.Series(name, values) for name, values in self._own(rows, escaped=True).items()}
        pieces: list[pl.Expr] = []
        text = "{"
        for i in range(len(parts)):
            pieces += [pl.lit(text), pl.col(str(i))]
            text = ","
        for name, values in own.items():
            text += f'"{name}":'
            before, after = ("", "")
            if values.dtype == pl.String:
                before, after = ('["', '"]') if name == "reasoning_blob_fp" else ('"', '"')
            column = pl.col(name).cast(pl.String)
            if values.null_count():
                column = pl.concat_str(pl.lit(before), column, pl.lit(after)).fill_null("null")
                before, after = "", ""
            pieces += [pl.lit(text + before), column]
            text = after + ","
        table = pl.DataFrame([*(part.alias(str(i)) for i, part in enumerate(parts)), *own.values()])
        lines = table.select(pl.concat_str(*pieces, pl.lit(text[:-1] + "}\n"))).to_series()
        # an Arrow column of strings is their bytes one after the other: joining or writing them costs 2 us a line
        array = to_arrow(lines)
        ends = np.frombuffer(array.buffers()[1], np.int64)
        return bytes(memoryview(array.buffers()[2])[ends[array.offset] : ends[array.offset + len(array)]])

    def _account_fragments(self, acc: I64) -> pl.Series:
        if len(self._a) > KEPT_FRAGMENTS:
            known, index = np.unique(acc, return_inverse=True)
            return _fragments(self._accounts(known)).gather(index)
        if self._kept is None:
            self._kept = _fragments(self._accounts(np.arange(len(self._a))))
        return self._kept.gather(acc)

    def _accounts(self, acc: I64) -> dict[str, Any]:
        """Fields that are the account's, whatever it sends."""
        a = self._a
        shown = pl.Series(~(self._p.hidden[a.group[acc]] & (a.channel[acc] > 0)))
        build = pl.Series(self._build[acc])
        return {
            "account_id": self.account_id.gather(acc), "org_id": self.org_id.gather(acc),
            "account_created_at": self._created.gather(acc), "plan": self._plans.gather(a.plan[acc]),
            "billing_type": self._billings.gather(a.billing[acc]), "channel": self._channels.gather(a.channel[acc]),
            "user_agent": self._agent.gather(build), "client_name": self._client_name.gather(build),
            "client_version": self._client_version.gather(build), "ja4": _only(shown, self._ja4.gather(acc)),
            "payment_fp": _only(shown, self._payment.gather(acc)), "referral_fp": self._referral.gather(acc),
            "reseller_of_record": pl.Series(self._p.resellers, dtype=pl.String).gather(a.group[acc]),
            "contact_domain": self._contact.gather(acc),
        }  # fmt: skip

    def _manner_key(self, rows: Rows) -> I64:
        """One number for each combination that :meth:`_manners` tells apart."""
        key = rows.flags * 8 + rows.model
        key = key * 2 + rows.batch
        key = key * 2 + (rows.output >= self._limit(rows))
        return np.asarray((key * 1000 + rows.status) * 4096 + self._p.n[rows.group])

    def _manners(self, rows: Rows) -> dict[str, Any]:
        """Model, delivery, fate and parameters: few combinations of them occur."""
        failed, tools, stream = rows.status >= 400, _bit(rows, r.TOOLS), _bit(rows, r.STREAM)
        ended = np.where(tools, "tool_calls", "stop")
        return {
            "model": self._models.gather(rows.model), "operation": np.where(rows.model == 3, "embedding", "chat"),
            "delivery": np.where(rows.batch, "batch", np.where(stream, "stream", "sync")), "status": rows.status,
            "finish_reason": _where(~failed, np.where(rows.output >= self._limit(rows), "length", ended)),
            "stream": stream & ~rows.batch, "refused": _bit(rows, r.REFUSED) & ~failed,
            "n": _where(_bit(rows, r.MANY), self._p.n[rows.group]), "seed": _where(_bit(rows, r.SEED), 42),
            "logprobs": _where(_bit(rows, r.LOGPROBS), True), "top_logprobs": _where(_bit(rows, r.LOGPROBS), 5),
            "logit_bias": _where(_bit(rows, r.BIAS), True),
            "response_format": _where(_bit(rows, r.JSON), "json_object"),
            "reasoning_effort": _where(_bit(rows, r.EFFORT), "high"),
        }  # fmt: skip

    def _turns(self, rows: Rows) -> dict[str, Any]:
        later = _bit(rows, r.TOOLS) & (rows.turn > 0)
        return {"n_messages": 2 * rows.turn + 1, "turn_index": rows.turn,
                "input_kind": np.where(later, "tool_result", "user")}  # fmt: skip

    def _tools_of(self, rows: Rows) -> dict[str, Any]:
        return {"tools": _pick_lists(self._tools, rows.schema), "tool_schema_fp": _numbers("ts_", rows.schema)}

    def _limit(self, rows: Rows) -> I64:
        """``max_tokens``: the largest there is, or the conversation's habit."""
        spice = unit(mix(rows.conversation, salt(self._seed, "style")))
        usual = np.array([256, 512, 1024, 2048, 4096])[(spice * 5).astype(np.int64)]
        return np.asarray(np.where(_bit(rows, r.CAPPED), r.CAP, usual))

    def _own(self, rows: Rows, escaped: bool = False) -> dict[str, Any]:
        """Fields of the single request; ``escaped``: text as it stands between the quotes of JSON."""
        a, acc = self._a, rows.account
        chat = rows.model != 3
        shown = pl.Series(~(self._p.hidden[rows.group] & (a.channel[acc] > 0)))
        where = np.searchsorted(self._ips.prefixes, rows.network >> 8)
        cost = r.price_microusd(rows.model, rows.input, rows.output, rows.cached, rows.batch)
        return {
            "ts": np.round(self._monday + rows.t, 3), "completed_at": rows.done,
            "request_id": _numbers("req_", rows.request, 60),
            "api_key_id": _numbers("key_", mix(a.account[acc] + rows.key, 11).view(np.int64)),
            "end_user_id": _numbers("u", rows.end_user), "input_tokens": rows.input, "output_tokens": rows.output,
            "cached_tokens": rows.cached, "reasoning_tokens": rows.reasoning, "latency_ms": rows.latency_ms,
            "cost_usd": np.where(rows.status >= 400, 0, cost) / 1e6, "temperature": _where(chat, a.temperature[acc]),
            "max_tokens": _where(chat, self._limit(rows)), "conversation_id": _numbers("conv_", rows.conversation),
            "system": self._g.lookup(rows.system, escaped), "prompt": self._g.render(rows.parts, escaped),
            "ip": _only(shown, self._ips.text(where, rows.network)), "asn": _only(shown, pl.Series(self._asn[where])),
            "country": _only(shown, self._country.gather(where)), "reasoning_blob_fp": _numbers("blob_", rows.blob),
        }  # fmt: skip


def _bit(rows: Rows, bit: int) -> Bools:
    return (rows.flags & bit) > 0


def _fragments(columns: dict[str, Any]) -> pl.Series:
    """Rows as JSON objects without their braces."""
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_ndjson(buffer)
    return pl.Series([line[1:-1] for line in buffer.getvalue().decode().split("\n")[:-1]], dtype=pl.String)


def _where(keep: Bools, value: object) -> pl.Series:
    full = value if isinstance(value, np.ndarray) else np.full(len(keep), value)
    return _only(pl.Series(keep), pl.Series(full))


def _only(keep: pl.Series, values: pl.Series) -> pl.Series:
    return pl.select(pl.when(keep).then(values)).to_series()


def _pick_lists(pool: pl.Series, schema: I64) -> pl.Series:
    index = pl.Series(np.where(schema >= 0, schema % len(pool), -1)).replace(-1, None)
    return pool.gather(index.cast(pl.UInt32))


def monday_of(ts: float) -> float:
    """Midnight UTC of the Monday on or before ``ts`` (epoch seconds)."""
    day = datetime.fromtimestamp(ts, UTC)
    return ts - (day.weekday() * DAY + day.hour * 3600 + day.minute * 60 + day.second + day.microsecond / 1e6)
