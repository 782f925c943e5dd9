"""What a trained network is worth on tenants it never saw. Counts accounts, not sets: a busy account is one tenant."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .dataset import HYPOTHESES, Samples

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def account_weights(samples: Samples) -> F64:
    """One over the samples of each sample's account: every account counts once."""
    _, place, count = np.unique(samples.account, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / count[place])


def auc(scores: F64, positive: Bools) -> float | None:
    """Area under the ROC curve by ranks, ties shared; None without both kinds."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return None
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def threshold(honest: F64, share: float) -> float:
    """The lowest score that at most ``share`` of the honest accounts exceed."""
    if not len(honest):
        return 0.0
    ordered = np.sort(honest)[::-1]
    return float(ordered[min(int(share * len(ordered)), len(ordered) - 1)])


def by_account(scores: F64, samples: Samples, label: int) -> tuple[F64, npt.NDArray[np.int8], npt.NDArray[np.str_]]:
    """Highest score, truth and scenario of each account in a hypothesis whose truth is known of it. An account that
    was abused for a part of its time counts with that part."""
    truth = samples.labels[:, label]
    abusive = np.zeros(int(samples.account.max()) + 1, np.bool_)
    abusive[samples.account[truth == 1]] = True
    used = (truth >= 0) & ((truth == 1) | ~abusive[samples.account])
    accounts, place = np.unique(samples.account[used], return_inverse=True)
    top = np.full(len(accounts), -np.inf)
    np.maximum.at(top, place, scores[used])
    first = np.unique(place, return_index=True)[1]
    return top, truth[used][first], samples.scenario[used][first]


def _honest(scores: F64, samples: Samples, label: int) -> F64:
    """Highest score of each account that was never abusive in any way."""
    never = ~(samples.labels == 1).any(axis=1)
    return by_account(scores[never], samples.take(never), label)[0]


def measure(probability: F64, samples: Samples) -> dict[str, float]:
    """Figures by hypothesis (``auc``, ``recall_at_1pct`` of honest accounts, ``brier`` of sets) and by scenario: the
    share of its accounts over the threshold of 1 % (attacks: of their own hypothesis; honest: of distillation)."""
    found: dict[str, float] = {}
    for j, name in enumerate(HYPOTHESES):
        top, truth, scenario = by_account(probability[:, j], samples, j)
        honest = _honest(probability[:, j], samples, j)
        value = auc(top, truth == 1)
        if value is None:
            continue
        at = threshold(honest, 0.01)
        found[f"auc.{name}"] = value
        found[f"recall_at_1pct.{name}"] = float((top[truth == 1] > at).mean())
        known = samples.labels[:, j] >= 0
        weight = account_weights(samples)[known]
        found[f"recall_over_95.{name}"] = float((top[truth == 1] >= 0.95).mean())
        found[f"honest_over_95.{name}"] = float((honest >= 0.95).mean())
        off = np.square(probability[known, j] - (samples.labels[known, j] == 1))
        found[f"brier.{name}"] = float((off * weight).sum() / weight.sum())
        for of in np.unique(scenario[truth == 1]):
            found[f"recall.{of}"] = float((top[(truth == 1) & (scenario == of)] > at).mean())
        if name == "distillation":
            for of in np.unique(scenario[(truth == 0)]):
                mine = top[(truth == 0) & (scenario == of)]
                found[f"honest_over.{of or 'background'}"] = float((mine > at).mean())
    return found


def measure_pools(probability: F64, labels: npt.NDArray[np.int8]) -> dict[str, float]:
    """The same of pooled sets, drawn half abusive and half honest: ``pool_auc`` and ``pool_recall_at_1pct``."""
    found: dict[str, float] = {}
    honest = ~(labels == 1).any(axis=1)
    for j, name in enumerate(HYPOTHESES):
        known = labels[:, j] >= 0
        value = auc(probability[known, j], labels[known, j] == 1)
        if value is not None:
            found[f"pool_auc.{name}"] = value
            over = probability[:, j] > threshold(probability[honest, j], 0.01)
            found[f"pool_recall_at_1pct.{name}"] = float(over[labels[:, j] == 1].mean())
    return found


def left_out(logit: F64, samples: Samples, scenario: str) -> float | None:
    """Share of a scenario's accounts over the score that 1 % of the honest exceed, in its own hypothesis."""
    mine = samples.scenario == scenario
    label = int((samples.labels[mine] == 1).sum(axis=0).argmax())
    top, truth, of = by_account(logit[:, label], samples, label)
    honest = _honest(logit[:, label], samples, label)
    hit = (truth == 1) & (of == scenario)
    return float((top[hit] > threshold(honest, 0.01)).mean()) if hit.any() else None


def rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """Four digits: what a manifest states."""
    return {name: round(float(value), 4) for name, value in sorted(figures.items())}
