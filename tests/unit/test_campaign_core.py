"""Whoever was core stays it while he is silent, wherever his campaign goes, until he shows another self."""

from __future__ import annotations

import numpy as np
import pytest
from campaign_world import FIRST, Act, blob, campaign, people

from monitor.campaigns import CampaignStage
from monitor.campaigns.members import FAMILIES, code_of
from monitor.campaigns.registry import Registry
from monitor.campaigns.stage import Candidates

DAYS_LATER = 3 * 144
"""Steps until what an account did is no longer of today or yesterday."""


def harvesters(count: int, **change: object) -> list[Act]:
    """A campaign without a template of its own: what they do is to ask for reasoning."""
    acts = campaign(count, **change)
    for act in acts:
        del act.links["template_opening"]
    return acts


def core(found: Candidates | None) -> dict[str, tuple[str, ...]]:
    assert found is not None
    return {m.account: m.families for f in found.findings.values() for m in f.members if m.tier == "core"}


def days_later(stage: CampaignStage, acts: list[Act]) -> Candidates | None:
    """Everybody else goes on, and so do ``acts``, three days after what came before."""
    stage.step(FIRST + DAYS_LATER - 1, [blob(DAYS_LATER - 1, people(400))])
    return stage.step(FIRST + DAYS_LATER, [blob(DAYS_LATER, people(400) + acts)])


def begun() -> tuple[CampaignStage, list[Act]]:
    stage, acts = CampaignStage(), harvesters(12)
    assert core(stage.step(FIRST, [blob(0, people(400) + acts)])).keys() == {a.account for a in acts}
    return stage, acts


def test_silence_is_no_innocence() -> None:
    stage, acts = begun()
    later = core(days_later(stage, acts[:5]))
    assert later.keys() == {a.account for a in acts}
    assert later[acts[11].account] == ("linkage", "content"), "as it was when he was last heard of"


def test_a_few_other_prompts_are_no_other_self_and_many_are() -> None:
    stage, acts = begun()
    changed = harvesters(12, sums={"question": 2, "n_human": 3})
    changed[10].requests, changed[11].requests = 7, 8
    later = core(days_later(stage, [*acts[:5], *changed[10:]]))
    assert acts[10].account in later
    assert acts[11].account not in later


def test_without_text_requests_tell() -> None:
    """Tools in most of the requests are what they are known by; none in eight of them is another way to work."""
    habits = {"n_tools": 5, "n_cap": 3, "n_cap_known": 6, "n_text": 0}
    ordinary = people(400)
    for i, act in enumerate(ordinary):  # none works as another does
        act.requests = 6
        act.sums = {"n_text": 0, "n_cap_known": 6, "n_follow": i % 5, "n_stream_known": 6, "n_stream": i % 7,
                    "n_json": i % 4, "log_in": i * 37 % 300, "log_out": i * 53 % 300}  # fmt: skip
    stage, acts = CampaignStage(), harvesters(12, requests=6, sums=habits)
    assert core(stage.step(FIRST, [blob(0, ordinary + acts)])).keys() == {a.account for a in acts}
    other = [harvesters(12, requests=n, sums={"n_text": 0, "n_cap_known": n})[i] for i, n in ((10, 7), (11, 8))]
    stage.step(FIRST + DAYS_LATER - 1, [blob(DAYS_LATER - 1, ordinary)])
    later = core(stage.step(FIRST + DAYS_LATER, [blob(DAYS_LATER, ordinary + acts[:8] + other)]))
    assert acts[9].account in later
    assert acts[10].account in later
    assert acts[11].account not in later


@pytest.mark.parametrize(("taken_up", "members"), [("egress_prefix", 12), ("client_build", 12), ("egress_asn", 0)])
def test_an_operators_network_taken_up_late_is_nobodys_conduct(taken_up: str, members: int) -> None:
    """A telephone takes up an operator's network with all its region; an address or a client is of few."""
    asking = {"question": 2, "n_human": 3, "n_follow": 2}
    acts, stage = campaign(12, links={"payment": [7], "client_build": [8]}, sums=asking), CampaignStage()
    stage.step(FIRST, [blob(0, people(400) + acts)])
    for act in acts:
        act.links = {"payment": [7], taken_up: [9]}
    found = stage.step(FIRST + 150, [blob(150, people(400) + acts)])
    assert found is not None
    (campaigns,) = found.rows["new_link_share"].to_list()
    assert campaigns == 1.0, "of the campaign it says something all the same"
    assert core(found) == {act.account: ("linkage", "history") for act in acts[:members]}


def test_a_restart_knows_who_was_core() -> None:
    stage, acts = begun()
    copy = CampaignStage()
    copy.load(stage.dump())
    one, other = days_later(stage, acts[:5]), days_later(copy, acts[:5])
    assert core(one) == core(other)
    assert len(core(one)) == 12


