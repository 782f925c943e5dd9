"""MMD works on one population and falls on many tenants: the published protocol beside the honest one."""

import numpy as np

from monitor.evaluate.mmd_table import SHARES, mmd_table


def _texts(rng, words, count):
    return [" ".join(rng.choice(words, 12)) for _ in range(count)]


def test_one_population_is_caught_and_many_tenants_hide_it():
    rng = np.random.default_rng(3)
    common = [f"w{i}" for i in range(60)]
    # thirty customers, each with a jargon of its own; the attacker's text is a jargon among others
    benign = {f"g{k}": _texts(rng, [*common, *(f"g{k}x{i}" for i in range(25))], 120) for k in range(30)}
    attack = {"attack": _texts(rng, [*common, *(f"zz{i}" for i in range(25))], 800)}
    rows = {r.protocol: r for r in mmd_table(benign, attack, window=300, null=120, trials=30, seed=1)}
    one, many = rows["one population"], rows["many tenants"]
    assert SHARES[-1] == 1.0
    assert one.caught[-1] == 1.0
    assert one.caught[3] > 0.9
    assert many.caught[3] < 0.3
    assert many.caught[-1] < 0.5
    assert one.false_positives < 0.08
    assert mmd_table(benign, attack, window=100, null=40, trials=5, seed=1) == mmd_table(
        benign, attack, window=100, null=40, trials=5, seed=1
    )
