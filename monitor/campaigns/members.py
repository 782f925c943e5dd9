"""Who belongs to a campaign and how surely, and what speaks for it: tiers, links, exposure, exemplars.

``core`` may be acted on, so it takes two roots that hold of the account itself: a link that the provider attests and
that the campaign's accounts share, and own conduct like the campaign's (requests in its templates, requests that
harvest, items of a corpus that the campaign splits, a client or address taken up lately, a replayed blob). What the
client chooses makes nobody core: whoever copies an honest account's system prompt and address drags it into the graph,
not into the core. Who was core stays it while he sends too little to tell, since silence (he may have been blocked) is
no innocence: of 454 members of a world with public prompts 272 were core at the end of three days, with it 357.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns import shapes
from monitor.campaigns.evidence import Witnesses
from monitor.campaigns.features import Rates, Ratios
from monitor.campaigns.kinds import CODE, COHORT_MS, GROUPS, KINDS
from monitor.campaigns.population import Population

LINKS_SHOWN = 12
EXEMPLARS = 40
TOGETHER, MEETINGS = 3.0, 40.0
"""Coincidence in time over chance from which meeting in a tick is conduct; other linked groups have 0.7 to 1.3. And so
many pairs that met, as the rule on it asks: in his first step behind a framed address a busy account of the customer's
met two of fourteen others, and was core for an hour (seed 112)."""
UNUSUAL = 0.9
"""Rank from which a statistic of the campaign counts as its conduct."""
MOVED = 0.15
"""Share of the campaign that took up a shared network or client lately, from which that is conduct."""
_ATTESTED_GROUPS = ("payment", "network", "creation")
ASKS, LEAST_PROMPTS = 0.2, 8
"""Share of prompts that ask, or speak of a person, up to which nobody asks; prompts of a tenant that tell."""
INSTRUCTS = 1.0
"""Log odds of a tenant's own prompts from which they are instructions: of honest tenants that ask nothing a third."""
MOST = 0.5
"""Share of the campaign's requests from which a habit is what it is known by, and whoever has it not is another."""
ALIKE = 0.25
"""Share of the campaign's own rate that a member must reach to count as doing the same."""
MORE_ALIKE = 0.5
"""That share for whoever one attested fact ties alone. A tutor's account, made in the same half-day as a campaign's and
tied by nothing else, had its phrases in 4 of 38 prompts, where it had them in one of four (seed 95). Nor does it do for
him where most of the campaign's requests are in its templates and his are not: another tutor asked for steps in 8 of 17
prompts, none of them in a template that the campaign had in 0.8 of its own (seed 201)."""
_TIERS = ("core", "likely", "peripheral")
FAMILIES = ("linkage", "replay", "content", "template", "history", "timing", "shape", "corpus")
"""Families that may hold of a member alone. Checkpoints have bits in this order: new ones come behind."""


class MemberOf(NamedTuple):
    """One account: tier, 0 to 1, and the roots and families that hold of it alone."""

    account: str
    tier: str
    membership: float
    families: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of a candidate beside its statistics: numbers, times, keyed hashes and the provider's ids."""

    members: tuple[MemberOf, ...]
    links: tuple[dict[str, object], ...]
    exposure: dict[str, object]
    exemplars: tuple[str, ...]
    start_ms: int
    history: tuple[tuple[int, int, int], ...]
    corpus: dict[str, object] | None = None
    """What it asks of a known corpus, in words; None: nothing, or nothing that tells."""


def findings(
    ids: Sequence[str], groups: Sequence[npt.NDArray[np.int64]], witness: Witnesses, rows: pl.DataFrame,
    people: Population, own: Rates, together: Sequence[set[int]], sweeping: Sequence[Collection[int]],
    corpora: Sequence[dict[str, object] | None], cores: Sequence[Mapping[int, int]],
) -> dict[str, Findings]:  # fmt: skip
    """Findings of each candidate, by id. ``together``, ``sweeping``: rows of those that met in a tick, or whose tenant
    asks its part of a corpus; ``corpora``: what is said of the corpus; ``cores``: rows that were core until now, with
    the families that held of them (:func:`code_of`)."""
    parts = witness.members.partition_by("group", as_dict=True)
    values = witness.values.partition_by("group", as_dict=True)
    out = {}
    for number, (campaign, group) in enumerate(zip(ids, groups, strict=True)):
        row = rows.row(number, named=True)
        out[campaign] = Findings(
            members=_members(parts[(number,)], row, people, own, together[number], sweeping[number], cores[number]),
            links=_links(values.get((number,)), people),
            exposure=_exposure(group, people), exemplars=_exemplars(group, people),
            start_ms=int(people.first_ms[group].min()), history=(), corpus=corpora[number],
        )  # fmt: skip
    return out


