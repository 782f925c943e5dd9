"""The manifest of an ONNX classifier: what a model directory must say of itself, and whether it is true.

A model is refused whole, with every problem named, before it scores anything. Knows files and hashes, and nothing
of ONNX Runtime: what the session has to confirm is in :mod:`monitor.score.classifier`.

A model directory holds ``model.onnx`` and ``manifest.json``; one that reads sets of requests also ``pool.onnx``, the
same weights over the larger set. A directory of models holds one such directory a
version and a file ``CURRENT`` with the name of the version in use (and ``SHADOW``, optional, one that runs beside
it and is only recorded). Files are local: who downloads a model, and checks where it came from, is the operator.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from monitor.errors import BadInput, Problem
from monitor.score.options import CLASSIFIER_COLUMNS, Vocabulary
from monitor.vectors import POOL_SIZE, SET_SIZE, VectorLayout

U8 = npt.NDArray[np.uint8]

MANIFEST, MODEL, POOL, CURRENT, SHADOW = "manifest.json", "model.onnx", "pool.onnx", "CURRENT", "SHADOW"
OPSETS = range(13, 23)
"""Opsets that are accepted; exporters write an ``Attention`` node from 23 on, which CPU kernels refuse to run."""
_VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_MODEL = 1 << 30


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor the graph reads. ``role``: ``aggregates`` [B, F] float32, the features in the manifest's order;
    ``mask`` [B, F] float32, 1 where a feature is known; ``events`` [B, K, D] uint8, a set of requests' vectors, and
    ``events_mask`` [B, K] uint8, 1 where the set has one."""

    name: str
    role: Literal["aggregates", "mask", "events", "events_mask"]