def test_core_members_stay_so_in_whatever_their_campaign_becomes() -> None:
    registry, names = Registry(), [f"a{i}" for i in range(12)]
    registry.update([np.arange(0, 4), np.arange(4, 12)], names, 1)
    one, other = registry.campaigns.values()
    one.core, one.core_families = [1, 3], [5, 6]
    other.core, other.core_families = [8, 10], [7, 9]
    registry.update([np.arange(0, 12)], names, 2)
    (whole,) = registry.campaigns.values()
    assert whole.cores() == {1: 5, 3: 6, 8: 7, 10: 9}
    registry.update([np.arange(0, 9), np.arange(9, 12)], names, 3)
    assert [c.cores() for c in registry.campaigns.values()] == [{1: 5, 3: 6, 8: 7}, {10: 9}]
    registry.update([np.arange(0, 3)], names, 4)
    assert [c.cores() for c in registry.campaigns.values()] == [{1: 5}], "whoever has left is nobody's"


def test_a_checkpoint_from_before_has_cores_without_what_held_of_them() -> None:
    registry = Registry()
    registry.update([np.arange(0, 4)], [f"a{i}" for i in range(4)], 1)
    (campaign,) = registry.campaigns.values()
    campaign.core = [1, 3]
    assert campaign.cores() == {}


@pytest.mark.parametrize("families", [(), ("linkage",), ("linkage", "content", "corpus"), FAMILIES])
def test_families_are_bits_in_an_order_that_stays(families: tuple[str, ...]) -> None:
    code = code_of(families)
    assert tuple(name for i, name in enumerate(FAMILIES) if code >> i & 1) == families
    assert FAMILIES[:8] == ("linkage", "replay", "content", "template", "history", "timing", "shape", "corpus")


def neighbours_join(acts: list[Act], harvest: int, links: tuple[str, ...]) -> bool:
    """Whether three older accounts that hold these of the campaign's ``links`` and its client, and so many of whose
    twelve prompts harvest, are core beside it."""
    neighbours = harvesters(3, name="n", requests=12, sums={"n_harvest": harvest, "question": 5, "n_human": 8})
    for act in neighbours:
        act.created_days = 200.0 + 40.0 * int(act.account[1:])
        act.links = {kind: act.links[kind] for kind in (*links, "client_build")}
    found = core(CampaignStage().step(FIRST, [blob(0, people(400) + acts + neighbours)]))
    assert {a.account for a in acts} <= found.keys()
    return {a.account for a in neighbours} <= found.keys()


@pytest.mark.parametrize(("links", "is_core"), [(("payment",), False), (("payment", "egress_prefix"), True)])
def test_whoever_one_attested_fact_ties_must_do_more_of_what_the_campaign_does(
    links: tuple[str, ...], is_core: bool
) -> None:
    """Three of twelve prompts, where all that is known of the others is that three of four ask for reasoning."""
    assert neighbours_join(harvesters(12), 3, links) is is_core


@pytest.mark.parametrize(
    ("links", "template", "is_core"),
    [(("payment",), True, False), (("payment", "egress_prefix"), True, True), (("payment",), False, True)],
)
def test_whoever_one_attested_fact_ties_must_write_as_a_campaign_does_that_has_templates(
    links: tuple[str, ...], template: bool, is_core: bool
) -> None:
    """A tutor asks for steps as often as the campaign does, and in words of his own."""
    assert neighbours_join(campaign(12) if template else harvesters(12), 11, links) is is_core


@pytest.mark.parametrize(("met", "is_core"), [(6, False), (13, True)])
def test_a_few_meetings_are_no_conduct(met: int, is_core: bool) -> None:
    """Six of thirteen in one tick are 15 pairs, five times what chance gives; all of them are 78."""
    stage = CampaignStage()
    ordinary, acts = people(400), campaign(12)
    neighbour = Act("n0", created_days=400.0, links={k: acts[0].links[k] for k in ("egress_prefix", "client_build")})
    whole = [neighbour, *acts]
    for i, act in enumerate([*whole, *ordinary]):
        act.ticks = 1 << i % 60
        act.sums |= {"question": 2, "n_human": 3}
    stage.step(FIRST, [blob(0, [*ordinary, *whole])])
    for i, act in enumerate(whole):
        act.ticks = 1 << (20 if i < met else i)
    assert ("n0" in core(stage.step(FIRST + 6, [blob(6, [*ordinary, *whole])]))) is is_core


@pytest.mark.parametrize(("payers", "share"), [(12, 1.0), (6, 0.5), (5, None), (0, None)])
def test_who_shares_a_payer_is_unknown_where_most_show_none(payers: int, share: float | None) -> None:
    acts = campaign(12)
    for act in acts[payers:]:
        del act.links["payment"]
    found = CampaignStage().step(FIRST, [blob(0, people(400) + acts)])
    assert found is not None
    assert found.rows["tenants"].to_list() == [12.0]
    assert found.rows["payment_link_share"].to_list() == [share]


@pytest.mark.parametrize(("strangers", "share"), [(0, 1.0), (40, 0.0)])
def test_a_template_of_two_campaigns_is_each_ones_own_but_not_one_of_strangers(strangers: int, share: float) -> None:
    """Two that bought one set of prompts: neither has most of its holders."""
    one, other = campaign(12), campaign(14, name="d", base=910_000, created_days=30.0)
    ordinary = people(400)
    for act in [*other, *ordinary[:strangers]]:
        act.links["template_opening"] = one[0].links["template_opening"]
    found = CampaignStage().step(FIRST, [blob(0, ordinary + one + other)])
    assert found is not None
    assert sorted(found.rows["tenants"].to_list()) == [12.0, 14.0]
    assert found.rows["template_share"].to_list() == [share, share]
