"""The manifest of an ONNX classifier: what a model directory must say of itself, and whether it is true.

A model is refused whole, with every problem named, before it scores anything. Knows files and hashes, and nothing
of ONNX Runtime: what the session has to confirm is in :mod:`monitor.score.classifier`.

A model directory holds ``model.onnx`` and ``manifest.json``. A directory of models holds one such directory a
version and a file ``CURRENT`` with the name of the version in use (and ``SHADOW``, optional, one that runs beside
it and is only recorded). Files are local: who downloads a model, and checks where it came from, is the operator.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

import msgspec

from monitor.errors import BadInput, Problem
from monitor.score.options import CLASSIFIER_COLUMNS, Vocabulary

MANIFEST, MODEL, CURRENT, SHADOW = "manifest.json", "model.onnx", "CURRENT", "SHADOW"
OPSETS = range(13, 23)
"""Opsets that are accepted; exporters write an ``Attention`` node from 23 on, which CPU kernels refuse to run."""
_VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_MODEL = 1 << 30


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor the graph reads. ``role``: ``aggregates`` [B, F] float32, the features in the manifest's order;
    ``mask`` [B, F] float32, 1 where a feature is known; ``events`` is the place of an event set, not served yet."""

    name: str
    role: Literal["aggregates", "mask", "events"]


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor the graph gives: [B, len(columns)] or, of one column, [B]; probabilities. A null column is unused."""

    name: str
    columns: list[str | None]


class Nulls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the graph reads where a feature is not known: ``defaults``, one a feature. ``min_known`` is the share of
    features under which a row gets no opinion."""

    defaults: list[float]
    min_known: float = 0.5


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows, feature by name (null: not known), with the outputs that training saw for them, within ``tolerance``.
    By name, so that a list of features in another order than the graph's is found out."""

    rows: list[dict[str, float | None]]
    expected: dict[str, list[float]]
    tolerance: float = 1e-4


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``manifest.json``, version 1. ``metrics`` are what the training measured; nothing here reads them."""

    schema: Literal["classifier/v1"]
    name: str
    version: str
    sha256: str
    opset: int
    catalogue_hash: str
    features: list[str]
    inputs: list[Input]
    outputs: list[Output]
    nulls: Nulls
    golden: Golden
    licence: str
    training_data_sha256: str
    metrics: dict[str, float] = {}

    def input(self, role: str) -> str | None:
        """Name of the input with that role."""
        return next((i.name for i in self.inputs if i.role == role), None)

    @property
    def columns(self) -> tuple[str, ...]:
        """Score columns that the model fills."""
        return tuple(c for o in self.outputs for c in o.columns if c)

    @property
    def label(self) -> str:
        """Name, version and the model's hash, as alerts state them under ``versions``."""
        return f"{self.name}-{self.version}:{self.sha256[:12]}"


class ModelFiles(msgspec.Struct, frozen=True):
    """A model's bytes, read once, so that what was hashed is what is loaded."""

    directory: Path
    manifest: Manifest
    model: bytes
    digest: str
    """Hash of manifest and model: what a reload compares."""


def locate(model_dir: Path) -> tuple[Path, Path | None]:
    """Directories of the active and the shadow model. Raises BadInput where ``CURRENT`` names none."""
    if (model_dir / MANIFEST).is_file():
        return model_dir, None
    if not (model_dir / CURRENT).is_file():
        raise BadInput([Problem(str(model_dir), 0, f"holds neither {MANIFEST} nor {CURRENT}: point it at a model")])
    active = _version(model_dir, CURRENT)
    return active, _version(model_dir, SHADOW) if (model_dir / SHADOW).is_file() else None


def _version(model_dir: Path, pointer: str) -> Path:
    path = model_dir / pointer
    try:
        name = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput([Problem(str(path), 1, f"cannot be read ({type(error).__name__})")]) from error
    if not _VERSION_NAME.fullmatch(name) or not (model_dir / name).is_dir():
        known = sorted(p.parent.name for p in model_dir.glob(f"*/{MANIFEST}"))
        raise BadInput([Problem(str(path), 1, f"names no version here; there are: {', '.join(known) or 'none'}")])
    return model_dir / name


def read(directory: Path, catalogue: Vocabulary) -> ModelFiles:
    """The files of a model, checked against each other and against the catalogue. Raises BadInput, all problems."""
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
        manifest = msgspec.json.decode(raw, type=Manifest)
    except OSError as error:
        raise BadInput([Problem(str(path), 0, f"cannot be read ({type(error).__name__})")]) from error
    except msgspec.DecodeError as error:
        raise BadInput([Problem(str(path), 0, str(error))]) from error
    model, problems = b"", _inner(str(path), manifest, catalogue)
    file = directory / MODEL
    try:
        if file.stat().st_size > _MAX_MODEL:
            problems.append(Problem(str(file), 0, "is over 1 GiB: keep weights in the file, and fewer of them"))
        else:
            model = file.read_bytes()
    except OSError as error:
        problems.append(Problem(str(file), 0, f"cannot be read ({type(error).__name__})"))
    found = hashlib.sha256(model).hexdigest()
    if model and found != manifest.sha256.lower():
        message = f"the manifest says {manifest.sha256[:12]}, {MODEL} has {found[:12]}: copy both files again"
        problems.append(Problem(str(path), 0, message, "sha256"))
    if problems:
        raise BadInput(problems)
    return ModelFiles(directory, manifest, model, hashlib.sha256(raw + model).hexdigest())


def _inner(path: str, m: Manifest, catalogue: Vocabulary) -> list[Problem]:
    found: list[tuple[str, str]] = []
    if m.catalogue_hash != catalogue.hash:
        found.append(
            ("catalogue_hash", f"trained on catalogue {m.catalogue_hash}, this is {catalogue.hash}: train it anew")
        )
    unknown = [name for name in m.features if name not in catalogue]
    if unknown or not m.features or len(set(m.features)) != len(m.features):
        found.append(("features", f"must be different features of the catalogue; unknown: {', '.join(unknown) or '-'}"))
    if m.opset not in OPSETS:
        found.append(("opset", f"is {m.opset}; {OPSETS.start} to {OPSETS.stop - 1} are served: export it with 18"))
    roles = [i.role for i in m.inputs]
    if "events" in roles:
        found.append(("inputs", "reads an event set, which this version does not give: use a model on aggregates"))
    elif roles.count("aggregates") != 1 or roles.count("mask") > 1:
        found.append(("inputs", "must name one input with role aggregates, and at most one with role mask"))
    columns = m.columns
    stray = [c for c in columns if c not in CLASSIFIER_COLUMNS]
    if not columns or stray or len(set(columns)) != len(columns):
        known = ", ".join(CLASSIFIER_COLUMNS)
        found.append(("outputs", f"columns must be different ones of {known}; stray: {', '.join(stray) or '-'}"))
    width = len(m.features)
    if len(m.nulls.defaults) != width or not 0 <= m.nulls.min_known <= 1:
        found.append(("nulls", f"needs {width} defaults, one a feature, and min_known from 0 to 1"))
    if not m.golden.rows or any(set(row) != set(m.features) for row in m.golden.rows) or m.golden.tolerance <= 0:
        found.append(("golden", "needs rows with a value or null for every feature, and a tolerance over 0"))
    elif {c: len(v) for c, v in m.golden.expected.items()} != dict.fromkeys(columns, len(m.golden.rows)):
        found.append(("golden", "must expect one value a row of every column the model fills"))
    return [Problem(path, 0, message, field) for field, message in found]
