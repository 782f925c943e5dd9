"""MMD works on one population and falls on many tenants: the published protocol beside the honest one."""

import numpy as np

from monitor.evaluate.mmd_table import SHARES, drawn, mmd_table


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


def test_windows_of_nearly_everybody_flatter_the_test():
    """A null window of 150 of 160 prompts hardly varies: what each prompt once a window finds is not what would be."""
    rng = np.random.default_rng(5)
    words = [f"w{i}" for i in range(200)]
    benign = {"one": _texts(rng, words, 320)}
    attack = {"attack": _texts(rng, [*words, "zz"] * 2 + ["zz"] * 4, 800)}
    rows = [
        mmd_table(benign, attack, window=150, null=200, trials=40, seed=2, protocols=("one population",), twice=t)[0]
        for t in (False, True)
    ]
    assert sum(rows[0].caught) > sum(rows[1].caught) + 0.3


def test_each_prompt_comes_once_where_there_are_enough():
    rng = np.random.default_rng(1)
    once = drawn(50, 20, 40, rng, twice=False)
    assert all(len(set(w)) == 40 for w in once.tolist())
    assert any(len(set(w)) < 40 for w in drawn(50, 20, 40, rng, twice=True).tolist())
    assert drawn(5, 2, 40, rng, twice=False).shape == (2, 40)
    assert drawn(50, 3, 0, rng, twice=False).shape == (3, 0)
