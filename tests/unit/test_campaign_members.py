"""Who works as a campaign does where there is no text, and who asks as little where there is."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from monitor.campaigns.features import Rates, Ratios
from monitor.campaigns.members import _asks_nobody, _works_alike
from monitor.campaigns.sums import PLACE, SHAPE

ROW: dict[str, float | None] = {
    "harvest_share": None, "uniformity_quantile": 0.95, "at_cap_quantile": 0.95, "at_cap_share": 0.24,
    "tools_quantile": 0.98, "tools_share": 0.77, "one_shot_quantile": 0.2, "follow_up_share": 0.77,
}  # fmt: skip
NEVER_ASKS_BACK = {**ROW, "tools_quantile": 0.2, "one_shot_quantile": 0.97, "follow_up_share": 0.01}


class _Told:
    """Rates that are what the test says."""

    def __init__(self, known: dict[str, npt.NDArray[np.float64]]):
        self._known = known

    def of(self, name: str, account: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return self._known[name][account]


def told(known: dict[str, npt.NDArray[np.float64]], shape: npt.NDArray[np.int64]) -> Rates:
    now, none = cast(Ratios, _Told(known)), Ratios([np.zeros((len(shape), len(PLACE)), np.int32)])
    return Rates(now, none, none, {}, shape.__getitem__)


def alike(row: dict[str, float | None], twice: bool, **rate: float) -> bool:
    known = {"requests": 18.0, "at_cap": 0.0, "tools": 0.0, "follow_up": 0.5} | rate
    now = {name: np.array([value]) for name, value in known.items()}
    own = told(now, np.zeros((1, len(SHAPE)), np.int64))
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


NOBODY_ASKS: dict[str, float | None] = {
    "uniformity_quantile": 0.8, "shape_quantile": 0.97, "impersonal_quantile": 0.98, "question_share": 0.08,
    "human_share": 0.1,
}  # fmt: skip
INSTRUCTIONS = {"n_told": 12, "n_whole": 12, "whole_command": 12, "whole_length": 12 * 20, "whole_length2": 12 * 400}
TALK = {**INSTRUCTIONS, "whole_command": 0, "whole_second_person": 9, "whole_first_person": 9, "whole_newline": 12 * 20,
        "whole_newline2": 12 * 900}  # fmt: skip


def asks_as_little(
    row: dict[str, float | None], *accounts: dict[str, int], twice: bool = False, tenant: int = 1, asks: float = 0.0
) -> list[bool]:
    """Of accounts with these sums, each with twelve prompts; ``tenant`` of them belong to one."""
    n = len(accounts)
    now = {"texts": np.full(n, 12.0), "question": np.full(n, asks), "human": np.zeros(n)}
    shape = np.array([[a.get(name, 0) for name in SHAPE] for a in accounts])
    whose = np.arange(n) // tenant
    never = np.zeros(n, np.bool_)
    return _asks_nobody(told(now, shape), np.arange(n), row, np.full(n, twice), whose, never).tolist()


def test_one_attested_fact_takes_instructions_of_ones_own() -> None:
    assert asks_as_little(NOBODY_ASKS, INSTRUCTIONS, TALK) == [True, False]
    assert asks_as_little(NOBODY_ASKS, INSTRUCTIONS, TALK, twice=True) == [True, True]
    assert asks_as_little(NOBODY_ASKS, INSTRUCTIONS, twice=True, asks=0.5) == [False], "he asks"


def test_the_shape_is_the_tenants() -> None:
    """A framed customer is not his one account that sends what instructions look like."""
    assert asks_as_little(NOBODY_ASKS, INSTRUCTIONS, TALK, TALK, TALK, TALK, TALK, tenant=6) == [False] * 6


def test_few_prompts_or_none_whole_say_nothing() -> None:
    few = {name: count // 2 for name, count in INSTRUCTIONS.items()}
    assert asks_as_little(NOBODY_ASKS, few, {}, {"n_told": 12}) == [False] * 3


def test_the_campaign_must_be_one_that_asks_nobody() -> None:
    for change in (
        {"shape_quantile": 0.8}, {"shape_quantile": None}, {"impersonal_quantile": 0.5}, {"question_share": 0.4},
        {"human_share": None},
    ):  # fmt: skip
        assert asks_as_little({**NOBODY_ASKS, **change}, INSTRUCTIONS, twice=True) == [False]
    alike_only = {**NOBODY_ASKS, "shape_quantile": None, "uniformity_quantile": 0.95}
    assert asks_as_little(alike_only, INSTRUCTIONS) == [True]


def test_of_those_who_were_found_so_all_counts_that_is_known() -> None:
    """Three of ten new prompts ask; of the forty before that none did, or as many."""
    for before, stays in ((0, True), (12, False)):
        now, past = (np.zeros((2, len(PLACE)), np.int32) for _ in range(2))
        now[:, PLACE["n_text"]], now[:, PLACE["question"]] = 10, 3
        past[:, PLACE["n_text"]], past[:, PLACE["question"]] = 40, before
        own = Rates(Ratios([now]), Ratios([now]), Ratios([past]), {}, np.zeros((2, len(SHAPE)), np.int64).__getitem__)
        were, nobody = np.array([True, False]), np.zeros(2, np.bool_)
        whose = np.arange(2)
        assert _asks_nobody(own, np.arange(2), NOBODY_ASKS, nobody, whose, were).tolist() == [stays, False]