class Sets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sets that the graphs read: ``width`` bytes a vector of the layout with that hash, ``size`` vectors in
    ``model.onnx`` and ``pool`` in ``pool.onnx``. A set of fewer than ``min_events`` gets no opinion."""

    layout_hash: str
    width: int
    size: int
    pool: int
    pool_sha256: str
    min_events: int = 8


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
    By name, so that a list of features in another order than the graph's is found out. ``events``, one a row: the
    vectors of its set, one after the other, in base64."""

    rows: list[dict[str, float | None]]
    expected: dict[str, list[float]]
    tolerance: float = 1e-4
    events: list[str] = []

    def sets(self, width: int, size: int) -> tuple[U8, U8]:
        """Events uint8 [rows, size, width] and their mask. Raises ValueError for what is no set of that form."""
        events, mask = np.zeros((len(self.events), size, width), np.uint8), np.zeros((len(self.events), size), np.uint8)
        for i, text in enumerate(self.events):
            try:
                flat = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
            except binascii.Error as error:
                raise ValueError("an event set is not base64") from error
            if len(flat) % width or not 0 < len(flat) // width <= size:
                raise ValueError(f"an event set is not 1 to {size} vectors of {width} bytes")
            events[i, : len(flat) // width] = flat.reshape(-1, width)
            mask[i, : len(flat) // width] = 1
        return events, mask


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``manifest.json``, version 1. ``catalogue_hash`` is :func:`features_hash` of the features that the model reads.
    ``metrics`` are what the training measured, ``training`` how; nothing here reads either."""

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
    sets: Sets | None = None
    training: dict[str, str | int | float | bool | list[str]] = {}

    def input(self, role: str) -> str | None:
        """Name of the input with that role."""
        return next((i.name for i in self.inputs if i.role == role), None)

    def name_of(self, role: str) -> str:
        """Name of the input with that role, which the manifest must have."""
        name = self.input(role)
        if name is None:
            raise KeyError(role)
        return name

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
    """Hash of manifest and graphs: what a reload compares."""
    pool: bytes = b""


def features_hash(names: Sequence[str], catalogue: Vocabulary) -> str:
    """Hash of what the features ``names`` mean: a model is refused where one of those it reads changed its meaning,
    not where the catalogue grew by another."""
    known = (catalogue[name] for name in sorted(names) if name in catalogue)
    text = "\n".join(f"{f.name}|{f.unit}|{f.window}" for f in known)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def packaged_model() -> Path:
    """Directory of the model that ships with the package."""
    return Path(str(resources.files("monitor.score"))) / "models"


def locate(model_dir: Path) -> tuple[Path, Path | None]:
    """Directories of the active and the shadow model. Raises BadInput where ``CURRENT`` names none."""
    if (model_dir / MANIFEST).is_file():
        return model_dir, None
    if not (model_dir / CURRENT).is_file():
        raise BadInput([Problem(str(model_dir), 0, f"holds neither {MANIFEST} nor {CURRENT}: point it at a model")])
    active = _version(model_dir, CURRENT)
    return active, _version(model_dir, SHADOW) if (model_dir / SHADOW).is_file() else None


def stamp_of(model_dir: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every file there: what says, without reading any, that something was put in place."""
    files = [path for pattern in ("*", "*/*") for path in model_dir.glob(pattern)]
    found = []
    for path in sorted(files):
        try:
            told = path.stat()
        except OSError:  # went away meanwhile
            continue
        found.append((str(path), told.st_mtime_ns, told.st_size))
    return tuple(found)


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


def read(directory: Path, catalogue: Vocabulary, layout: VectorLayout | None = None) -> ModelFiles:
    """The files of a model, checked against each other, the catalogue and the layout of vectors. Raises BadInput, all
    problems."""
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
        manifest = msgspec.json.decode(raw, type=Manifest)
    except OSError as error:
        raise BadInput([Problem(str(path), 0, f"cannot be read ({type(error).__name__})")]) from error
    except msgspec.DecodeError as error:
        raise BadInput([Problem(str(path), 0, str(error))]) from error
    problems = _inner(str(path), manifest, catalogue)
    problems += [Problem(str(path), 0, m, f) for f, m in _set_problems(manifest, layout)]
    model = _graph(directory, MODEL, manifest.sha256, problems)
    pool = _graph(directory, POOL, manifest.sets.pool_sha256, problems) if manifest.sets is not None else b""
    if problems:
        raise BadInput(problems)
    return ModelFiles(directory, manifest, model, hashlib.sha256(raw + model + pool).hexdigest(), pool)


def _graph(directory: Path, name: str, sha256: str, problems: list[Problem]) -> bytes:
    """The bytes of a graph, with what is wrong with them added to ``problems``."""
    file, graph = directory / name, b""
    try:
        if file.stat().st_size > _MAX_MODEL:
            problems.append(Problem(str(file), 0, "is over 1 GiB: keep weights in the file, and fewer of them"))
        else:
            graph = file.read_bytes()
    except OSError as error:
        problems.append(Problem(str(file), 0, f"cannot be read ({type(error).__name__})"))
    found = hashlib.sha256(graph).hexdigest()
    if graph and found != sha256.lower():
        message = f"the manifest says {sha256[:12]}, {name} has {found[:12]}: copy both files again"
        problems.append(Problem(str(directory / MANIFEST), 0, message, "sha256"))
    return graph


def _set_problems(m: Manifest, layout: VectorLayout | None) -> list[tuple[str, str]]:
    """What a model that reads sets says wrongly of them."""
    roles = [i.role for i in m.inputs]
    given = (roles.count("events"), roles.count("events_mask"))
    if m.sets is None:
        return [("inputs", "reads an event set, which `sets` must describe")] if any(given) else []
    found = []
    if given != (1, 1):
        found.append(("inputs", "with `sets`, must name one input with role events and one with role events_mask"))
    if layout is None or (m.sets.layout_hash, m.sets.width) != (layout.hash, layout.width):
        have = f"{layout.hash} of {layout.width} bytes" if layout is not None else "none"
        message = f"trained on vectors {m.sets.layout_hash} of {m.sets.width} bytes, these are {have}: train it anew"
        found.append(("sets", message))
    if not (1 <= m.sets.min_events <= SET_SIZE == m.sets.size <= m.sets.pool == POOL_SIZE):
        found.append(("sets", f"must be of {SET_SIZE} vectors and of {POOL_SIZE} in a pool"))
    elif len(m.golden.events) != len(m.golden.rows):
        found.append(("golden", "needs a set of events for each row"))
    else:
        try:
            m.golden.sets(m.sets.width, m.sets.size)
        except ValueError as error:
            found.append(("golden", str(error)))
    return found


def _inner(path: str, m: Manifest, catalogue: Vocabulary) -> list[Problem]:
    found: list[tuple[str, str]] = []
    here = features_hash(m.features, catalogue)
    if m.catalogue_hash != here:
        found.append(("catalogue_hash", f"trained on features {m.catalogue_hash}, these are {here}: train it anew"))
    unknown = [name for name in m.features if name not in catalogue]
    if unknown or not m.features or len(set(m.features)) != len(m.features):
        found.append(("features", f"must be different features of the catalogue; unknown: {', '.join(unknown) or '-'}"))
    if m.opset not in OPSETS:
        found.append(("opset", f"is {m.opset}; {OPSETS.start} to {OPSETS.stop - 1} are served: export it with 18"))
    roles = [i.role for i in m.inputs]
    if roles.count("aggregates") != 1 or roles.count("mask") > 1:
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
