"""The campaign stage and its rules over daily account rows, for the nightly suite: linker and tests, as they run.

A day is one blob at the day's last step. It holds what the rows know: links, tokens, parameters, turns, billing, how
many requests came to a template, and how many of each task. What a prompt of a task shows (a question mark, a demand
for reasoning) is measured once, by the monitor's own sketches over prompts of the simulator's grammar. Seconds, models
and replayed blobs are not in the rows, so the tests on timing, release and replay say nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from .. import fields, wiring
from ..alerts import AlertOptions
from ..campaigns import StepBlob
from ..campaigns.kinds import CODE
from ..campaigns.opinions import CODES
from ..campaigns.options import NoFacts
from ..campaigns.sums import COLUMN, NAMES
from ..campaigns.sync import BITS
from ..campaigns.tally import TOTALS
from ..evaluate.inputs import Revision
from ..features.aggregates import CELL_LOG
from ..offline import Detector
from ..simulate.daily import LINKS, TASK_COLUMNS, DayRows
from ..simulate.draws import stream
from ..simulate.scenario import LANGUAGES, TASKS, background
from ..simulate.text import Ask, grammar
from ..simulate.world import FAMILIES
from ..sketch import Keyring, Sketcher
from ..sketch.kernel import SCALARS, texts_of
from ..sketch.vocabulary import LEXICON_FLAGS, SHAPE_NAMES
from .daily_links import KINDS

NAME = "detector"
PROMPTS = 400
"""Prompts of a task from which its rates are taken."""
TICKS = 4
"""Sessions of a day that are given a place in it."""
MOST = 100_000_000
"""Largest sum of a day: what a running monitor keeps in 32 bits over a week must fit here too."""
SHOWN = ("question", "n_human", "n_harvest", "lex_reasoning", "lex_rubric", "lex_dataset", "lex_benchmark")
_HARVEST = ("reasoning_elicitation", "rubric_grading", "preference_pair", "score_only", "dataset_generation")
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class Told(NoFacts):
    """What the provider said beside the rows: whose use is sanctioned, as the context of a log would have it."""

    def __init__(self) -> None:
        self.accounts: set[str] = set()

    def agreed(self, at_ms: int) -> set[str]:
        """The same at all times."""
        return self.accounts


def judged(detector: Detector, days: Iterator[DayRows], start_ts: float) -> Iterator[Revision]:
    """Alerts on campaigns at the end of each day, by the settings and rules of ``detector``."""
    settings, seed = detector.settings, detector.seed
    rules = wiring.load(settings, (detector.rules,) if detector.rules is not None else ())
    options = AlertOptions(tick_ms=settings.features.tick_s * 1000, subject_type=settings.source.entity, versions={})
    campaigns = wiring.campaigns(settings, rules, options)
    shown, rng, step_ms, told = prompt_rates(seed), stream(seed, "daily prompts"), campaigns.step_ms, Told()
    for number, day in enumerate(days, 1):
        step = int((start_ts + number * 86_400) * 1000) // step_ms - 1
        told.accounts.update(day.accounts.filter("agreed")["account"].cast(pl.String))
        campaigns.store.put([(step, 0, blob_of(day, step, step_ms, shown, rng))], {0: step + 1})
        for alert in campaigns.work(rules, told):
            yield msgspec.convert(msgspec.to_builtins(alert), Revision)


def blob_of(day: DayRows, step: int, step_ms: int, shown: F64, rng: np.random.Generator) -> StepBlob:
    """A day as a step's blob of one partition, sorted by account. ``shown`` as :func:`prompt_rates` gives it."""
    rows = day.accounts.sort("account")
    account = rows["account"].to_numpy()
    n, count = len(rows), {c: rows[c].to_numpy().astype(np.int64) for c in rows.columns if rows[c].dtype == pl.UInt32}
    requests = count["requests"]
    sums = np.zeros((n, len(NAMES)), np.int32)

    def put(name: str, values: I64 | F64) -> None:
        sums[:, COLUMN[name]] = np.clip(values, 0, MOST)

    # an embedding has a text too, but the monitor's shape tests are over prompts of all operations alike
    for name in ("n_text", "n_turn", "n_cap_known", "n_stream_known", "n_tools_known"):
        put(name, requests)
    put("n_follow", requests - count["sessions"])
    put("n_error", count["failed"])
    put("n_ok", requests - count["failed"])
    put("n_cap", np.minimum(count["capped"], requests - count["failed"]))
    put("n_stream", count["streamed"])
    put("n_tools", count["tools"])
    for name, kind in (("log_in", "input_tokens"), ("log_out", "output_tokens")):
        mean = rows[kind].to_numpy() / np.maximum(requests, 1)
        put(name, np.round(CELL_LOG * np.log2(mean + 1.0)) * requests)
    for name, values in zip(SHOWN, _drawn(rows, requests, shown, rng), strict=True):
        put(name, values)
    totals = np.zeros((n, len(TOTALS)), np.int64)
    for i, name in enumerate(TOTALS[:3]):
        totals[:, i] = rows[name].to_numpy()
    org = day.links.filter(pl.col("kind") == LINKS.index("org")).select("account", "value").unique("account")
    tenant = rows.select("account").join(org, on="account", how="left", maintain_order="left")["value"]
    names = rows["account"].cast(pl.String)
    at = step * step_ms
    # when in the day is not known: each session somewhere, so that chance alone brings two accounts together
    ticks = np.zeros(n, np.uint64)
    for k in range(TICKS):
        ticks |= np.where(count["sessions"] > k, np.uint64(1) << rng.integers(BITS, size=n).astype(np.uint64), 0)
    table = pl.DataFrame({
        "account": names, "tenant": ("org-" + tenant.cast(pl.String)).zip_with(tenant.is_not_null(), names),
        "created_ms": (rows["created_s"] * 1000).cast(pl.Int64),
        "billing": rows["billing"].replace_strict({b: i + 1 for i, b in enumerate(fields.BILLING_TYPES)}, default=None,
                                                  return_dtype=pl.UInt8),
        "first_ms": pl.Series(np.full(n, at)), "last_ms": pl.Series(np.full(n, at)),
        "ticks": pl.Series(ticks), "exemplar": names, **{code: pl.Series(np.zeros(n, np.uint8)) for code in CODES},
    })  # fmt: skip
    models = pl.DataFrame(schema={"account": pl.UInt32, "model": pl.String, "count": pl.Int32})
    return StepBlob(step, 0, table, _links(day, account, requests, count["templated"]), models, made=(totals, sums))