def _members(
    part: pl.DataFrame, row: dict[str, float | None], people: Population, own: Rates, together: set[int],
    sweeping: Collection[int], before: Mapping[int, int],
) -> tuple[MemberOf, ...]:  # fmt: skip
    account = part["account"].to_numpy()
    attested = part["attested_bits"].to_numpy() > 0
    replay = part["replays"].to_numpy() > 0
    linked = np.array([part[g].to_numpy() > 0 for g in GROUPS]).sum(axis=0)
    # Conduct is the tenant's: one account of a framed customer whose wording meets a phrase list is not the customer.
    at = account.astype(np.int64)
    _, tenant = np.unique(people.tenant[account], return_inverse=True)  # numbered once: each sum below asks for it
    texts = own.now.of("texts", at)
    harvest = _of_tenant(np.nan_to_num(own.now.of("harvest", at)) * texts, texts, tenant)
    twice = np.array([part[g].to_numpy() > 0 for g in _ATTESTED_GROUPS]).sum(axis=0) >= 2
    counted = part["templated_requests"].to_numpy().astype(np.float64)
    templated = _of_tenant(counted, people.texts[account].astype(np.float64), tenant)
    written = row["template_share"] or 0.0
    template = (counted > 0) & (templated >= ALIKE * written)
    content = _does(harvest, texts, row["harvest_share"], np.where(twice, ALIKE, MORE_ALIKE))
    content &= twice | template | (written < MOST)
    moved = (row["new_link_share"] or 0.0) >= MOVED and (row["new_link_quantile"] or 0.0) >= UNUSUAL
    lately = (part["moved"].to_numpy() > 0) & moved
    gathers = (row["sync_ratio"] or 0.0) >= TOGETHER and (row["sync_pairs"] or 0.0) >= MEETINGS
    timed = np.isin(account, list(together)) & gathers
    sweeps = np.isin(account, list(sweeping))
    kept = np.array([before.get(a, 0) for a in at.tolist()], np.int64)
    alike = _works_alike(own, at, row, twice) | _asks_nobody(own, at, row, twice, tenant, kept & code_of(["shape"]) > 0)
    conduct = {
        "content": content, "template": template, "history": lately, "timing": timed, "shape": alike, "corpus": sweeps,
    }  # fmt: skip
    core = attested & np.any(list(conduct.values()), axis=0) | replay
    holds = {"linkage": attested, "replay": replay, **conduct}
    code = (np.array([holds[name] for name in FAMILIES]) << np.arange(len(FAMILIES))[:, None]).sum(axis=0)
    sent = texts if row["harvest_share"] is not None else own.now.of("requests", at)
    silent = _summed(sent, tenant) < LEAST_PROMPTS
    stays = ~core & attested & silent & (kept > 0)
    core, code = core | stays, np.where(stays, code | kept, code)
    tier = np.where(core, 0, np.where(attested & (linked >= 2), 1, 2))
    bits = part["link_bits"].to_numpy()
    strongest = max(float(np.median(bits)), 1e-9)
    held = code >> np.arange(len(FAMILIES))[:, None] & 1
    reasons = np.minimum(bits / strongest, 2.0) + held.sum(axis=0) - 1.0
    # a power of arrays may differ in its last bit from one processor to the next
    sureness = np.clip([round(1.0 - 0.5**each, 4) for each in reasons.tolist()], 0.05, 0.99)
    # made once for those who hold alike: a list for each of 16,000 members was a third of a step
    families = {c: tuple(name for i, name in enumerate(FAMILIES) if c >> i & 1) for c in np.unique(code).tolist()}
    columns = [_TIERS[t] for t in tier.tolist()], sureness.tolist(), [families[c] for c in code.tolist()]
    made = map(MemberOf, [people.names[a] for a in account.tolist()], *columns)
    return tuple(sorted(made, key=itemgetter(0)))


def code_of(families: Collection[str]) -> int:
    """Families of a member as bits, in the order of ``FAMILIES``."""
    return sum(1 << i for i, name in enumerate(FAMILIES) if name in families)


def _of_tenant(
    part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64], tenant: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """``part`` over ``whole``, each added up over the accounts of one tenant."""
    return np.asarray(_summed(part, tenant) / np.maximum(_summed(whole, tenant), 1.0))


