"""``monitor train``: the classifier's network from labelled logs, as a model directory that `monitor run` can serve."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import ConfigOption, err, guarded, out, table, write_json


@guarded
def train(
    out_: Annotated[Path, typer.Option("--out", help="Directory for model.onnx, pool.onnx, manifest.json, README.md.")],
    log: Annotated[
        list[Path] | None,
        typer.Option("--log", metavar="LOG...", help="Logs (contract 1); none: the worlds of the model that ships."),
    ] = None,
    truth: Annotated[
        list[Path] | None, typer.Option(help="Truth of the logs (contract 4); an account without a line is benign.")
    ] = None,
    verdicts: Annotated[
        Path | None, typer.Option(help="Lines of the same form that overrule it; alone, only their accounts count.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the batches and the first weights.")] = 1,
    steps: Annotated[
        int, typer.Option(min=10, help="Batches of 256 sets. More learn a simulator's script by heart.")
    ] = 400,
    prevalence: Annotated[
        float, typer.Option(min=0.0001, max=0.5, help="Share of accounts that calibration takes for abusive.")
    ] = 0.02,
    leave_out: Annotated[
        bool, typer.Option("--leave-out/--no-leave-out", help="Also train once without each kind of attack.")
    ] = True,
    per_account: Annotated[int, typer.Option(min=1, help="Most sets of one account.")] = 24,
    name: Annotated[str, typer.Option(help="The model's name.")] = "requests",
    version: Annotated[str, typer.Option(help="Its version.")] = "2",
    work: Annotated[
        Path | None, typer.Option(help="Where those worlds are kept (700 MB); without it a temporary directory.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of PyTorch; another number rounds otherwise.")] = 1,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the metrics as JSON to standard output.")] = False,
) -> None:
    """Fit, calibrate and measure on tenants apart, and export. Needs the extra `train` (PyTorch, 5.5 GB)."""
    from ..settings import load_settings
    from ..train import worlds
    from ..train.dataset import read_samples
    from ..train.network import torch_of_extra
    from ..train.run import Plan
    from ..train.run import train as fit

    torch_of_extra()

    def progress(note: str) -> None:
        if not as_json:
            err.print(note, markup=False, soft_wrap=True)

    with _folder(work) as folder:
        logs, truths = (log, truth or []) if log else worlds.make(folder, progress)
        samples = read_samples(
            logs, truths, verdicts, settings=load_settings(config), per_account=per_account, progress=progress
        )
    plan = Plan(
        seed=seed, steps=steps, prevalence=prevalence, leave_out=leave_out, name=name, version=version, threads=threads
    )
    manifest = fit(samples, out_, plan, logs, progress)
    if as_json:
        write_json(manifest["metrics"])
        return
    _show(manifest, out_)


@contextmanager
def _folder(work: Path | None) -> Iterator[Path]:
    if work is not None:
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="monitor-") as made:
        yield Path(made)


def _show(manifest: dict[str, Any], to: Path) -> None:
    metrics = manifest["metrics"]
    rows = [(name, f"{value:,.4g}") for name, value in metrics.items()]
    title = f"{manifest['name']} {manifest['version']}"
    out.print(table(title, ("on unseen tenants", ""), [*rows, ("written to", to)]))
