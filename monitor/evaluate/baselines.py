"""Known detectors on the same logs, written from their papers: what the monitor is compared with.

Each reads a frame of the log and returns alerts at HIGH (contract 2's fields that scoring needs). They see
the whole log at once, which flatters them: their thresholds are set on the log that they judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import polars as pl

from .inputs import Revision

F64 = npt.NDArray[np.float64]
DIMENSIONS = 256
"""Hashed word 1- and 2-grams of a prompt: in place of the papers' encoders, which no provider runs on every request."""
MMD_WINDOW, MMD_NULL, MMD_QUANTILE = 1500, 200, 0.95
"""Window and quantile of arXiv 2606.05725 (it draws 1,000 null samples; 200 place a 95th percentile well enough)."""
_COT = (
    r"(?i)step by step|chain of thought|reasoning trace|internal reasoning|think aloud|hidden thoughts"
    r"|intermediate deduction"
)
_COLUMNS = ("account_id", "ts", "completed_at", "prompt", "payment_fp", "ip")


def load(log: Path, text: bool = True) -> pl.DataFrame:
    """The columns that baselines read, null where the log lacks them, ordered by event time (``at``).

    Without ``text`` prompts are null: they are most of a log, and four of the baselines don't look at them.
    """
    scan = pl.scan_parquet(log) if log.suffix == ".parquet" else pl.scan_ndjson(log, infer_schema_length=2000)
    known = scan.collect_schema().names()
    wanted = {*known} - (set() if text else {"prompt"})
    given = [pl.col(c) if c in wanted else pl.lit(None).alias(c) for c in _COLUMNS]
    frame = scan.select(given).collect()
    at = pl.coalesce(pl.col("completed_at"), pl.col("ts")).cast(pl.Float64).alias("at")
    return frame.with_columns(at, pl.col("prompt").cast(pl.String)).sort("at", "account_id")


def _account(name: str, account: str, at: float) -> Revision:
    return Revision(alert_id=f"{name}/{account}", kind="account", severity="high", revised_at=at, subject=account,
                    accounts=[account], hypothesis="distillation")  # fmt: skip


def calls_per_hour(log: pl.DataFrame, limit: int = 500) -> list[Revision]:
    """``limit`` calls of one principal within any 60 minutes, as a widely used public rule has it."""
    out = []
    for (account,), rows in log.select("account_id", "at").group_by("account_id", maintain_order=True):
        at = rows["at"].to_numpy()
        if len(at) < limit:
            continue
        full = np.flatnonzero(at[limit - 1 :] - at[: len(at) - limit + 1] <= 3600.0)
        if len(full):
            out.append(_account("calls", str(account), float(at[full[0] + limit - 1])))
    return out


