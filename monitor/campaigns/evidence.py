"""What holds of each account of a group, and of the group: shared links by kind, own requests in shared templates.

Works on many groups at once, candidates and calibration groups alike, so that both are measured by the same rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from monitor.campaigns.graph import LEAST_SHARED, Shared
from monitor.campaigns.holdings import holdings, placed
from monitor.campaigns.kinds import ATTESTED, CODE, EXACT, GROUP_OF, GROUPS, KINDS, TEMPLATES

MOSTLY_INSIDE, CLOSING_INSIDE = 0.5, 0.9
"""A value speaks for a group where the group holds this share of the tenants that have it, those of other campaigns
left out: of two campaigns with one set of prompts each had half of a template's holders, and one was low (seed 101)."""
OF_GROUP, APART_BITS = 0.8, 5.0
"""So does an attested one that this share of the group's tenants hold, if a stranger is that many bits less likely to
hold it: two campaigns that rent at one host share an address prefix, and neither has most of it."""
ROWS_AT_ONCE = 1 << 18
"""Rows of links that are looked at together: 40 MB of room. All at once took 160 MB where 66,000 accounts are known."""
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
_ATTESTED = ATTESTED & ~EXACT
_MEDIUM = np.array([kind.group in ("network", "software") for kind in KINDS], np.bool_)
_OPERATOR = CODE["egress_asn"]
_ATTESTED_GROUPS = np.unique(GROUP_OF[_ATTESTED])
_CLOSING = CODE["template_closing"]


@dataclass(frozen=True, slots=True)
class Witnesses:
    """``values``: one row a group and value that speaks for it (group, key, kind, value, held, df, bits, count).

    ``members``: one row a group and account, with bits by group of kinds, ``link_bits`` (their sum),
    ``attested_bits``, ``templated_requests`` (in templates that the group shares), ``replays`` (blobs that another
    had before), ``new_link`` (0 or 1: a network or client that the group shares is one the account took up after its
    first day) and ``moved`` (0 or 1: so for an address or a client, which an operator's network is not). Whoever takes
    up a telephone takes up an operator's network with all its region: one honest account, made in the half-day of a
    farm's, was in its core for that.
    """

    values: pl.DataFrame
    members: pl.DataFrame


def witnesses(
    groups: pl.DataFrame, shared: Shared, seen_step: I64, day_steps: int, suspect: I64, suspects: bool
) -> Witnesses:  # fmt: skip
    """``groups`` has ``group`` and ``account`` (UInt32); ``seen_step`` [accounts] is the step in which an account was
    first seen; ``day_steps`` steps make a day; ``suspect`` [keys]: tenants of campaigns that hold each, the groups' own
    among them where these are ``suspects``."""
    group, who = groups["group"].to_numpy().astype(np.int64), groups["account"].to_numpy().astype(np.int64)
    order = np.lexsort((who, group))
    group, who = group[order], who[order]
    begin, size = _span(who, shared.account)
    parts = [
        _of(group[a:b], who[a:b], begin[a:b], size[a:b], shared, seen_step, day_steps, suspect, suspects)
        for a, b in pairwise(_cuts(group, size))
    ]
    members = pl.concat([p.members for p in parts]).cast({"group": groups.schema["group"], "account": pl.UInt32()})
    return Witnesses(pl.concat([p.values for p in parts]), members)


def _cuts(group: I64, size: I64) -> list[int]:
    """Where the accounts are cut, between groups (nothing here looks at two): whole groups of some rows together."""
    begun = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]])) if len(group) else np.zeros(1, np.int64)
    rows = np.cumsum(size) - size
    chunk = rows[begun] // ROWS_AT_ONCE if len(group) else begun
    return [*begun[np.concatenate([[True], chunk[1:] != chunk[:-1]])].tolist(), len(group)]


