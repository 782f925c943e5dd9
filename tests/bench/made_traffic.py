"""Requests of any number of accounts at a price that a bench can pay: rows of the simulator, given to other accounts.

Each account has its own id, organisation, key, payment and address, the last two shared by two or three accounts as in
simulated worlds; the rest of a row (client, parameters, tokens, text) is one that the simulator drew. A number at the
end of each prompt keeps prompts distinct. Event time begins at ``start`` and rises by ``1 / per_s`` a request.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import polars as pl

from monitor.records import RawBatch
from monitor.simulate.api import build
from monitor.source.partitioner import Partitioner

START = 1_767_571_200.0
TEXT = ("system", "prompt")
_SHARED = 2.5
"""Accounts that share a payment or an address, on average."""
_FRESH = ("user_agent", "payment_fp", "ja4", "referral_fp")


class Traffic:
    """``accounts`` in all; ``text`` False leaves prompts out. The same arguments give the same bytes. ``churn``: so
    many accounts go with each request, and as many come: ``accounts`` are those of a moment. ``hours``: of each day
    of event time so many have traffic. ``scrapers``: each account sends what one of the made
    ones does, this share of them what a scraper does; without it anybody sends what anybody may. ``loud``: this share
    of the requests comes from one account. ``fresh``: so many values a request (user agent, payment, handshake,
    referral) that nobody had before, each of them held by two or three accounts."""

    def __init__(
        self, accounts: int, *, text: bool, per_s: float = 1000.0, partitions: int = 8, seed: int = 7,
        start: float = START, churn: float = 0.0, hours: float = 24.0, scrapers: float | None = None,
        loud: float = 0.0, fresh: float = 0.0,
    ):  # fmt: skip
        world = build(["D1", "D2", "B1", "B3"], 400, 4.0, seed, heavy_cap=400.0)
        rows = next(iter(world)).frame
        self._scrapers = scrapers
        if scrapers is not None:
            theirs = [line["account_id"] for line in world.truth() if line["actor"] != "benign"]
            mine = pl.when(pl.col("account_id").is_in(theirs))
            # many accounts send what one did: a replayed blob would convict every honest one
            rows = rows.sort("account_id").with_columns(mine.then("reasoning_blob_fp").alias("reasoning_blob_fp"))
            of = rows["account_id"].unique(maintain_order=True)
            self._bad, self._begin = of.is_in(theirs).to_numpy(), rows["account_id"].search_sorted(of).to_numpy()
            self._many = np.diff(self._begin, append=len(rows))
        if not text:
            rows = rows.drop(TEXT)
        self._rows, self._text, self._per_s, self._start = rows, text, per_s, start
        self._rng, self.accounts, self._churn = np.random.default_rng(seed), accounts, churn
        self._loud, self._fresh = loud, fresh
        self._shift, self._pause = hours * 3_600, (24.0 - hours) * 3_600
        self._place = Partitioner(partitions, 2_000_000)
        self._order = self._rng.permutation(accounts)
        self._offsets = [0] * partitions
        self.sent = self.bytes = 0

    def batches(self, requests: int, size: int = 20_000, *, each_once: bool = False) -> Iterator[RawBatch]:
        """Some more requests, of random accounts; ``each_once``: of all accounts in turn."""
        end = self.sent + requests
        while self.sent < end:
            n = min(size, end - self.sent)
            at = np.arange(self.sent, self.sent + n)
            who = self._order[at % self.accounts] if each_once else self._rng.integers(0, self.accounts, n)
            who = who + (at * self._churn).astype(np.int64)
            yield self._batch(at, np.where(self._rng.random(n) < self._loud, 0, who) if self._loud else who)
            self.sent += n

    def _age(self, who: np.ndarray) -> np.ndarray:
        """Seconds from sign-up to the start of the log."""
        if self._scrapers is None:
            return np.asarray(1e6 + who * 7.0)
        # over five years: hundreds send what one did, and were they made in the same hours they would be one campaign
        return np.asarray(1e6 + who * 0.754_878 % 1.0 * 5 * 365 * 86_400)

    def _values(self, at: np.ndarray) -> list[pl.Expr]:
        """Columns of values that nobody had before, each in requests of its own: no two accounts share two of them."""
        found = []
        for i, column in enumerate(_FRESH):
            share = min(max(self._fresh - i, 0.0), 1.0)
            n = pl.Series((self._rng.permutation(at) // _SHARED).astype(np.int64))
            new = pl.format(f"{column}-{{}}", n)
            if share:
                chosen = pl.Series(self._rng.random(len(at)) < share)
                found.append(pl.when(chosen).then(new).otherwise(column).alias(column))
        return found

    def _drawn(self, who: np.ndarray) -> np.ndarray:
        """Which of the made rows each request takes over."""
        if self._scrapers is None:
            return self._rng.integers(0, len(self._rows), len(who))
        spread = who * 0.618_034 % 1.0  # even, and the same for all of an account's life
        model = np.empty(len(who), np.int64)
        for bad, begin, end in ((True, 0.0, self._scrapers), (False, self._scrapers, 1.0)):
            part, known = (begin <= spread) & (spread < end), np.flatnonzero(self._bad == bad)
            model[part] = known[((spread[part] - begin) / (end - begin) * len(known)).astype(np.int64)]
        return np.asarray(self._begin[model] + (self._rng.random(len(who)) * self._many[model]).astype(np.int64))

    def _batch(self, at: np.ndarray, who: np.ndarray) -> RawBatch:
        drawn = self._rows[self._drawn(who)]
        shared = (who // _SHARED).astype(np.int64)
        worked = at / self._per_s
        ts = self._start + worked + worked // self._shift * self._pause
        frame = drawn.with_columns(
            ts=pl.Series(ts.round(3)), completed_at=pl.Series(ts.round(3)),
            account_id=pl.format("acct_{}", pl.Series(who)), org_id=pl.format("org_{}", pl.Series(who)),
            api_key_id=pl.format("key_{}", pl.Series(who)), payment_fp=pl.format("pm_{}", pl.Series(shared)),
            ip=pl.format("10.{}.{}.7", pl.Series(shared // 250 % 250), pl.Series(shared % 250)),
            request_id=pl.format("req_{}", pl.Series(at)), conversation_id=pl.format("conv_{}", pl.Series(at)),
            account_created_at=pl.Series(self._start - self._age(who)),
        )  # fmt: skip
        if self._fresh:
            frame = frame.with_columns(self._values(at))
        if self._text:
            frame = frame.with_columns(prompt=pl.format("{} {}", "prompt", pl.Series(at)))
        lines = io.BytesIO()
        frame.write_ndjson(lines)
        values = lines.getvalue().splitlines()
        self.bytes += sum(map(len, values))
        places = np.array([self._place(a) for a in frame["account_id"].to_list()], np.int32)
        offsets = np.empty(len(at), np.int64)
        for p in range(len(self._offsets)):
            mine = places == p
            offsets[mine] = self._offsets[p] + np.arange(mine.sum())
            self._offsets[p] += int(mine.sum())
        return RawBatch(
            values=values, partition=places, offset=offsets, timestamp_ms=np.round(ts * 1000).astype(np.int64),
            next_offsets={p: self._offsets[p] for p in sorted(set(places.tolist()))},
        )  # fmt: skip
