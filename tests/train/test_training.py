"""Training, with PyTorch: the same twice, the graph gives what the network gave, and what is written serves.

Group ``train``: ``pip install '.[train]'``, then ``pytest -m train``. Left out where PyTorch is not installed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from monitor.__main__ import build
from monitor.errors import NothingReadable
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.score import CLASSIFIER_COLUMNS, ClassifierOptions
from monitor.score.classifier import Classifier
from monitor.simulate import api
from monitor.train.augment import Batch, Sampler
from monitor.train.dataset import HYPOTHESES, Samples, feature_names, read_samples, split
from monitor.train.run import Plan, train
from monitor.wiring import VECTORS

pytestmark = [
    pytest.mark.train,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # PyTorch's own, of which each release has others
]
PLAN = Plan(steps=60, leave_out=False)


def drawn(accounts: int = 120, seed: int = 3) -> Samples:
    """Sets of honest accounts and of campaigns that cap their output, stream never and repeat themselves."""
    rng = np.random.default_rng(seed)
    n = accounts * 4
    account = np.repeat(np.arange(accounts), 4).astype(np.int32)
    abusive = account % 3 == 0
    events = rng.integers(0, 256, (n, 32, VECTORS.width)).astype(np.uint8)
    for name, yes, no in (("capped", 255, 0), ("stream", 0, 255), ("novelty", 64, 255)):
        share = rng.random((n, 32)) < np.where(abusive, 0.8, 0.2)[:, None]
        events[:, :, VECTORS.index(name)] = np.where(share, yes, no)
    mask = (np.arange(32) < rng.integers(8, 33, n)[:, None]).astype(np.uint8)
    labels = np.zeros((n, len(HYPOTHESES)), np.int8)
    labels[abusive, 0] = 1
    group = np.where(abusive, account // 3 % 8, account + 100).astype(np.int32)
    rows = rng.random((n, len(feature_names()))).astype(np.float32)
    return Samples(events * mask[:, :, None], mask, rows, labels, account, group, np.where(abusive, "S1", ""))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("model")
    return folder, train(drawn(), folder, PLAN, [Path("a.ndjson")])


def test_no_tenant_is_in_two_roles() -> None:
    samples = drawn()
    role = split(samples, 1)
    for owners in (samples.account, samples.group):
        for owner in np.unique(owners):
            assert len(np.unique(role[owners == owner])) == 1
    assert [(role[samples.labels[:, 0] == 1] == r).sum() > 0 for r in range(3)] == [True] * 3


def test_the_same_data_and_seed_give_the_same_bytes(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = trained
    train(drawn(), tmp_path, PLAN, [Path("a.ndjson")])
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    train(drawn(), tmp_path, replace(PLAN, seed=2), [Path("a.ndjson")])
    assert (tmp_path / "model.onnx").read_bytes() != (folder / "model.onnx").read_bytes()


def test_what_is_written_serves_and_learned(trained: tuple[Path, dict[str, Any]]) -> None:
    """The loader's golden rows hold the graph to the network within 1e-4; here that it tells the two apart."""
    folder, manifest = trained
    model = Classifier(ClassifierOptions(model_dir=folder, providers=("cpu",)), ACCOUNT_FEATURES, VECTORS)
    other = drawn(seed=8)
    found = model.score_sets(other.events, other.mask, other.aggregates)["classifier_distillation"]
    truth = other.labels[:, 0] == 1
    assert np.median(found[truth]) > 0.3
    assert np.median(found[~truth]) < 0.1
    assert manifest["metrics"]["auc.distillation"] > 0.9
    assert manifest["metrics"]["sets.train"] > manifest["metrics"]["sets.test"]
    assert manifest["training_data_sha256"] == drawn().digest


def test_cover_missing_fields_and_thin_sets_are_in_every_batch() -> None:
    sampler = Sampler(drawn(), VECTORS, feature_names(), np.random.default_rng(1))
    batch = sampler.accounts(400)
    assert 0.3 < (batch.labels[:, 0] == 1).mean() < 0.7
    assert batch.mask.sum(axis=1).min() >= 8
    unknown = (batch.events[:, :, VECTORS.index("stream")] == 128).any(axis=1)
    assert 0.05 < unknown.mean() < 0.3
    silent = (batch.events[:, :, VECTORS.index("text")] == 128).any(axis=1)
    assert 0.05 < silent.mean() < 0.3
    assert 0.1 < np.isnan(batch.aggregates).all(axis=1).mean() < 0.35
    pools = sampler.pools(40)
    assert isinstance(pools, Batch)
    assert pools.events.shape == (40, 128, VECTORS.width)
    assert pools.mask.sum(axis=1).max() > 32


def test_too_little_is_said() -> None:
    samples = drawn()
    one = samples.take((samples.labels[:, 0] == 0) | (samples.group == 0))
    with pytest.raises(NothingReadable, match="give more logs"):
        train(one, Path("unused"), PLAN, [])


def test_the_command_from_logs_to_a_model(tmp_path: Path) -> None:
    logs, truths = [], []
    for seed in (1, 2, 3):
        logs.append(tmp_path / f"{seed}.parquet")
        truths.append(tmp_path / f"{seed}.truth.ndjson")
        api.simulate(["D2", "S1"], logs[-1], accounts=60, days=0.7, seed=seed, heavy_cap=60.0)
    arguments = ["train", "--out", str(tmp_path / "model"), "--steps", "20", "--no-leave-out", "--json"]
    arguments += [word for log in logs for word in ("--log", str(log))]
    arguments += [word for truth in truths for word in ("--truth", str(truth))]
    result = CliRunner().invoke(build(), arguments)
    assert result.exit_code == 0, result.output
    assert "auc.distillation" in json.loads(result.stdout[result.stdout.index("{") :])
    model = Classifier(ClassifierOptions(model_dir=tmp_path / "model", providers=("cpu",)), ACCOUNT_FEATURES, VECTORS)
    assert model.columns == CLASSIFIER_COLUMNS


def test_a_verdict_overrules_the_truth(tmp_path: Path) -> None:
    log, truth = tmp_path / "a.parquet", tmp_path / "a.truth.ndjson"
    api.simulate(["D2"], log, accounts=30, days=0.7, seed=1, heavy_cap=60.0)
    accused = json.loads(truth.read_text().splitlines()[0])
    verdict = tmp_path / "verdicts.ndjson"
    verdict.write_text(json.dumps(accused | {"actor": "benign"}) + "\n")
    before, after = read_samples([log], [truth]), read_samples([log], [truth], verdict)
    assert len(np.unique(before.account[before.labels[:, 0] == 1])) == 6
    assert len(np.unique(after.account[after.labels[:, 0] == 1])) == 5
    alone = read_samples([log], [], verdict)
    assert len(np.unique(alone.account)) == 1
    assert not alone.labels.any()
