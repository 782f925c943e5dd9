"""What the commands share: options, how errors are said, how a table or JSON is printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import BadInput, MonitorError, Problem
from ..plain import cell, clean, json_text

P = ParamSpec("P")
R = TypeVar("R")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of settings; without it defaults and environment.")
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What the work runs on: local, processes[:N] of this machine, or ray[://HOST:PORT] (extra `cluster`).",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]

err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose own errors are said in words and become its exit status; a bug keeps its traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except MonitorError as error:
            said = "\n".join(map(clean, str(error).split("\n")))
            err.print(said, style="red", soft_wrap=True, markup=False, emoji=False)
            raise typer.Exit(error.exit_code) from None

    return run


def write_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json_text(value) + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table whose cells are text, never markup: values may come from a log."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*map(cell, row))
    return made


def day_of(text: str, option: str) -> date:
    """A day as it is written in an option. Raises BadInput."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadInput([Problem("arguments", 0, f"{option} {text!r} is no day: write 2026-11-25")]) from None


@contextmanager
def progress_bar(label: str, total: float | None, *, quiet: bool = False) -> Iterator[Callable[[float, str], None]]:
    """``update(done, note)`` on a bar on standard error; nothing where that is no terminal or ``quiet``."""
    if quiet or not err.is_terminal:
        yield lambda done, note: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(label, total=total, note="")
        yield lambda done, note: bar.update(task, completed=done, note=escape(note))
