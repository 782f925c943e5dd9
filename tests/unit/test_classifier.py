"""The ONNX classifier with real graphs: what is refused and why, nulls, batches, providers, reload, shadow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import onnxruntime as ort
import polars as pl
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail  # type: ignore[import-untyped]  # ships no types

from monitor.errors import BadInput, DependencyDown
from monitor.features.catalogue import ACCOUNT_FEATURES
from monitor.score import CLASSIFIER_COLUMNS, ClassifierOptions, ScoreOptions, Scorer, classifier
from monitor.score.classifier import Classifier, check_runtimes, installed_runtimes


def served(directory: Path | None, **changed: Any) -> Classifier:
    options = {"providers": ("cpu",), "buckets": (4, 16), **changed}
    return Classifier(ClassifierOptions(model_dir=directory, **options), ACCOUNT_FEATURES)


def frame(n: int = 50, seed: int = 0, nulls: float = 0.0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    values = rng.random((n, len(onnx_models.FEATURES))) * np.array([500, 1, 2_000, 1, 1])
    values[rng.random(values.shape) < nulls] = np.nan
    return pl.DataFrame(dict(zip(onnx_models.FEATURES, values.T, strict=True)), nan_to_null=True)


def expected(rows: pl.DataFrame, seed: int = 0, *, mask: bool = True) -> np.ndarray[Any, Any]:
    return np.asarray(onnx_models.reference(rows.rows(), seed, mask=mask))


def refused(directory: Path, **changed: Any) -> str:
    with pytest.raises(BadInput) as caught:
        served(directory, **changed)
    return str(caught.value)


def test_it_gives_what_the_graph_says(tmp_path: Path) -> None:
    rows = frame()
    out = served(onnx_models.write(tmp_path)).score(rows)
    wanted = expected(rows)
    for i, column in enumerate(CLASSIFIER_COLUMNS):
        assert np.allclose(out[column], wanted[:, i], atol=1e-5)
    assert wanted.std() > 0.05


def test_many_rows_make_the_matrix_that_few_do(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = frame(60, nulls=0.3).with_columns(
        whole=pl.Series([None, 2**40 + 12_345, *range(58)]), flag=pl.Series([None, True, *[False] * 58]),
        wide=pl.Series([1e300, float("-inf"), float("nan"), *[1.0 / 3] * 57]),
    )  # fmt: skip
    for of in (rows, rows[:1], rows.clear()):
        for names in (["not_there", *of.columns, "nor_this"], ["not_there"]):
            with np.errstate(over="ignore"):
                few = classifier._matrix(of, names)
            monkeypatch.setattr(classifier, "_MANY", 0)
            many = classifier._matrix(of, names)
            monkeypatch.undo()
            assert few.shape == many.shape == (of.height, len(names))
            assert few.dtype == many.dtype == np.float32
            assert many.flags.c_contiguous
            assert np.array_equal(few, many, equal_nan=True)


def test_nulls_are_filled_and_the_mask_tells(tmp_path: Path) -> None:
    rows = frame(200, nulls=0.2)
    out = served(onnx_models.write(tmp_path)).score(rows)["classifier_resale"]
    enough = np.array([sum(v is not None for v in row) >= 2.5 for row in rows.rows()])
    assert 0 < (~enough).sum() < 100
    assert np.isnan(out[~enough]).all()
    assert np.allclose(out[enough], expected(rows)[enough, 1], atol=1e-5)


def test_without_a_mask_input_only_the_defaults_speak(tmp_path: Path) -> None:
    rows = frame(nulls=0.1)
    out = served(onnx_models.write(tmp_path, mask=False)).score(rows)["classifier_resale"]
    known = ~np.isnan(out)
    assert np.allclose(out[known], expected(rows, mask=False)[known, 1], atol=1e-5)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 16, 17, 37])
def test_buckets_do_not_show(tmp_path: Path, n: int) -> None:
    rows = frame(40)
    model = served(onnx_models.write(tmp_path))
    whole = model.score(rows)
    part = model.score(rows[:n])
    for column in CLASSIFIER_COLUMNS:
        assert np.array_equal(part[column], whole[column][:n])


def test_columns_that_the_model_does_not_fill_stay_null(tmp_path: Path) -> None:
    columns = ["classifier_distillation", None, None, "classifier_stolen_key", None]
    golden = onnx_models.manifest(b"")["golden"]
    golden["expected"] = {c: golden["expected"][c] for c in columns if c}
    onnx_models.write(tmp_path, outputs=[{"name": "p", "columns": columns}], golden=golden)
    options = ScoreOptions(classifier=ClassifierOptions(model_dir=tmp_path, providers=("cpu",), buckets=(4,)))
    scorer = Scorer(options, ACCOUNT_FEATURES)
    inactive = scorer.status().inactive
    assert inactive["classifier_resale"] == "the model gives no such score"
    assert "classifier_distillation" not in inactive
    assert np.isnan(served(tmp_path).score(frame())["classifier_resale"]).all()


def test_without_a_model_it_is_inactive_and_says_so() -> None:
    status = served(None).status()
    assert status.active is None
    assert "score.classifier.model_dir" in str(status.inactive)
    assert served(None).refresh() == (False, ())


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-3] ^= 1
    path.write_bytes(bytes(body))


HARM: dict[str, tuple[dict[str, Any], str]] = {
    "catalogue": ({"catalogue_hash": "0" * 16}, "train it anew"),
    "unknown feature": ({"features": ["nothing", *onnx_models.FEATURES[1:]]}, "unknown: nothing"),
    "feature twice": ({"features": [onnx_models.FEATURES[0]] * 5}, "different features"),
    "features in another order": ({"features": list(reversed(onnx_models.FEATURES))}, "off by"),
    "golden row of other features": ({"golden": {"rows": [{"x": 1.0}], "expected": {}}}, "every feature"),
    "opset": ({"opset": 23}, "export it with 18"),
    "event set": ({"inputs": [{"name": "ev", "role": "events"}]}, "which `sets` must describe"),
    "no aggregates": ({"inputs": [{"name": "known", "role": "mask"}]}, "one input with role aggregates"),
    "other input": ({"inputs": [{"name": "x", "role": "aggregates"}]}, "the graph reads"),
    "other output": ({"outputs": [{"name": "q", "columns": list(CLASSIFIER_COLUMNS)}]}, "q is missing"),
    "stray column": ({"outputs": [{"name": "p", "columns": ["risk", None, None, None, None]}]}, "stray: risk"),
    "defaults": ({"nulls": {"defaults": [0.0]}}, "5 defaults"),
    "no golden rows": ({"golden": {"rows": [], "expected": {}}}, "golden"),
    "golden of one column": (
        {"golden": {"rows": onnx_models.manifest(b"")["golden"]["rows"], "expected": {}}},
        "every column",
    ),
    "unknown key": ({"weights": 3}, "weights"),
    "not a schema": ({"schema": "classifier/v9"}, "classifier/v9"),
    "scaler": ({"nulls": {"defaults": [9_999.0, 0.0, 0.0, 0.0, 9.0]}}, "off by"),
}


@pytest.mark.parametrize("name", list(HARM))
def test_a_model_that_is_not_what_it_says_is_refused(tmp_path: Path, name: str) -> None:
    changed, message = HARM[name]
    assert message in refused(onnx_models.write(tmp_path, **changed))


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = refused(onnx_models.write(tmp_path, catalogue_hash="x", opset=9, nulls={"defaults": []}))
    assert {"catalogue_hash", "opset", "nulls"} <= {line.split(": ")[1] for line in text.splitlines()}
    assert all(line.startswith(str(tmp_path / "manifest.json")) for line in text.splitlines())


def test_a_golden_row_that_is_off_is_refused(tmp_path: Path) -> None:
    golden = onnx_models.manifest(b"")["golden"]
    golden["expected"]["classifier_resale"][1] += 1e-4
    text = refused(onnx_models.write(tmp_path, golden=golden))
    assert "classifier_resale: off by 0.0001" in text
    assert "classifier_distillation" not in text


def test_another_models_weights_under_this_manifest_are_refused(tmp_path: Path) -> None:
    """The hash is what is checked first; with it repaired by hand the golden rows still tell."""
    onnx_models.write(tmp_path)
    other = onnx_models.graph(seed=9)
    (tmp_path / "model.onnx").write_bytes(other)
    assert "copy both files again" in refused(tmp_path)
    golden = onnx_models.manifest(onnx_models.graph())["golden"]
    (tmp_path / "manifest.json").write_text(json.dumps(onnx_models.manifest(other, golden=golden)))
    assert "off by" in refused(tmp_path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: flip(d / "model.onnx"), "copy both files again"),
        (lambda d: (d / "model.onnx").unlink(), "cannot be read"),
        (lambda d: (d / "manifest.json").write_text("{"), "manifest.json"),
        (lambda d: (d / "manifest.json").unlink(), "holds neither"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, harm: Callable[[Path], object], message: str) -> None:
    harm(onnx_models.write(tmp_path))
    assert message in refused(tmp_path)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    onnx_models.write(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"nothing of the kind")
    (tmp_path / "manifest.json").write_text(json.dumps(onnx_models.manifest(b"nothing of the kind")))
    assert "ONNX Runtime refuses it" in refused(tmp_path)


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    model = onnx_models.graph(batch=4)
    onnx_models.write(tmp_path)
    (tmp_path / "model.onnx").write_bytes(model)
    (tmp_path / "manifest.json").write_text(json.dumps(onnx_models.manifest(model)))
    assert "float [B, 5]" in refused(tmp_path)


def test_values_that_are_no_probability_are_no_opinion(tmp_path: Path) -> None:
    model = served(onnx_models.write(tmp_path))
    rows = frame(8).with_columns(requests_24h=pl.Series([1e30, float("inf"), float("nan"), 1, 2, 3, 4, 5]))
    out = model.score(rows)["classifier_distillation"]
    assert np.isfinite(out[3:]).all()
    assert ((out[~np.isnan(out)] >= 0) & (out[~np.isnan(out)] <= 1)).all()


# providers


def test_a_missing_gpu_falls_back_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    model = served(onnx_models.write(tmp_path), providers=("cuda", "cpu"))
    status = model.status()
    assert status.providers == ("CPUExecutionProvider",)
    assert "CUDAExecutionProvider is not in this ONNX Runtime" in str(status.fallback)
    assert np.isfinite(model.score(frame())["classifier_resale"]).all()


@pytest.mark.skipif("CUDAExecutionProvider" not in ort.get_available_providers(), reason="a build without CUDA")
def test_a_gpu_that_cannot_start_is_noticed_by_asking_the_session(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """On a machine with a GPU the session runs there; on one without, it must not pass for one that does."""
    status = served(onnx_models.write(tmp_path), providers=("cuda", "cpu")).status()
    on_gpu = status.providers[0] == "CUDAExecutionProvider"
    assert (status.fallback is None) == on_gpu
    if not on_gpu:
        assert "running on CPUExecutionProvider" in str(status.fallback)
        assert capfd.readouterr().err == ""  # said in the status, not as lines of C++


@pytest.mark.parametrize("error", [Fail, RuntimeError])
def test_a_gpu_without_memory_falls_back_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: type[Exception]
) -> None:
    """As ONNX Runtime says it of an allocation that fails, and of a device that is not there."""
    real = ort.InferenceSession

    def session(model: bytes, settings: Any, *, providers: list[Any], enable_fallback: int = 1) -> Any:
        if providers[0] != "CPUExecutionProvider":
            raise error("CUDA failure 2: out of memory")
        return real(model, settings, providers=providers, enable_fallback=enable_fallback)

    monkeypatch.setattr(ort, "InferenceSession", session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    for providers in (("cuda", "cpu"), ("cuda",)):
        model = served(onnx_models.write(tmp_path), providers=providers)
        assert "CUDAExecutionProvider could not be started" in str(model.status().fallback)
        assert np.isfinite(model.score(frame())["classifier_resale"]).all()
    text = refused(tmp_path, providers=("cuda", "cpu"), require_gpu=True)
    assert f"({error.__name__}): see `monitor doctor` for the GPU" in text
    assert capfd.readouterr() == ("", "")


def test_the_cpu_alone_is_no_fallback(tmp_path: Path) -> None:
    assert served(onnx_models.write(tmp_path)).status().fallback is None


def test_a_gpu_that_is_required_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    text = refused(onnx_models.write(tmp_path), providers=("cuda", "cpu"), require_gpu=True)
    assert "require_gpu" in text


def test_threads_are_set(tmp_path: Path) -> None:
    model = served(onnx_models.write(tmp_path), threads=3)
    assert model._active is not None
    assert model._active.runner.session.get_session_options().intra_op_num_threads == 3


def test_two_runtimes_are_refused() -> None:
    with pytest.raises(DependencyDown, match="overwrite each other"):
        check_runtimes(("onnxruntime", "onnxruntime-gpu"))
    with pytest.raises(DependencyDown, match="not installed"):
        check_runtimes(())
    check_runtimes(installed_runtimes())
    assert len(installed_runtimes()) == 1


def test_two_runtimes_are_refused_where_a_model_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "installed_runtimes", lambda: ("onnxruntime", "onnxruntime-gpu"))
    served(None)
    with pytest.raises(DependencyDown):
        served(onnx_models.write(tmp_path))


# versions


def versions(root: Path) -> Path:
    onnx_models.write(root / "v1", seed=0)
    onnx_models.write(root / "v2", seed=5, version="2")
    (root / "CURRENT").write_text("v1\n")
    return root


def test_current_chooses_and_a_reload_swaps(tmp_path: Path) -> None:
    model, rows = served(versions(tmp_path)), frame()
    assert str(model.status().active).startswith("tiny-1:")
    assert model.refresh() == (False, ())
    (tmp_path / "CURRENT").write_text("v2")
    assert model.refresh() == (True, ())
    assert str(model.status().active).startswith("tiny-2:")
    assert np.allclose(model.score(rows)["classifier_resale"], expected(rows, 5)[:, 1], atol=1e-5)


@pytest.mark.parametrize("name", ["v3", "../v1", "", "v1/../v2"])
def test_a_version_that_is_not_there_leaves_the_old_one_running(tmp_path: Path, name: str) -> None:
    model, rows = served(versions(tmp_path)), frame()
    (tmp_path / "CURRENT").write_text(name)
    changed, problems = model.refresh()
    assert not changed
    assert "there are: v1, v2" in str(problems[0])
    assert np.allclose(model.score(rows)["classifier_resale"], expected(rows)[:, 1], atol=1e-5)


def test_an_unfit_version_leaves_the_old_one_running(tmp_path: Path) -> None:
    model, rows = served(versions(tmp_path)), frame()
    flip(tmp_path / "v2" / "model.onnx")
    (tmp_path / "CURRENT").write_text("v2")
    changed, problems = model.refresh()
    assert not changed
    assert problems[0].field == "sha256"
    assert str(model.status().active).startswith("tiny-1:")
    assert np.allclose(model.score(rows)["classifier_resale"], expected(rows)[:, 1], atol=1e-5)


def test_a_shadow_runs_beside_and_is_only_counted(tmp_path: Path) -> None:
    versions(tmp_path)
    (tmp_path / "SHADOW").write_text("v2")
    options = ScoreOptions(classifier=ClassifierOptions(model_dir=tmp_path, providers=("cpu",), buckets=(16,)))
    scorer, rows = Scorer(options, ACCOUNT_FEATURES), frame(64)
    keyed = rows.with_columns(
        subject=pl.lit("a"), partition=pl.lit(0, pl.Int32), tick=pl.int_range(pl.len()), t_ms=pl.lit(0),
        client_class=pl.lit(0, pl.UInt8),
    )  # fmt: skip
    scored = scorer.score(keyed)
    assert np.allclose(scored["classifier_resale"].to_numpy(), expected(rows)[:, 1], atol=1e-5)
    scorer.collect(scored)
    status = scorer.status().classifier
    assert str(status.shadow).startswith("tiny-2:")
    assert status.shadow_rows == 64
    differs = (np.abs(expected(rows) - expected(rows, 5)) > 0.1).any(axis=1).sum()
    assert status.shadow_differs == differs > 0


def test_an_inference_that_fails_is_null_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime's own error, raised by the runtime: an input of another shape is fed."""
    model = served(onnx_models.write(tmp_path))
    assert model._active is not None
    monkeypatch.setattr(model._active, "defaults", np.zeros(4, np.float32))
    monkeypatch.setattr(classifier, "_matrix", lambda rows, names: np.zeros((rows.height, 4), np.float32))
    assert np.isnan(model.score(frame())["classifier_resale"]).all()
    status = model.status()
    assert status.failures == 1
    assert "inference of tiny-1" in str(status.inactive)
    monkeypatch.undo()
    assert np.isfinite(model.score(frame())["classifier_resale"]).all()
    assert model.status().inactive is None


