"""The campaign of one round of a live drill: a scenario moved to now, dressed as the log, text taken away as there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from monitor import fields

from .drill import Dresser, Profile, event_time, raw
from .inputs import DAY

ACCOUNTS = 200
"""Ordinary accounts of the population that a scenario's campaign is sized for: some ten to sixty accounts."""

Request = dict[str, Any]
Strip = Callable[[Mapping[str, Any]], Request]


def dressed(
    profile: Profile, scenario: str, seed: int, start: float, length_s: float, strip: Strip
) -> list[tuple[float, Request]]:
    """Requests with their event times from ``start`` on, for ``length_s`` seconds, in order.

    Times and dates of creation are moved, so that the campaign's first request is at ``start``. ``strip`` makes what a
    gateway sends that keeps no text; it is used where the log was stripped so.
    """
    day = start // DAY * DAY
    # whole days, at any hour alike: a study of minutes knows no hours
    span = replace(profile, first=day, last=day + length_s + 2 * DAY, hours=np.ones(24, np.int64),
                   accounts={str(i) for i in range(ACCOUNTS)})  # fmt: skip
    made = raw(span, scenario, seed)
    if not made.requests:
        return []
    requests = sorted(made.requests, key=lambda r: (event_time(r), r["request_id"]))
    move = start - event_time(requests[0])
    sketched = profile.has("sketch") and not profile.has("prompt")
    given = _taken(requests[0], strip) if sketched else frozenset()
    dresser = Dresser(profile, given, f"{scenario}/{seed}/{start}")
    out = []
    for request in requests:
        at = event_time(request) + move
        if at > start + length_s:
            break
        moved = {k: v + move if k in _TIMES and v is not None else v for k, v in request.items()}
        worn = dresser.dress(moved)
        out.append((at, strip(worn) if sketched else worn))
    return out


_TIMES = frozenset(f.name for f in fields.FIELDS.values() if f.kind is fields.Kind.TIME)


def _taken(request: Mapping[str, Any], strip: Strip) -> frozenset[str]:
    """Fields that a gateway takes away with the text."""
    held = {k: v for k, v in request.items() if v is not None}
    return frozenset(held.keys() - strip(held).keys())
