"""What a partition contributes to the campaign stage: one immutable blob for each step of event time.

Everything in a blob is a set, a sum of integers, a minimum or a union of bits, so it depends neither on how the
stream was cut into polls nor on the order within a tick.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from monitor.arrays import pack
from monitor.campaigns.blob import KIND, VERSION, StepBlob, frames_of_bytes, frames_to_bytes
from monitor.campaigns.kinds import KINDS, TEMPLATES

TEMPLATES_A_STEP, VALUES_A_STEP = 24, 16
"""Values of a kind kept of an account and step, those with the smallest keyed hash: an account that rotates through
addresses must not fill the blob. All accounts keep by one rule, so a value that two share is kept in both or in
neither (coordinated sampling, Cohen and Kaplan 2007)."""
TICK_BITS = 60
"""Bits of the activity map: a step of ten minutes holds sixty ticks of ten seconds."""
TOTALS = ("requests", "input_tokens", "output_tokens", "reasoning_tokens", "cost_microusd")

_STEP = ["partition", "step"]
_ACCOUNT = [*_STEP, "account"]
_Tables = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]


class LinkCollector:
    """Sums closed ticks into the open step of each partition. ``sums`` gives, by name, what an event adds (Int32)."""

    def __init__(self, tick_ms: int, step_ms: int, sums: Mapping[str, pl.Expr]):
        self._step_ms = step_ms
        self._ticks_a_step = max(1, step_ms // tick_ms)
        self._per_bit = -(-self._ticks_a_step // TICK_BITS)
        self._sums = dict(sums)
        self._waiting: list[_Tables] = []

    def collect(self, events: pl.DataFrame) -> None:
        """Take the events of ticks that closed (EVENT_SCHEMA and ``tick``)."""
        if events.is_empty():
            return
        bit = (pl.col("tick") % self._ticks_a_step // self._per_bit).cast(pl.UInt64)
        base = events.lazy().with_columns(step=pl.col("tick") // self._ticks_a_step, account=pl.col("account_id"))
        accounts = base.select(
            *_ACCOUNT,
            tenant=pl.coalesce("org_id", "billing_account_id", "account_id"),
            created_ms=pl.col("account_created_ms"), billing=pl.col("billing_type"),
            first_ms=pl.col("t_ms"), last_ms=pl.col("t_ms"), ticks=pl.lit(2, pl.UInt64).pow(bit).cast(pl.UInt64),
            key=pl.col("request_key").fill_null(0), exemplar=pl.col("request_id"), requests=pl.lit(1, pl.Int64),
            input_tokens=pl.col("input_tokens"), output_tokens=pl.col("output_tokens"),
            reasoning_tokens=pl.col("reasoning_tokens").fill_null(0),
            cost_microusd=pl.col("cost_microusd").fill_null(0), **self._sums,
        )  # fmt: skip
        models = base.group_by(*_ACCOUNT, "model").agg(count=pl.len().cast(pl.Int32))
        links = [
            rows.filter(pl.col("value").fill_null(0) != 0)
            .group_by(*_ACCOUNT, "value").agg(count=pl.len().cast(pl.Int32))
            .select(*_ACCOUNT, pl.lit(code, pl.UInt8).alias("kind"), "value", "count")
            for code, kind in enumerate(KINDS) if kind.column and events[kind.column].null_count() < len(events)
            for rows in (_values(base, kind.column),)
        ]  # fmt: skip
        made = pl.collect_all([self._added(accounts), *links, models], engine="in-memory")
        self._waiting.append((made[0], pl.concat(made[1:-1]) if links else _no_links(), made[-1]))

    def close(self, watermarks_ms: Mapping[int, int] | None = None) -> list[StepBlob]:
        """Blobs of the steps that end by each partition's watermark (None: of all), in order of step and partition."""
        if not self._waiting:
            return []
        if watermarks_ms is not None and not self._any_over(watermarks_ms):
            return []
        self._merge()
        accounts, links, models = self._waiting[0]
        steps = accounts.select(_STEP).unique().sort("step", "partition").rows()
        ends = watermarks_ms
        done = [(p, s) for p, s in steps if ends is None or (s + 1) * self._step_ms <= ends.get(p, -1)]
        if not done:
            return []
        keys = pl.DataFrame(done, schema={"partition": pl.Int32(), "step": pl.Int64()}, orient="row")
        parts = [t.join(keys, on=_STEP, how="semi").partition_by(_STEP, as_dict=True, include_key=False)
                 for t in (accounts, links, models)]  # fmt: skip
        empty = [t.drop(_STEP).clear() for t in (accounts, links, models)]
        rest = [t.join(keys, on=_STEP, how="anti") for t in (accounts, links, models)]
        self._waiting = [(rest[0], rest[1], rest[2])] if len(rest[0]) else []
        return [_blob(s, p, *(t.get((p, s), e) for t, e in zip(parts, empty, strict=True))) for p, s in done]

    def dump(self, partition: int) -> bytes:
        """The open steps of a partition."""
        self._merge()
        if not self._waiting:
            return pack(KIND, VERSION, {}, None)
        mine = (t.filter(pl.col("partition") == partition) for t in self._waiting[0])
        orders = (_ACCOUNT, [*_ACCOUNT, "kind", "value"], [*_ACCOUNT, "model"])
        frames = {str(i): t.sort(order) for i, (t, order) in enumerate(zip(mine, orders, strict=True))}
        return frames_to_bytes(frames, None)

    def load(self, partition: int, blob: bytes) -> None:
        """Take a dump over. Raises StateUnreadable."""
        self.drop(partition)
        frames, _ = frames_of_bytes(blob)
        if frames and len(frames["0"]):
            self._waiting.append((frames["0"], frames["1"], frames["2"]))

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        left = [tuple(t.filter(pl.col("partition") != partition) for t in tables) for tables in self._waiting]
        self._waiting = [(a, li, m) for a, li, m in left if len(a)]

    def _any_over(self, watermarks_ms: Mapping[int, int]) -> bool:
        """Whether some step is complete: most calls of a busy stream end here."""
        return any(
            (step + 1) * self._step_ms <= watermarks_ms.get(partition, -1)
            for tables in self._waiting
            for partition, step in tables[0].group_by("partition").agg(pl.col("step").min()).iter_rows()
        )

    def _added(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Rows of one account and step made one."""
        first = pl.col("exemplar").sort_by("key", "exemplar").first()
        return rows.group_by(_ACCOUNT).agg(
            pl.col("tenant", "created_ms").min(), pl.col("billing").max(), pl.col("first_ms").min(),
            pl.col("last_ms").max(), pl.col("ticks").bitwise_or(), pl.col("key").min(), first,
            pl.col(*TOTALS, *self._sums).sum(),
        )  # fmt: skip

    def _merge(self) -> None:
        """All that waits as one set of tables, with the smallest hashes of what there is too much of."""
        if not self._waiting:
            return
        accounts, links, models = (pl.concat(t) for t in zip(*self._waiting, strict=True))
        if len(self._waiting) > 1:
            accounts = self._added(accounts.lazy()).collect(engine="in-memory").select(accounts.columns)
            links = links.group_by([*_ACCOUNT, "kind", "value"]).agg(pl.col("count").sum()).select(links.columns)
            models = models.group_by([*_ACCOUNT, "model"]).agg(pl.col("count").sum()).select(models.columns)
        if len(links) and links.group_by([*_ACCOUNT, "kind"]).len()["len"].max() > VALUES_A_STEP:
            limit = pl.when(pl.col("kind").is_in(list(TEMPLATES))).then(TEMPLATES_A_STEP).otherwise(VALUES_A_STEP)
            links = links.filter(pl.col("value").rank("ordinal").over([*_ACCOUNT, "kind"]) <= limit)
        self._waiting = [(accounts, links, models)]


def _values(base: pl.LazyFrame, column: str) -> pl.LazyFrame:
    value = pl.col(column)
    if column == "blobs":
        return base.select(*_ACCOUNT, value=value).explode("value")
    return base.select(*_ACCOUNT, value=value)


def _no_links() -> pl.DataFrame:
    return pl.DataFrame(
        schema={"partition": pl.Int32(), "step": pl.Int64(), "account": pl.String(), "kind": pl.UInt8(),
                "value": pl.UInt64(), "count": pl.Int32()}
    )  # fmt: skip


def _blob(step: int, partition: int, accounts: pl.DataFrame, links: pl.DataFrame, models: pl.DataFrame) -> StepBlob:
    accounts = accounts.drop("key").sort("account")
    index = accounts.select("account").with_row_index("row")

    def by_row(table: pl.DataFrame, *order: str) -> pl.DataFrame:
        numbered = table.join(index, on="account", how="left").drop("account").rename({"row": "account"})
        return numbered.select("account", *(c for c in table.columns if c != "account")).sort("account", *order)

    return StepBlob(step, partition, accounts, by_row(links, "kind", "value"), by_row(models, "model"))
