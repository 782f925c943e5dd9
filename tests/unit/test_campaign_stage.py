"""The campaign stage on populations made by hand: who is linked, who is core, and what leaves everybody alone."""

from __future__ import annotations

import random
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from campaign_world import FIRST, STEP_MS, Act, blob, campaign, people

from monitor.campaigns import (
    COLUMNS,
    CampaignOptions,
    CampaignStage,
    Candidates,
    StepBlob,
    evidence,
    many_of_bytes,
    many_to_bytes,
)
from monitor.campaigns.calibrate import BESIDE, ENOUGH, RANKED, ranks
from monitor.campaigns.cut import Cut
from monitor.campaigns.graph import surprise
from monitor.campaigns.kinds import COHORT_MS
from monitor.campaigns.registry import Registry
from monitor.campaigns.sync import activity, observed_and_expected
from monitor.features.campaign_catalogue import CAMPAIGN


class Agreed:
    """Facts of which only agreements are known."""

    def __init__(self, *names: str, banned: dict[str, int] | None = None):
        self.names, self.banned = frozenset(names), banned or {}

    def product_seen_ms(self, account: str, at_ms: int) -> int | None:
        return None

    def knows(self, kind: str) -> bool:
        return kind == "account_banned" and bool(self.banned)

    def banned_ms(self, account: str, at_ms: int) -> int | None:
        return self.banned.get(account)

    def agreed(self, at_ms: int) -> frozenset[str]:
        return self.names


def judged(acts: list[Act], stage: CampaignStage | None = None, facts: Agreed | None = None) -> Candidates:
    found = (stage or CampaignStage()).step(FIRST, [blob(0, acts)], facts)
    return found if found is not None else Candidates(pl.DataFrame(), {}, [])


def groups_of(found: Candidates) -> list[set[str]]:
    return sorted(({m.account for m in f.members} for f in found.findings.values()), key=sorted)


def tiers(found: Candidates, tier: str) -> set[str]:
    return {m.account for f in found.findings.values() for m in f.members if m.tier == tier}


def test_the_catalogue_lists_the_statistics_in_order() -> None:
    assert tuple(f.name for f in CAMPAIGN) == COLUMNS
    assert set(RANKED) < set(COLUMNS)


def test_a_campaign_is_found_and_nobody_else() -> None:
    found = judged(people(400) + campaign(12))
    assert groups_of(found) == [{f"c{i:04d}" for i in range(12)}]
    row = found.rows.row(0, named=True)
    assert (row["tenants"], row["attested_share"], row["template_share"]) == (12, 1.0, 1.0)
    assert row["harvest_share"] == pytest.approx(0.75)
    assert row["link_groups"] == 5  # payment, network, creation, software, template
    assert tiers(found, "core") == {f"c{i:04d}" for i in range(12)}


def test_a_cohort_is_shown_as_the_time_in_which_its_accounts_were_made() -> None:
    acts = campaign(12)
    for i, act in enumerate(acts):
        act.created_days += i / 60  # over four and a half hours
    made = [FIRST * STEP_MS - act.created_days * 86_400_000 for act in acts]
    found = judged(people(400) + acts)
    (links,) = (f.links for f in found.findings.values())
    cohorts = [link for link in links if link["kind"] == "creation_cohort"]
    assert any(link["accounts"] == len(acts) for link in cohorts)
    for link in cohorts:
        begin, end = (datetime.fromisoformat(at).timestamp() * 1000 for at in str(link["value"]).split("/"))
        assert end - begin == COHORT_MS
        assert sum(begin <= at < end for at in made) == link["accounts"]
    assert {link["kind"] for link in links if len(str(link["value"])) == 16} >= {"payment", "egress_prefix"}


def test_ordinary_people_are_no_candidate() -> None:
    assert judged(people(600)).findings == {}


