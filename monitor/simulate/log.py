"""Requests as a log: contract 1 columns from numbers. The only place where ids become strings.

Knows nothing of scenarios: two accounts with the same numbers get the same line, whoever they are.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

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
        self.prefixes, self._base = prefixes, starts[rank % len(starts)]

    def text(self, addresses: I64) -> pl.Series:
        base, host = self._base[np.searchsorted(self.prefixes, addresses >> 8)], addresses & 255
        octets = [pl.Series(str(i), (base >> s) & 255).cast(pl.String) for i, s in enumerate((16, 8, 0))]
        return (
            pl.DataFrame([*octets, pl.Series("h", host).cast(pl.String)])
            .select(pl.concat_str(pl.all(), separator="."))
            .to_series()
        )


class Log:
    """Turns :class:`Rows` into frames of contract 1, ordered by event time."""

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

    def frame(self, rows: Rows, serial: int) -> pl.DataFrame:
        """One line a row, with ``event_s`` (event time) first; ``serial`` numbers the rows of the run so far."""
        a, acc, seed = self._a, rows.account, self._seed
        ts = np.round(self._monday + rows.t, 3)
        unique = mix(np.arange(serial, serial + len(rows)), salt(seed, "request"))
        wait = np.where(rows.batch, 600.0 + 40_000.0 * unit(unique), rows.latency_ms / 1000.0)
        done = np.round(ts + wait, 3)
        bits = (r.LOGPROBS, r.MANY, r.CAPPED, r.SEED, r.JSON, r.STREAM, r.EFFORT, r.TOOLS, r.BIAS, r.REFUSED)
        has = [(rows.flags & bit) > 0 for bit in bits]
        logprobs, many, capped, seeded, as_json, stream, effort, tools, bias, refused = has
        failed = rows.status >= 400
        where = np.searchsorted(self._ips.prefixes, rows.network >> 8)
        hidden = self._p.hidden[rows.group] & (a.channel[acc] > 0)
        shown = pl.Series(~hidden)
        spice = unit(mix(rows.conversation, salt(seed, "style")))
        limit = np.where(capped, r.CAP, np.array([256, 512, 1024, 2048, 4096])[(spice * 5).astype(np.int64)])
        build = pl.Series(self._build[acc])
        cost = r.price_microusd(rows.model, rows.input, rows.output, rows.cached, rows.batch)
        ended = np.where(tools, "tool_calls", "stop")
        columns = {
            "event_s": done, "ts": ts, "completed_at": done, "request_id": _numbers("req_", unique.view(np.int64), 60),
            "account_id": self.account_id.gather(acc), "org_id": self.org_id.gather(acc),
            "api_key_id": _numbers("key_", mix(a.account[acc] + rows.key, 11).view(np.int64)),
            "account_created_at": self._created.gather(acc), "plan": self._plans.gather(a.plan[acc]),
            "billing_type": self._billings.gather(a.billing[acc]), "channel": self._channels.gather(a.channel[acc]),
            "end_user_id": _numbers("u", rows.end_user), "model": self._models.gather(rows.model),
            "operation": np.where(rows.model == 3, "embedding", "chat"),
            "delivery": np.where(rows.batch, "batch", np.where(stream, "stream", "sync")),
            "input_tokens": rows.input, "output_tokens": rows.output, "cached_tokens": rows.cached,
            "reasoning_tokens": rows.reasoning, "latency_ms": rows.latency_ms, "status": rows.status,
            "cost_usd": np.where(failed, 0, cost) / 1e6,
            "finish_reason": _where(~failed, np.where(rows.output >= limit, "length", ended)),
            "stream": stream & ~rows.batch, "refused": refused & ~failed,
            "temperature": _where(rows.model != 3, a.temperature[acc]), "max_tokens": _where(rows.model != 3, limit),
            "n": _where(many, self._p.n[rows.group]), "seed": _where(seeded, 42), "logprobs": _where(logprobs, True),
            "top_logprobs": _where(logprobs, 5), "logit_bias": _where(bias, True),
            "response_format": _where(as_json, "json_object"), "reasoning_effort": _where(effort, "high"),
            "tools": _pick_lists(self._tools, rows.schema), "tool_schema_fp": _numbers("ts_", rows.schema),
            "n_messages": 2 * rows.turn + 1, "turn_index": rows.turn,
            "input_kind": np.where(tools & (rows.turn > 0), "tool_result", "user"),
            "conversation_id": _numbers("conv_", rows.conversation),
            "system": self._g.lookup(rows.system), "prompt": self._g.render(rows.parts),
            "ip": _only(shown, self._ips.text(rows.network)), "asn": _only(shown, pl.Series(self._asn[where])),
            "country": _only(shown, self._country.gather(where)),
            "user_agent": self._agent.gather(self._build[acc]), "client_name": self._client_name.gather(build),
            "client_version": self._client_version.gather(build), "ja4": _only(shown, self._ja4.gather(acc)),
            "payment_fp": _only(shown, self._payment.gather(acc)), "referral_fp": self._referral.gather(acc),
            "reseller_of_record": pl.Series(self._p.resellers, dtype=pl.String).gather(rows.group),
            "contact_domain": self._contact.gather(acc),
            "reasoning_blob_fp": _numbers("blob_", rows.blob),
        }  # fmt: skip
        frame = pl.DataFrame(columns)
        listed = pl.when(pl.col("reasoning_blob_fp").is_not_null()).then(pl.concat_list("reasoning_blob_fp"))
        return frame.with_columns(listed.alias("reasoning_blob_fp"), pl.Series("_account", acc))


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