def volume_quantile(log: pl.DataFrame, quantile: float = 0.999) -> list[Revision]:
    """Account-days above the 99.9 percentile of all account-days; alert as the threshold is passed."""
    days = log.select("account_id", "at", (pl.col("at") // 86_400).alias("day"))
    counts = days.group_by("account_id", "day").len()["len"]
    limit = float(counts.quantile(quantile, "nearest") or 0.0)
    ranked = days.with_columns(pl.int_range(pl.len()).over("account_id", "day").alias("k"))
    first = ranked.filter(pl.col("k") + 1 > limit).group_by("account_id").agg(pl.col("at").min()).sort("account_id")
    return [_account("volume", a, t) for a, t in first.iter_rows()]


def _shared(name: str, log: pl.DataFrame, value: pl.Expr, at_least: int = 3) -> list[Revision]:
    """One campaign alert for each value that ``at_least`` accounts share, from when that many do."""
    seen = (
        log.select("account_id", "at", value.alias("v"))
        .drop_nulls()
        .group_by("v", "account_id")
        .agg(pl.col("at").min())
    )
    groups = (
        seen.sort("at", "account_id").group_by("v").agg("account_id", "at").filter(pl.col("at").list.len() >= at_least)
    )
    out = []
    for i, (_, accounts, at) in enumerate(groups.sort(pl.col("at").list.first(), "v").iter_rows()):
        last = len(accounts)
        sizes = (at_least,) if last == at_least else (at_least, last)
        for revision, size in enumerate(sizes, 1):
            out.append(
                Revision(
                    alert_id=f"{name}/{i}", kind="campaign", severity="high", hypothesis="account_farm",
                    revision=revision, revised_at=at[size - 1], accounts=list(accounts[:size]),
                )
            )  # fmt: skip
    return out


def shared_payment(log: pl.DataFrame) -> list[Revision]:
    """Three accounts on one payment instrument."""
    return _shared("payment", log, pl.col("payment_fp").cast(pl.String))


def shared_network(log: pl.DataFrame) -> list[Revision]:
    """Three accounts behind one /24."""
    return _shared("network", log, pl.col("ip").cast(pl.String).str.extract(r"^(\d+\.\d+\.\d+)\."))


def shared_template(log: pl.DataFrame) -> list[Revision]:
    """Three accounts whose prompts begin with the same eight words, figures masked."""
    words = pl.col("prompt").str.replace_all(r"\d+", "0").str.extract(r"^((?:\S+\s+){8})")
    return _shared("template", log, words)


def chain_of_thought(log: pl.DataFrame, share: float = 0.2, at_least: int = 20) -> list[Revision]:
    """A fifth of an account's requests, of twenty or more, asks for reasoning in so many words (English)."""
    hit = log.select("account_id", "at", pl.col("prompt").str.contains(_COT).fill_null(False).alias("hit"))
    running = hit.with_columns(
        pl.col("hit").cum_sum().over("account_id").alias("hits"),
        (pl.int_range(pl.len()).over("account_id") + 1).alias("n"),
    )
    first = running.filter((pl.col("n") >= at_least) & (pl.col("hits") >= share * pl.col("n")))
    alerts = first.group_by("account_id").agg(pl.col("at").min()).sort("account_id")
    return [_account("cot", a, t) for a, t in alerts.iter_rows()]


def embed(prompts: pl.Series) -> F64:
    """Prompts as unit vectors, (n, 256): signed hashes of word 1- and 2-grams."""
    frame = pl.DataFrame({"i": pl.int_range(len(prompts), eager=True), "p": prompts.fill_null("").str.to_lowercase()})
    words = frame.with_columns(pl.col("p").str.extract_all(r"[\p{L}\p{N}]+").alias("w")).explode("w").drop_nulls("w")
    pairs = words.with_columns((pl.col("w") + " " + pl.col("w").shift(-1).over("i")).alias("w")).drop_nulls("w")
    grams = pl.concat([words.select("i", "w"), pairs.select("i", "w")]).with_columns(pl.col("w").hash(17).alias("h"))
    h, rows = grams["h"].to_numpy(), grams["i"].to_numpy()
    out = np.zeros((len(prompts), DIMENSIONS))
    np.add.at(
        out,
        (rows, (h % np.uint64(DIMENSIONS)).astype(np.int64)),
        np.where((h >> np.uint64(40)) & np.uint64(1), 1.0, -1.0),
    )
    norm = np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(out / np.maximum(norm, 1e-9))


def normality(values: F64) -> float:
    """Shapiro-Francia's W': squared correlation of sorted values with normal scores, 1 for a perfect fit."""
    n = len(values)
    inverse = NormalDist().inv_cdf
    scores = np.array([inverse((i - 0.375) / (n + 0.25)) for i in range(1, n + 1)])
    x = np.sort(values) - values.mean()
    spread = float((x**2).sum() * (scores**2).sum())
    return float((x * scores).sum() ** 2 / spread) if spread > 0 else 1.0


def prada(log: pl.DataFrame, delta: float = 0.9, at_least: int = 100, look_at: int = 400) -> list[Revision]:
    """PRADA (Juuti et al. 2019): an account's distances between a query and its nearest earlier one are not normal.

    An alert where W' falls under ``delta`` over at least ``at_least`` distances; the first ``look_at`` queries.
    """
    out = []
    for (account,), rows in log.drop_nulls("prompt").group_by("account_id", maintain_order=True):
        if len(rows) < at_least:
            continue
        x = embed(rows["prompt"].head(look_at))
        near = np.sqrt(np.maximum(2 - 2 * (x @ x.T), 0.0))
        near[np.triu_indices(len(x))] = np.inf
        distance = near[1:].min(axis=1)
        if normality(distance[(distance - distance.mean()) <= 3 * distance.std()]) < delta:
            out.append(_account("prada", str(account), float(rows["at"][min(len(rows), look_at) - 1])))
    return out


class Mmd:
    """Maximum mean discrepancy of a window against a reference (arXiv 2606.05725), through random features.

    RBF kernels at 0.5, 1, 2 and 4 times the median distance, as sums of cosines; then MMD is a distance of means.
    """

    def __init__(self, reference: F64, rng: np.random.Generator, features: int = 512):
        pairs = reference[rng.integers(len(reference), size=(2, 2000))]
        middle = float(np.median(np.linalg.norm(pairs[0] - pairs[1], axis=1))) or 1.0
        bandwidths = np.repeat([0.5, 1.0, 2.0, 4.0], features // 4) * middle
        self._w = rng.standard_normal((reference.shape[1], features)) / bandwidths
        self._b = rng.random(features) * 2 * np.pi
        self.mean = self.features(reference).mean(axis=0)

    def features(self, x: F64) -> F64:
        """Random Fourier features, (n, features)."""
        return np.asarray(np.sqrt(2.0 / self._w.shape[1]) * np.cos(x @ self._w + self._b))

    def distance(self, means: F64) -> F64:
        """Squared MMD of windows by their mean features, (..., features)."""
        return np.asarray(((means - self.mean) ** 2).sum(axis=-1))


def mmd_threshold(
    mmd: Mmd, benign: F64, window: int, rng: np.random.Generator, quantile: float = MMD_QUANTILE
) -> float:
    """The ``quantile`` of null windows drawn from ``benign`` embeddings."""
    features = mmd.features(benign)
    null = [features[rng.integers(len(features), size=window)].mean(axis=0) for _ in range(MMD_NULL)]
    return float(np.quantile(mmd.distance(np.array(null)), quantile))


def mmd_per_account(log: pl.DataFrame, window: int = MMD_WINDOW, seed: int = 0) -> list[Revision]:
    """Windows of ``window`` prompts of one account against a reference drawn from the whole log."""
    rng, texts = np.random.default_rng(seed), log.drop_nulls("prompt")
    if len(texts) < 4 * window:
        return []
    sample = texts[np.sort(rng.permutation(len(texts))[: min(len(texts), 8000)])]
    x = embed(sample["prompt"])
    mmd = Mmd(x[::2], rng)
    limit = mmd_threshold(mmd, x[1::2], window, rng)
    out = []
    for (account,), rows in texts.group_by("account_id", maintain_order=True):
        for end in range(window, len(rows) + 1, window):
            mean = mmd.features(embed(rows["prompt"][end - window : end])).mean(axis=0)
            if float(mmd.distance(mean)) > limit:
                out.append(_account("mmd", str(account), float(rows["at"][end - 1])))
                break
    return out


BASELINES: Mapping[str, Callable[[pl.DataFrame], list[Revision]]] = {
    "500 calls an hour": calls_per_hour,
    "99.9 percentile of volume": volume_quantile,
    "shared payment": shared_payment,
    "shared network": shared_network,
    "shared template": shared_template,
    "chain-of-thought words": chain_of_thought,
    "PRADA": prada,
    "MMD per account": mmd_per_account,
}
NAMES = tuple(BASELINES)
_WITHOUT_TEXT = (calls_per_hour, volume_quantile, shared_payment, shared_network)


def run(name: str, log: Path) -> list[Revision]:
    """The alerts of a baseline over a log file."""
    baseline = BASELINES[name]
    return baseline(load(log, text=baseline not in _WITHOUT_TEXT))