def test_one_shared_value_joins_nobody() -> None:
    """A card alone, a vendor's client and prompt in many accounts, a regional address: one kind of fact each."""
    vendor = people(200, 1000)
    for act in vendor:
        act.links |= {"client_build": [7], "user_agent": [8], "system_prompt": [9], "tool_schema": [10], "ja4": [11]}
    card = people(30, 2000)
    for act in card:
        act.links["payment"] = [77]
    vpn = people(60, 3000)
    for act in vpn:
        act.links["egress_prefix"] = [88]
    assert judged(people(400) + vendor + card + vpn).findings == {}


def test_what_the_client_chooses_joins_nobody_by_itself() -> None:
    copied = campaign(12)
    for act in copied:
        del act.links["payment"], act.links["egress_prefix"]
        act.created_days = float(100 + 37 * int(act.account[1:]))
    assert judged(people(400) + copied).findings == {}


def test_one_organisation_is_one_tenant() -> None:
    assert judged(people(400) + campaign(12, tenant="org")).findings == {}


def test_an_agreement_leaves_its_accounts_out() -> None:
    agreed = Agreed(*(f"c{i:04d}" for i in range(12)))
    assert judged(people(400) + campaign(12), facts=agreed).findings == {}


def test_a_framed_customer_is_not_core() -> None:
    """He shares address, client and prompt with the campaign, and talks like a person."""
    framed = [
        Act(f"f{i}", tenant=f"firm{i % 2}", links={"egress_prefix": [900_001], "client_build": [900_002],
            "payment": [70_000 + i % 2]}, sums={"question": 3, "n_human": 4})
        for i in range(6)
    ]  # fmt: skip
    found = judged(people(400) + campaign(12) + framed)
    assert {f"f{i}" for i in range(6)} <= set.union(*groups_of(found))
    assert tiers(found, "core") == {f"c{i:04d}" for i in range(12)}


def test_one_prompt_that_met_a_phrase_list_makes_nobody_core() -> None:
    framed = [Act(f"f{i}", links={"egress_prefix": [900_001], "client_build": [900_002]}, sums={"n_harvest": 1})
              for i in range(3)]  # fmt: skip
    assert not any(name.startswith("f") for name in tiers(judged(people(400) + campaign(12) + framed), "core"))


def test_a_replayed_blob_links_two_strangers() -> None:
    two = people(2, 5000)
    for act in two:
        act.links["reasoning_blob"] = [123]
    found = judged(people(400) + two)
    assert groups_of(found) == [{"p5000", "p5001"}]
    assert found.rows["blob_link_share"].to_list() == [1.0]


def test_order_and_partitions_change_nothing() -> None:
    acts = people(300) + campaign(9)
    whole = judged(acts)
    random.Random(3).shuffle(acts)
    parts = [blob(0, acts[0::2], 0), blob(0, acts[1::2], 1)]
    cut = CampaignStage().step(FIRST, parts)
    assert cut is not None
    assert groups_of(cut) == groups_of(whole)
    assert cut.rows.drop("subject").equals(whole.rows.drop("subject"))
    assert cut.rows["subject"].to_list() == whole.rows["subject"].to_list()


def test_how_many_rows_are_looked_at_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    acts = people(300) + campaign(9) + campaign(7, "d", 800_000) + campaign(5, "e", 700_000)
    whole, cuts = judged(acts), []
    inner = evidence._cuts
    monkeypatch.setattr(evidence, "ROWS_AT_ONCE", 8)
    monkeypatch.setattr(evidence, "_cuts", lambda *arrays: cuts.append(inner(*arrays)) or cuts[-1])
    cut = judged(acts)
    assert max(map(len, cuts)) == 4
    assert cut.rows.equals(whole.rows)
    assert cut.findings == whole.findings


