"""What tells an attack from a customer is what its scenario says: not ids, row order, lengths or arrivals."""

import boosted
import nuisances
import numpy as np
import polars as pl
import pytest

from monitor.simulate import Simulator, find
from monitor.simulate.scenario import background


def _scaled(name, **changes):
    return find([name])[0].model_copy(update=changes)


def _said(what, figure):
    print(f"{what}: {figure:.3f}")  # `pytest -rP` shows it
    return figure


def _labels(world, accounts, benign):
    truth = {t["account_id"]: t for t in world.truth()}
    groups = dict(zip(world._log.account_id.to_list(), world.accounts.group.tolist(), strict=False))
    return np.array([1 if truth.get(a, {"actor": "benign"})["actor"] != "benign" else (0 if benign(groups[a]) else -1)
                     for a in accounts])  # fmt: skip


def test_the_check_finds_a_leak_that_is_there():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((600, 8)), (rng.random(600) < 0.4).astype(int)
    assert boosted.cross_validated_auc(x, y) < 0.56
    x[:, 3] += 1.5 * y
    assert boosted.cross_validated_auc(x, y) > 0.75
    assert boosted.auc(np.array([0.0, 1, 1, 2]), np.array([0, 0, 1, 1])) == pytest.approx(0.875)


def test_adaptive_attackers_look_like_chat_customers_in_all_nuisances():
    attack = _scaled("S7", min_accounts=900)
    assert attack.same_timing
    world = Simulator([attack], 4000, 6, 5, heavy_cap=20)
    x, accounts = nuisances.table(nuisances.gather(world))
    # customers of the background's first group (chat) who call as often: the rate is the scenario's own figure
    rate = dict(zip(world._log.account_id.to_list(), world.accounts.rate.tolist(), strict=True))
    label = _labels(world, accounts, lambda group: group == 0)
    alike = np.array([2 < rate[a] < 8 for a in accounts])
    use = (label == 1) | ((label == 0) & alike)
    assert min((label[use] == 1).sum(), (label[use] == 0).sum()) > 400
    assert _said("S7 by nuisances", boosted.cross_validated_auc(x[use], label[use])) <= 0.55


def test_batch_harvest_looks_like_its_honest_twin_in_all_nuisances():
    def small(name):
        s = _scaled(name, min_accounts=500)
        group = s.groups[0]
        return s.model_copy(
            update={"groups": [group.model_copy(update={"rate": group.rate.model_copy(update={"mean": 60})})]}
        )

    world = Simulator([small("S13"), small("B14")], 20, 3, 8, heavy_cap=50)
    x, accounts = nuisances.table(nuisances.gather(world))
    twin = len(background().groups) + 1
    label = _labels(world, accounts, lambda group: group == twin)
    use = label >= 0
    # starts differ by scenario, so hours and gaps count; contents and lengths of text do not
    assert _said("S13 by nuisances", boosted.cross_validated_auc(x[use], label[use])) <= 0.55


def test_ids_and_row_order_leak_nothing_in_any_scenario():
    names = ["S1", "S2", "S3", "S4", "S5", "S6", "S8", "S9", "S10", "S13", "S14", "P1", "P2"]
    world = Simulator([_scaled(n, min_accounts=40) for n in names], 1200, 2, 3, heavy_cap=100)
    x, accounts = nuisances.table(nuisances.gather(world))
    label = _labels(world, accounts, lambda group: True)
    ids = x[:, :6]
    assert label.sum() > 250
    assert _said("thirteen attacks by ids and row order", boosted.cross_validated_auc(ids, label)) <= 0.55


@pytest.mark.parametrize("name", ["S1", "S4", "S6", "S10"])
def test_sharing_any_link_is_poor_evidence(name):
    world = Simulator([name], 2000, 1, 3, heavy_cap=100)
    links = [
        "payment_fp",
        "ip",
        "asn",
        "user_agent",
        "ja4",
        "contact_domain",
        "referral_fp",
        "org_id",
        "tool_schema_fp",
    ]
    log = pl.concat([c.frame.select("account_id", *links) for c in world])
    attack = {t["account_id"] for t in world.truth()}
    shared: set[str] = set()
    for link in links:
        by_value = log.select("account_id", link).drop_nulls().unique().group_by(link).agg(pl.col("account_id"))
        shared |= set(by_value.filter(pl.col("account_id").list.len() > 1)["account_id"].explode())
    assert attack & shared
    assert _said(f"{name} by any shared link, precision", len(attack & shared) / len(shared)) < 0.2