def test_another_model_is_taken_over_at_the_next_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is put in place shows in the versions of alerts from the next epoch on; an unfit one in the log."""
    from spine import batch, world

    from monitor import wiring
    from monitor.settings import Settings
    from monitor.sketch import Keyring

    versions(tmp_path)
    settings = Settings.model_validate({"score": {"classifier": {"model_dir": str(tmp_path), "providers": ["cpu"]}}})
    p = wiring.pipeline(settings, keys=Keyring.from_seed(1), rules=wiring.load(settings))
    records = world()[:600]
    third = len(records) // 3
    p.process(batch(records[:third]))
    assert p.versions["model"].startswith("tiny-1:")
    (tmp_path / "CURRENT").write_text("v2")
    assert p.versions["model"].startswith("tiny-1:")
    p.process(batch(records[third : 2 * third]))
    assert p.versions["model"].startswith("tiny-2:")
    (tmp_path / "CURRENT").write_text("v9")
    p.process(batch(records[2 * third :]))
    p.finish()
    assert p.versions["model"].startswith("tiny-2:")
    assert "unfit" in caplog.text
    assert "there are: v1, v2" in caplog.text


def test_times_of_batches_are_taken_once(tmp_path: Path) -> None:
    onnx_models.write(tmp_path)
    model = served(tmp_path)
    model.take_timings()  # those of the golden rows
    model.score(frame(21))
    found = model.take_timings()
    assert [(provider, rows) for provider, rows, _ in found] == [("cpu", 16), ("cpu", 4), ("cpu", 1)]
    assert all(0 < seconds < 60 for _, _, seconds in found)
    assert model.take_timings() == []
    assert served(None).take_timings() == []