def test_how_many_tenants_are_measured_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    acts = people(300) + campaign(9) + campaign(7, "d", 800_000)
    whole, parts = judged(acts), []
    inner = Cut.parts
    monkeypatch.setattr("monitor.campaigns.cut._RUNS", 4)
    monkeypatch.setattr(Cut, "parts", lambda cut: parts.append(len(cut.begin)) or inner(cut))
    some = judged(acts)
    assert max(parts) > 4
    assert some.rows.equals(whole.rows)


def test_a_snapshot_goes_on_like_the_original() -> None:
    stage, acts = CampaignStage(), people(300) + campaign(9)
    stage.step(FIRST, [blob(0, acts)])
    copy = CampaignStage()
    copy.load(stage.dump())
    assert copy.dump() == stage.dump()
    later = [blob(6, people(300) + campaign(14))]
    one, other = stage.step(FIRST + 6, later), copy.step(FIRST + 6, later)
    assert one is not None
    assert other is not None
    assert one.rows.equals(other.rows)
    assert one.findings == other.findings


def test_a_campaign_keeps_its_id_while_it_grows() -> None:
    stage = CampaignStage()
    first = stage.step(FIRST, [blob(0, people(300) + campaign(6))])
    second = stage.step(FIRST + 6, [blob(6, people(300) + campaign(15))])
    assert first is not None
    assert second is not None
    assert first.rows["subject"].to_list() == second.rows["subject"].to_list()
    assert second.rows["tenants"].to_list() == [15.0]
    history = next(iter(second.findings.values())).history
    assert [members for _, members, _ in history] == [6, 15]


def test_links_age_and_are_let_go() -> None:
    stage = CampaignStage(CampaignOptions(link_days=1.0))
    stage.step(FIRST, [blob(0, people(300) + campaign(9))])
    later = stage.step(FIRST + 300, [blob(300, people(300))])
    assert later is None or later.findings == {}


def test_replacements_after_a_ban_are_counted() -> None:
    acts = campaign(9)
    ban = FIRST * STEP_MS - 9 * 86_400_000 - 3_600_000  # an hour before the others were made
    acts[0].created_days = 30.0
    found = judged(people(400) + acts, facts=Agreed(banned={"c0000": ban}))
    assert found.rows["replacements"].to_list() == [1.0]


def test_accounts_that_fire_together_stand_out_from_a_common_clock() -> None:
    def pairs(ticks: list[int], crowd: list[int]) -> float:
        acts = [Act(f"c{i}", ticks=t) for i, t in enumerate(ticks)]
        acts += [Act(f"x{i}", ticks=t) for i, t in enumerate(crowd)]
        step = blob(0, acts)
        acting = activity([step], [np.arange(len(step.accounts))])
        assert acting is not None
        mine = step.accounts["account"].str.starts_with("c").to_numpy()
        seen, expected, _ = observed_and_expected(acting, mine)
        return seen / expected

    spread = [1 << (i * 7 % 60) for i in range(120)]
    assert pairs([1 << 30] * 10, spread) > 5
    assert pairs([1 << (6 * i) for i in range(10)], spread) < 1
    # everybody's job runs at the full hour: no more coincidence than everybody has
    assert pairs([1] * 10, [1] * 120) == pytest.approx(1.0)


def test_surprise_is_the_poisson_likelihood_ratio() -> None:
    bits = surprise(np.array([8.0, 1.0, 4.0]), np.array([1.0, 2.0, 4.0]))
    assert bits[0] == pytest.approx(8 * 3 - 7 * np.log2(np.e))
    assert bits.tolist()[1:] == [0.0, 0.0]


