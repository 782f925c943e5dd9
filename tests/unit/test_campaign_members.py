"""Who works as a campaign does where there is no text."""

from __future__ import annotations

import numpy as np

from monitor.campaigns.features import Rates
from monitor.campaigns.members import _works_alike

ROW: dict[str, float | None] = {
    "harvest_share": None, "uniformity_quantile": 0.95, "at_cap_quantile": 0.95, "at_cap_share": 0.24,
    "tools_quantile": 0.98, "tools_share": 0.77, "one_shot_quantile": 0.2, "follow_up_share": 0.77,
}  # fmt: skip
NEVER_ASKS_BACK = {**ROW, "tools_quantile": 0.2, "one_shot_quantile": 0.97, "follow_up_share": 0.01}


def alike(row: dict[str, float | None], twice: bool, **rate: float) -> bool:
    known = {"requests": 18.0, "at_cap": 0.0, "tools": 0.0, "follow_up": 0.5} | rate
    now = {name: np.array([value]) for name, value in known.items()}
    own = Rates(np.array([0]), now, now, now, now["requests"], np.zeros((1, 1)), {})
    return bool(_works_alike(own, np.array([0]), row, np.array([twice]))[0])


def test_a_neighbour_with_one_habit_in_common_and_without_the_chief_one_is_another() -> None:
    assert not alike(ROW, True, at_cap=0.22, tools=0.11)
    assert alike(ROW, True, at_cap=0.22, tools=0.5)
    # what most of the campaign's requests show is enough, with two attested facts
    assert alike(ROW, True, tools=0.5)
    assert not alike(ROW, False, tools=0.5)
    assert alike(ROW, False, at_cap=0.22, tools=0.5)


def test_a_lesser_habit_may_be_missing() -> None:
    """A quarter of the campaign's answers are cut: an account of few requests may have none."""
    assert alike(ROW, True, at_cap=0.0, tools=0.8)


def test_whoever_asks_back_is_not_of_a_campaign_that_never_does() -> None:
    assert alike(NEVER_ASKS_BACK, True, at_cap=0.3, follow_up=0.0)
    assert alike(NEVER_ASKS_BACK, True, at_cap=0.3, follow_up=0.2)
    assert not alike(NEVER_ASKS_BACK, True, at_cap=0.3, follow_up=0.6)


def test_what_is_not_known_neither_shows_nor_lacks() -> None:
    assert not alike(ROW, True, tools=float("nan"))
    assert alike(ROW, True, at_cap=0.22, tools=float("nan"))
    assert alike(NEVER_ASKS_BACK, True, at_cap=0.3, follow_up=float("nan"))


def test_few_requests_and_text_say_nothing() -> None:
    assert not alike(ROW, True, tools=0.8, requests=4.0)
    assert not alike({**ROW, "harvest_share": 0.0}, True, tools=0.8)