def _of(
    group: I64, who: I64, begin: I64, size: I64, shared: Shared, seen_step: I64, day_steps: int, suspect: I64,
    suspects: bool,
) -> Witnesses:  # fmt: skip
    """Of these groups, in order; of each of ``who`` there are ``size`` rows from ``begin`` on."""
    values, place, ids = _speaking(group, who, begin, size, shared, suspect, suspects)
    member, row, at = placed(ids, place, begin, size)
    kind, n = shared.kind[shared.key[row]], len(who)
    count, first = (shared.links[c].to_numpy()[shared.row[row]].astype(np.int64) for c in ("count", "first"))

    def some(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return np.bincount(member[rows], minlength=n) > 0

    # Values of one group of kinds depend on one another: the rarest counts, not their sum.
    flat = np.zeros(n * len(GROUPS))
    np.maximum.at(flat, member * len(GROUPS) + GROUP_OF[kind], values["bits"].to_numpy()[at])
    bits = flat.reshape(n, len(GROUPS))
    # Whoever had a blob first may be its rightful owner, robbed of it: only those who sent it later replay.
    begun = np.full(len(values), np.iinfo(np.int64).max)
    np.minimum.at(begun, at, first)
    replays = np.bincount(member[EXACT[kind] & (first > begun[at])], minlength=n)
    # An opening and a closing belong to the same prompts: the larger of the two, not their sum.
    templated = [np.bincount(member[kind == k], count[kind == k], n) for k in sorted(TEMPLATES)]
    late = first >= seen_step[who[member]] + day_steps
    medium = _MEDIUM[kind]
    taken_up = medium & late
    members = {
        "group": group, "account": who, **{name: bits[:, i] for i, name in enumerate(GROUPS)},
        "link_bits": bits.sum(axis=1), "attested_bits": bits[:, _ATTESTED_GROUPS].sum(axis=1),
        "templated_requests": np.max(templated, axis=0).astype(np.int64),
        "new_link": np.where(some(medium), some(taken_up).astype(np.float64), np.nan),
        "moved": some(taken_up & (kind != _OPERATOR)).astype(np.float64),
        "replays": replays.astype(np.int64),
    }  # fmt: skip
    return Witnesses(values, pl.DataFrame({n: pl.Series(column, nan_to_null=True) for n, column in members.items()}))


def _span(who: I64, account: I32) -> tuple[I64, I64]:
    """Where the rows of each of ``who`` begin, and how many they are; ``account`` [rows] is sorted. Each is looked for
    once and in order: one after another as they came, a thousandth of ten million rows' accounts took 80 ms. In the
    rows' own type: numpy would copy all of them into the other."""
    each, place = np.unique(who.astype(account.dtype), return_inverse=True)
    begin = np.searchsorted(account, each)
    return begin[place], (np.searchsorted(account, each, side="right") - begin)[place]


def _speaking(
    group: I64, who: I64, begin: I64, size: I64, shared: Shared, suspect: I64, suspects: bool
) -> tuple[pl.DataFrame, I64, I32]:
    """Values that speak for a group, in order of group and key; which of them each number is (-1: none), and the number
    of each row."""
    count = shared.links["count"].to_numpy()
    every = holdings(group, begin, size, shared.tenant[who], shared.key, shared.row, count, len(shared.df))
    place = np.full(len(every.key), -1, np.int64)
    some = np.flatnonzero(every.held >= 2)  # most are held by one
    key, whose, held, tenants, count = (column[some] for column in every[1:])
    kind, df = shared.kind[key], shared.df[key]
    enough = (held >= LEAST_SHARED) | EXACT[kind]
    # "As a Markdown list" ends many prompts: a closing speaks for a group only where hardly anybody else has it.
    inside = np.where(kind == _CLOSING, CLOSING_INSIDE, MOSTLY_INSIDE)
    # Nearly all of the group hold an attested value that hardly anybody else does.
    strangers = (df - held + 0.5) / (shared.tenants - tenants + 1)
    apart = _ATTESTED[kind] & (held >= OF_GROUP * tenants) & (held / tenants >= 2.0**APART_BITS * strangers)
    others = np.maximum(suspect[key] - held, 0) if suspects else suspect[key]
    good = np.flatnonzero(enough & ((held >= inside * (df - others)) | apart))
    good = good[np.lexsort((key[good], whose[good]))]
    place[some[good]] = np.arange(len(good))
    values = pl.DataFrame(
        {
            "group": whose[good].astype(np.uint32), "key": key[good].astype(np.uint32),
            "kind": kind[good].astype(np.uint8), "df": df[good], "held": held[good].astype(np.int64),
            "count": count[good], "bits": np.log2(shared.tenants / df[good]), "value": shared.value[key[good]],
        }
    )  # fmt: skip
    return values, place, every.ids