def test_ranks_count_ties_against_the_candidate_and_need_enough_groups() -> None:
    def frame(values: list[float | None]) -> pl.DataFrame:
        columns = dict.fromkeys((*(s for s, _ in RANKED.values()), *BESIDE), values)
        return pl.DataFrame({"tenants": [4.0] * len(values), **columns}, strict=False)

    null = frame([i / 100 for i in range(100)])
    assert ranks(frame([0.5]), null, 40)["harvest_quantile"].to_list() == [50 / 101]
    assert ranks(frame([2.0]), null, 40)["harvest_quantile"].to_list() == [100 / 101]
    assert ranks(frame([0.5]), null, 40)["impersonal_quantile"].to_list() == [49 / 101]
    assert ranks(frame([None]), null, 40)["harvest_quantile"].to_list() == [None]
    assert ranks(frame([0.5]), null[:30], 40)["harvest_quantile"].to_list() == [None]


def test_registry_merges_into_the_older_and_splits_off_the_smaller() -> None:
    registry, names = Registry(), [f"a{i}" for i in range(12)]
    registry.update([np.arange(0, 4)], names, 1)
    old = next(iter(registry.campaigns))
    registry.update([np.arange(0, 4), np.arange(6, 12)], names, 2)
    young = next(c for c in registry.campaigns if c != old)
    assert registry.update([np.arange(0, 12)], names, 3) == [(young, old)]
    registry.update([np.arange(0, 8), np.arange(8, 12)], names, 4)
    assert registry.campaigns[old].accounts == list(range(8))
    assert len(registry.campaigns) == 2


def test_a_blob_comes_back_as_it_was() -> None:
    one = blob(3, campaign(4), 7)
    again = StepBlob.decode(one.encode())
    assert (again.step, again.partition) == (one.step, 7)
    assert again.accounts.equals(one.accounts)
    assert again.links.equals(one.links)
    assert again.encode() == one.encode()


def test_several_blobs_come_back_as_they_were() -> None:
    sent = [blob(3, campaign(4), 7), blob(4, people(3), 2), blob(4, people(1), 0)]
    again = many_of_bytes(many_to_bytes(sent))
    assert [(one.step, one.partition) for one in again] == [(one.step, one.partition) for one in sent]
    assert [one.encode() for one in again] == [one.encode() for one in sent]
    for one, before in zip(again, sent, strict=True):
        assert np.array_equal(one.totals(), before.totals())
        assert np.array_equal(one.sums(), before.sums())


def latecomer(name: str, **links: int) -> Act:
    return Act(name, links={kind: [value] for kind, value in links.items()}, sums={"n_harvest": 3}, created_days=200.0)


def test_a_latecomer_without_a_shared_pair_joins_a_known_campaign_at_once() -> None:
    """He brings one of the campaign's cards and another's address: nobody held the two together before."""
    stage = CampaignStage()
    first = campaign(6) + campaign(6, "d", 910_000)
    for act in first[6:]:
        act.links["client_build"], act.links["template_opening"] = [900_002], [900_003]
    found = stage.step(FIRST, [blob(0, people(400) + first)], None)
    assert found is not None
    assert len(found.findings) == 1
    late = latecomer("late", payment=900_000, egress_prefix=910_001, template_opening=900_003)
    after = stage.step(FIRST + 1, [blob(1, [late])], None)
    assert after is not None
    assert not after.whole
    assert {m.account: m.tier for f in after.findings.values() for m in f.members}["late"] == "core"


def test_one_value_of_a_campaign_joins_nobody_to_it() -> None:
    stage = CampaignStage()
    stage.step(FIRST, [blob(0, people(400) + campaign(12))], None)
    stranger = latecomer("x", egress_prefix=900_001)
    copies = latecomer("y", client_build=900_002, template_opening=900_003)
    assert stage.step(FIRST + 1, [blob(1, [stranger, copies])], None) is None


def thieves(count: int, name: str = "t", **links: list[int]) -> list[Act]:
    """Old accounts with a card each, whose keys are used from one address with one client and one template."""
    return [
        Act(f"{name}{i:04d}", created_days=400.0 + 9 * i, sums={"n_harvest": 3},
            links={"payment": [700_000 + i], "egress_prefix": [900_001], "client_build": [800_000],
                   "template_opening": [800_001]} | links)
        for i in range(count)
    ]  # fmt: skip


