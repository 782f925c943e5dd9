"""The classifier over sets of requests: rows and pools, refusals, batches, and what ships."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import set_models
from onnx import TensorProto

from monitor.errors import BadInput
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.records import REQUEST_SET
from monitor.score import CLASSIFIER_COLUMNS, ClassifierOptions, packaged_model
from monitor.score.classifier import Classifier
from monitor.score.manifest import Manifest, features_hash
from monitor.score.runtime import CPU_BATCH
from monitor.settings import PACKAGED, Settings
from monitor.train.dataset import feature_names
from monitor.vectors import POOL_SIZE, SET_SIZE, VectorLayout
from monitor.wiring import VECTORS, score_options


def served(directory: Path, layout: VectorLayout | None = VECTORS, **changed: Any) -> Classifier:
    options = {"providers": ("cpu",), "buckets": (4, 16), **changed}
    return Classifier(ClassifierOptions(model_dir=directory, **options), ACCOUNT_FEATURES, layout)


def shipped(**changed: Any) -> Classifier:
    return served(packaged_model(), buckets=(8, 64), **changed)


def frame(events: Any, mask: Any, rows: Any) -> pl.DataFrame:
    sets = [e[m == 1].tobytes() for e, m in zip(events, mask, strict=True)]
    columns = dict(zip(set_models.FEATURES, rows.T.astype(np.float64), strict=True))
    return pl.DataFrame({REQUEST_SET: pl.Series(sets, dtype=pl.Binary), **columns}, nan_to_null=True)


def answers(found: dict[str, Any]) -> Any:
    return np.stack([found[c] for c in CLASSIFIER_COLUMNS], axis=1)


def test_rows_get_what_the_graph_says_of_their_set(tmp_path: Path) -> None:
    drawn = set_models.drawn(40)
    got = answers(served(set_models.write(tmp_path)).score(frame(*drawn)))
    assert np.allclose(got, set_models.reference(*drawn), atol=1e-5)
    assert got.std() > 0.05


def test_a_row_without_a_set_or_with_too_few_requests_gets_no_opinion(tmp_path: Path) -> None:
    model = served(set_models.write(tmp_path))
    drawn = set_models.drawn(6, fewest=1, seed=3)
    drawn[1][:] = np.arange(SET_SIZE) < np.array([1, 7, 8, 9, 31, 32])[:, None]
    rows = frame(*drawn)
    got = model.score(rows)["classifier_resale"]
    assert np.isnan(got).tolist() == [True, True, False, False, False, False]
    bare = rows.with_columns(pl.lit(None, pl.Binary).alias(REQUEST_SET))
    assert np.isnan(answers(model.score(bare))).all()
    assert np.isnan(answers(model.score(rows.drop(REQUEST_SET)))).all()


@pytest.mark.parametrize("size", [8, 20, 32, 33, 100, 128])
def test_pools_of_any_size_up_to_128(tmp_path: Path, size: int) -> None:
    drawn = set_models.drawn(9, size=size)
    got = answers(served(set_models.write(tmp_path)).score_sets(*drawn))
    assert np.allclose(got, set_models.reference(*drawn), atol=1e-5)


def test_what_is_not_finite_is_not_known(tmp_path: Path) -> None:
    model = served(set_models.write(tmp_path))
    events, mask, rows = set_models.drawn(9)
    rows[::2, 0] = np.nan
    wanted = answers(model.score_sets(events, mask, rows))
    assert np.allclose(wanted, set_models.reference(events, mask, rows), atol=1e-5)
    for value in (np.inf, -np.inf):
        rows[::2, 0] = value
        assert np.array_equal(answers(model.score_sets(events, mask, rows)), wanted)
        assert np.array_equal(answers(model.score(frame(events, mask, rows))), wanted)


def test_a_pool_of_another_shape_is_refused(tmp_path: Path) -> None:
    model = served(set_models.write(tmp_path))
    events, mask, rows = set_models.drawn(2, size=POOL_SIZE + 1)
    with pytest.raises(ValueError, match="at most 128"):
        model.score_sets(events, mask, rows)
    with pytest.raises(ValueError, match="with a mask"):
        model.score_sets(events[:, :32], mask[:, :31], rows)
    with pytest.raises(ValueError, match="in the order of `features`"):
        model.score_sets(events[:, :32], mask[:, :32], rows[:, :1])
    assert answers(model.score_sets(events[:0, :32], mask[:0, :32], rows[:0])).shape == (0, len(CLASSIFIER_COLUMNS))


def test_without_a_model_a_pool_gets_no_opinion() -> None:
    model = Classifier(ClassifierOptions(), ACCOUNT_FEATURES, VECTORS)
    assert np.isnan(answers(model.score_sets(*set_models.drawn(2)))).all()


SETS = set_models.manifest(b"", b"")["sets"]
HARM: dict[str, tuple[dict[str, Any], str]] = {
    "layout": ({"sets": {**SETS, "layout_hash": "0" * 16}}, "train it anew"),
    "width": ({"sets": {**SETS, "width": 47}}, "train it anew"),
    "size": ({"sets": {**SETS, "size": 16}}, "must be of 32 vectors"),
    "pool's hash": ({"sets": {**SETS, "pool_sha256": "0" * 64}}, "pool.onnx has"),
    "no mask": ({"inputs": [{"name": "ev", "role": "events"}, {"name": "agg", "role": "aggregates"}]}, "events_mask"),
    "not described": ({"sets": None}, "which `sets` must describe"),
    "no golden sets": ({"golden": {**set_models.manifest(b"", b"")["golden"], "events": []}}, "a set of events"),
    "golden no base64": (
        {"golden": {**set_models.manifest(b"", b"")["golden"], "events": ["AA==", "*", "*"]}}, "is not",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(HARM))
def test_a_model_that_is_not_what_it_says_is_refused(tmp_path: Path, name: str) -> None:
    changed, message = HARM[name]
    with pytest.raises(BadInput, match=message):
        served(set_models.write(tmp_path, **changed))


def test_a_model_over_sets_is_refused_where_rows_bring_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="these are none"):
        served(set_models.write(tmp_path), layout=None)


def test_a_pool_of_other_weights_or_another_type_is_refused(tmp_path: Path) -> None:
    set_models.write(tmp_path)
    for pool, message in (
        (set_models.graph(POOL_SIZE, seed=1), r"\(pool\): off by"),
        (set_models.graph(SET_SIZE), r"needed: uint8 \[B, 128, 48\]"),
        (set_models.graph(POOL_SIZE, kind=TensorProto.FLOAT), r"needed: uint8 \[B, 128, 48\]"),
    ):
        (tmp_path / "pool.onnx").write_bytes(pool)
        told = set_models.manifest((tmp_path / "model.onnx").read_bytes(), pool)
        (tmp_path / "manifest.json").write_text(json.dumps(told))
        with pytest.raises(BadInput, match=message):
            served(tmp_path)


def test_a_catalogue_that_grew_leaves_a_model_fit() -> None:
    """The hash is of the features it reads: another feature beside them, or their order, changes nothing."""
    names = ("day_entropy_7d", "follow_up_share_24h")
    assert features_hash(names, ACCOUNT_FEATURES) == features_hash(tuple(reversed(names)), ACCOUNT_FEATURES)
    assert features_hash(names, ACCOUNT_FEATURES) != features_hash((names[0],), ACCOUNT_FEATURES)


# batches


def test_a_cpu_takes_no_batch_beyond_its_cache(tmp_path: Path) -> None:
    model = served(set_models.write(tmp_path), buckets=(8, 64, 256, 1_024))
    assert model._active is not None
    assert model._active.runner.buckets == (8, CPU_BATCH)
    alone = served(tmp_path, buckets=(512,))
    assert alone._active is not None
    assert alone._active.runner.buckets == (512,)


# what ships


def test_what_ships_loads_by_default_and_passes_its_golden_sets() -> None:
    assert Settings().score.classifier.model_dir == Path(PACKAGED)
    options = score_options(Settings()).classifier
    assert options.model_dir == packaged_model()
    assert options.buckets == Settings().score.classifier.buckets
    model = shipped()
    assert model.columns == CLASSIFIER_COLUMNS
    assert model.reads_sets
    assert model.status().inactive is None


@pytest.mark.parametrize("off", ["none", "None", None])
def test_none_switches_it_off(off: str | None) -> None:
    settings = Settings.model_validate({"score": {"classifier": {"model_dir": off}}})
    assert settings.score.classifier.model_dir is None
    assert score_options(settings).classifier.model_dir is None


def test_what_ships_is_small_licensed_and_states_where_it_comes_from() -> None:
    folder = packaged_model()
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size < 5_000_000
    told = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert told["licence"] == "Apache-2.0"
    assert len(told["training_data_sha256"]) == 64
    assert told["training"]["logs"]
    assert {f"auc.{c.removeprefix('classifier_')}" for c in CLASSIFIER_COLUMNS} <= set(told["metrics"])
    assert any(name.startswith("left_out.") for name in told["metrics"])


def test_training_reads_what_the_shipped_model_was_trained_on() -> None:
    """A feature that is added to the catalogue would else enter the next training, and `monitor train` make another
    model than the one that ships; one that simulated logs never hold would enter with the weights it began with."""
    told = json.loads((packaged_model() / "manifest.json").read_text("utf-8"))
    assert list(feature_names()) == told["features"]
    assert not {n for n in feature_names() if ACCOUNT_FEATURES[n].family in ("corpus", "volume")}


def test_its_card_is_the_manifest_s() -> None:
    from monitor.train.card import render

    folder = packaged_model()
    told = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert (folder / "README.md").read_text("utf-8") == render(told), "written by hand: run `monitor train` again"


def test_the_golden_sets_tell_weights_apart(tmp_path: Path) -> None:
    """One weight of the shipped model moved: refused, though the hash was mended."""
    import onnx
    from onnx import numpy_helper

    for path in packaged_model().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model = onnx.load(tmp_path / "model.onnx")
    weight = next(t for t in model.graph.initializer if t.name == "out.w")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.05), "out.w"))
    body = model.SerializeToString()
    (tmp_path / "model.onnx").write_bytes(body)
    told = json.loads((tmp_path / "manifest.json").read_text("utf-8")) | {"sha256": hashlib.sha256(body).hexdigest()}
    (tmp_path / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(BadInput, match="off by"):
        served(tmp_path)


def _random(n: int, size: int, features: int) -> tuple[Any, Any, Any]:
    events, mask, _ = set_models.drawn(n, size)
    return events, mask, np.random.default_rng(2).random((n, features)).astype(np.float32)


@pytest.mark.parametrize("size", [SET_SIZE, POOL_SIZE])
def test_a_set_s_score_does_not_depend_on_its_batch(size: int) -> None:
    """Bit for bit: scores stand in alerts, and an alert must not depend on what else a poll held."""
    model = shipped()
    drawn = _random(150, size, len(model.features))
    whole = answers(model.score_sets(*drawn))
    for cuts in ((0, 1, 2, 150), (0, 7, 15, 16, 80, 150)):
        parts = [model.score_sets(*(x[a:b] for x in drawn)) for a, b in itertools.pairwise(cuts)]
        assert np.array_equal(np.concatenate([answers(p) for p in parts]), whole)


def test_neither_order_nor_empty_places_change_a_score() -> None:
    model = shipped()
    events, mask, rows = _random(20, SET_SIZE, len(model.features))
    whole = answers(model.score_sets(events, mask, rows))
    turned = answers(model.score_sets(events[:, ::-1], mask[:, ::-1], rows))
    wide = [np.pad(events, ((0, 0), (0, 96), (0, 0))), np.pad(mask, ((0, 0), (0, 96)))]
    assert np.allclose(turned, whole, atol=1e-5)
    assert np.allclose(answers(model.score_sets(*wide, rows)), whole, atol=1e-5)


def test_the_script_of_a_text_is_no_evidence() -> None:
    """The share of letters outside ASCII was scrambled in training: turned all the way, it moves a logit by 0.2. A
    model without that moved by 2.5."""
    model = shipped()
    events, mask, rows = _golden_sets()
    at = VECTORS.index("shape_non_ascii_share")
    other = events.copy()
    other[:, :, at] = 255 - other[:, :, at]
    both = [answers(model.score_sets(e, mask, rows))[:, 0].clip(1e-6, 1 - 1e-6) for e in (events, other)]
    logits = [np.log(p / (1 - p)) for p in both]
    assert np.abs(logits[0] - logits[1]).mean() < 1


def _golden_sets() -> tuple[Any, Any, Any]:
    import msgspec

    told = msgspec.json.decode((packaged_model() / "manifest.json").read_bytes(), type=Manifest)
    rows = [[np.nan if row[n] is None else row[n] for n in told.features] for row in told.golden.rows]
    return *told.golden.sets(VECTORS.width, SET_SIZE), np.array(rows, np.float32)