def _links(day: DayRows, account: I64, requests: I64, templated: I64) -> pl.DataFrame:
    """Links by row of the blob; a day's templated requests are spread evenly over its templates."""
    codes = {LINKS.index(ours): CODE[theirs] for ours, theirs in KINDS.items()}
    links = day.links.filter(pl.col("kind").is_in([*codes])).sort("account", "kind", "value")
    row = np.searchsorted(account, links["account"].to_numpy())
    template = (links["kind"] == LINKS.index("template")).to_numpy()
    of_each = np.bincount(row[template], minlength=len(account))
    count = np.where(template, -(-templated[row] // np.maximum(of_each[row], 1)), requests[row])
    kind = links["kind"].replace_strict(codes, return_dtype=pl.UInt8)
    count = np.clip(count, 1, MOST).astype(np.int32)
    made = {"account": row.astype(np.uint32), "kind": kind, "value": links["value"], "count": count}
    return pl.DataFrame(made).sort("account", "kind", "value")


def _drawn(rows: pl.DataFrame, requests: I64, shown: F64, rng: np.random.Generator) -> Iterator[I64]:
    """How many requests of each row show each of :data:`SHOWN`."""
    tasks = rows.select(TASK_COLUMNS).to_numpy() / np.maximum(requests, 1)[:, None]
    human = rows["human"].to_numpy() / np.maximum(requests, 1)
    casual = rows["casual"].to_numpy().astype(np.int64)
    for k in range(len(SHOWN)):
        plain, dressed = (np.einsum("nt,nt->n", tasks, shown[:, h, :, k].T[casual]) for h in (0, 1))
        yield rng.binomial(requests, np.clip(plain * (1 - human) + dressed * human, 0.0, 1.0))


@cache
def prompt_rates(seed: int, prompts: int = PROMPTS) -> F64:
    """Share of prompts that show each of :data:`SHOWN`, 0 to 1, by task, wording and typing.

    Shape [tasks, 2 (plainly, as people do), 2 (with care, casually), len(SHOWN)].
    """
    words, rng = grammar(seed, FAMILIES, 8), stream(seed, "daily rates")
    sketcher = Sketcher(Keyring.from_seed(seed))
    spoken = np.zeros(len(LANGUAGES))
    for group in background().groups:
        for language, share in group.text.languages.items():
            spoken[LANGUAGES.index(language)] += group.share * share
    out = np.zeros((len(TASKS), 2, 2, len(SHOWN)))
    for task in range(len(TASKS)):
        for human in (0, 1):
            for casual in (0, 1):
                ask = Ask(
                    np.full(prompts, task), rng.choice(len(LANGUAGES), prompts, p=spoken / spoken.sum()),
                    rng.integers(16, size=prompts), rng.integers(FAMILIES, size=prompts), np.zeros(prompts, np.int64),
                    rng.random(prompts) < 0.5, np.full(prompts, human == 1), np.full(prompts, casual == 1),
                )  # fmt: skip
                texts = texts_of(words.render(words.compose(rng, ask)).to_list())
                made = sketcher.sketch_texts(texts, None, np.zeros(prompts, np.int64), want=SCALARS)
                out[task, human, casual] = _shares(made.shape, made.lexicon)
    return out


def _shares(shape: npt.NDArray[np.uint8], lexicon: npt.NDArray[np.uint32]) -> list[float]:
    def says(scalar: str) -> npt.NDArray[np.bool_]:
        return np.asarray(shape[:, SHAPE_NAMES.index(scalar)] > 0)

    def flag(*names: str) -> npt.NDArray[np.bool_]:
        bits = sum(1 << LEXICON_FLAGS.index(name) for name in names)
        return np.asarray(lexicon & np.uint32(bits) != 0)

    seen = (
        says("has_question"), says("first_person") | says("politeness"), flag(*_HARVEST), flag("reasoning_elicitation"),
        flag("rubric_grading", "preference_pair", "score_only"), flag("dataset_generation"), flag("multiple_choice"),
    )  # fmt: skip
    return [float(x.mean()) for x in seen]