def test_an_address_that_two_campaigns_rent_speaks_for_both() -> None:
    found = judged(people(1500) + campaign(20) + thieves(12))
    assert groups_of(found) == [{f"c{i:04d}" for i in range(20)}, {f"t{i:04d}" for i in range(12)}]
    assert found.rows["network_link_share"].to_list() == [1.0, 1.0]
    assert {f"t{i:04d}" for i in range(12)} <= tiers(found, "core")


def test_an_address_that_many_strangers_have_speaks_for_nobody() -> None:
    crowd = people(1500)
    for act in crowd[:120]:
        act.links["egress_prefix"] = [900_001]
    (row,) = judged(crowd + thieves(12)).rows.rows(named=True)
    assert (row["software_link_share"], row["network_link_share"]) == (1.0, 0.0)


def test_victims_with_rarer_clients_of_their_own_are_known_by_the_thief_s_pair() -> None:
    crowd, victims = people(400), []
    for i in range(6):
        own = [820_000 + 3 * i + k for k in range(3)]
        colleagues = people(3, first=1600 + 3 * i)
        for act in colleagues:
            act.links["client_build"] = own
        crowd += colleagues
        thief = 800_000 if i < 5 else 40_001
        (victim,) = thieves(1, f"v{i}", payment=[i], client_build=[*own, thief], template_opening=[60_000 + i])
        victim.created_days = 700.0 + 9 * i
        victims.append(victim)
    found = judged(crowd + thieves(12) + victims)
    # the sixth came to the thief's address with another client than his
    assert groups_of(found) == [{*(f"t{i:04d}" for i in range(12)), *(f"v{i}0000" for i in range(5))}]


def test_a_restart_does_not_move_the_next_graph() -> None:
    # 64 new links make a new graph due: here 31 of the shared kinds and 31 of creation, which stand on two grids each
    stage, copy = CampaignStage(), CampaignStage()
    stage.step(FIRST, [blob(0, people(30))])
    first = stage.rebuilt
    newcomers = people(31, first=1000)
    for act in newcomers:
        act.links = {"payment": [int(act.account[1:])]}
    stage.step(FIRST + 1, [blob(1, newcomers)])
    assert stage.rebuilt == first
    copy.load(stage.dump())
    assert copy.population.fresh_rows == stage.population.fresh_rows < copy.population.fresh_links[0].height
    for s in (stage, copy):
        s.step(FIRST + 2, [])
    assert copy.rebuilt == stage.rebuilt == first


def test_between_rebuilds_a_restart_goes_on_the_same() -> None:
    stage, copy = CampaignStage(), CampaignStage()
    stage.step(FIRST, [blob(0, people(400) + campaign(12))], None)
    copy.load(stage.dump())
    late = [latecomer("late", payment=900_000, egress_prefix=900_001, template_opening=900_003)]
    one, other = (s.step(FIRST + 1, [blob(1, late)], None) for s in (stage, copy))
    assert one is not None
    assert other is not None
    assert one.rows.equals(other.rows)
    assert one.findings == other.findings
    assert stage.dump() == copy.dump()


def test_what_ships_stands_in_for_groups_that_are_not_there_and_is_told() -> None:
    row = judged(people(400) + campaign(12)).rows.row(0, named=True)
    alone = judged(people(400) + campaign(12), CampaignStage(CampaignOptions(shipped_calibration=False))).rows
    live = alone.row(0, named=True)["calibration_groups"]
    assert row["calibration_groups"] == ENOUGH
    assert row["calibration_shipped"] == ENOUGH - live
    assert alone.row(0, named=True)["calibration_shipped"] == 0
    assert row["harvest_quantile"] is not None
    assert alone.row(0, named=True)["harvest_quantile"] is None
    assert row["pivot_quantile"] is None, "only the day's own traffic says what is usual"