def _summed(values: npt.NDArray[np.float64], tenant: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Added up over the accounts of one tenant (numbered from 0), for each of them."""
    return np.asarray(np.bincount(tenant, values)[tenant])


def _works_alike(
    own: Rates, at: npt.NDArray[np.int64], row: dict[str, float | None], twice: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Where there is no text: whether accounts cut answers, offer tools or never ask back as the campaign does.

    One of these says little, and an address can be copied, so it takes two facts that you attest (``twice``) or two of
    these. With text it says too little at all: an honest neighbour does so by chance in one of his first requests.
    Whoever lacks what most of the campaign's requests show works in another way, whatever else he shares: a tutor made
    in the same hours behind the same address had answers cut as often, and a tenth of its tools.
    """
    shown, lacks = np.zeros(len(at), np.int64), np.zeros(len(at), np.bool_)
    if row["harvest_share"] is not None or (row["uniformity_quantile"] or 0.0) < UNUSUAL:
        return lacks
    enough = own.now.of("requests", at) >= 5
    for rank, name in (("at_cap_quantile", "at_cap"), ("tools_quantile", "tools")):
        if (row[rank] or 0.0) >= UNUSUAL:
            rate, theirs = own.now.of(name, at), row[f"{name}_share"] or 1.0
            shown += np.nan_to_num(rate) >= 0.5 * theirs
            lacks |= (theirs >= MOST) & (rate < 0.5 * theirs)
    if (row["one_shot_quantile"] or 0.0) >= UNUSUAL:
        follow = own.now.of("follow_up", at)
        shown += np.nan_to_num(follow, nan=1.0) <= 0.05
        lacks |= follow > 0.5
    return np.asarray(((shown >= 1) & twice | (shown >= 2)) & enough & ~lacks)


def _asks_nobody(
    own: Rates,
    at: npt.NDArray[np.int64],
    row: dict[str, float | None],
    twice: npt.NDArray[np.bool_],
    tenant: npt.NDArray[np.int64],
    were: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Whether accounts of a campaign in which nobody asks as people do ask no more than it does.

    Where each prompt is another one and none asks for reasoning, that is the conduct which is left. It takes enough of
    a tenant's prompts to tell (of eight that a person wrote three ask something), and two facts that you attest
    (``twice``) or prompts that have the shape of instructions. Of those who ``were`` found so all that is known counts:
    of ten prompts that instruct three ask something once in five times.
    """
    none = np.zeros(len(at), np.bool_)
    alike = max(row["uniformity_quantile"] or 0.0, row["shape_quantile"] or 0.0)
    if min(alike, row["impersonal_quantile"] or 0.0) < UNUSUAL:
        return none
    question, human = row["question_share"], row["human_share"]
    if question is None or human is None or question > ASKS or human > ASKS:
        return none
    own_shape = own.shape(at)
    shape = np.zeros((tenant.max() + 1, own_shape.shape[1]), np.int64)
    np.add.at(shape, tenant, own_shape)
    instructs = shapes.alone(shape)[tenant] >= INSTRUCTS
    plain = _plain(own.now, at, tenant) & (twice | instructs)
    return np.asarray(plain | were & _plain(Ratios([*own.today.parts, *own.before.parts]), at, tenant))


def _plain(sums: Ratios, at: npt.NDArray[np.int64], tenant: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether tenants sent enough prompts to tell, of which few ask or speak of a person."""
    texts = sums.of("texts", at)
    shares = [_of_tenant(np.nan_to_num(sums.of(c, at)) * texts, texts, tenant) for c in ("question", "human")]
    return np.asarray((_summed(texts, tenant) >= LEAST_PROMPTS) & (shares[0] <= ASKS) & (shares[1] <= ASKS))


def _does(
    rate: npt.NDArray[np.float64],
    texts: npt.NDArray[np.float64],
    pooled: float | None,
    alike: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Whether accounts harvest as the campaign does: often enough (``alike``: the share of its rate), and twice at
    least. One prompt of a framed customer whose wording met a phrase list must not put him in the core."""
    if pooled is None or pooled < 0.05:
        return np.zeros(len(rate), np.bool_)
    known = np.nan_to_num(rate)
    return np.asarray((known >= alike * pooled) & (known * texts >= 2.0))


def _links(values: pl.DataFrame | None, people: Population) -> tuple[dict[str, object], ...]:
    if values is None:
        return ()
    top = values.sort(pl.col("bits") * pl.col("held"), pl.col("key"), descending=[True, False]).head(LINKS_SHOWN)
    return tuple(
        {"kind": KINDS[kind].name, "value": _value(kind, value, people), "accounts": held, "population": df,
         "rarity": round(bits, 2), "attested": KINDS[kind].attested}
        for kind, value, held, df, bits in top.select("kind", "value", "held", "df", "bits").iter_rows()
    )  # fmt: skip


def _value(kind: int, value: int, people: Population) -> str:
    """A keyed hash; of a cohort, which hides nothing, the time in which its accounts were made (ISO 8601, UTC)."""
    if kind != CODE["creation_cohort"]:
        return f"{value:016x}"
    begin = people.cohort_ms(value)
    return "/".join(
        datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ") for ms in (begin, begin + COHORT_MS)
    )


def _exposure(group: npt.NDArray[np.int64], people: Population) -> dict[str, object]:
    totals = people.totals[group].sum(axis=0).tolist()
    return {
        "requests": totals[0], "input_tokens": totals[1], "output_tokens": totals[2], "reasoning_tokens": totals[3],
        "cost_usd": totals[4] / 1_000_000, "models": people.models_of(group),
    }  # fmt: skip


def _exemplars(group: npt.NDArray[np.int64], people: Population) -> tuple[str, ...]:
    """One request of each of up to forty members, by the keyed order in which accounts' hashes fall."""
    ids = sorted({people.exemplars[a] for a in group.tolist()} - {""})
    step = max(1, len(ids) // EXEMPLARS)
    return tuple(ids[::step][:EXEMPLARS])
