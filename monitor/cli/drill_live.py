"""``monitor drill --live``: the command's side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import BadInput, Problem
from .common import err, out

if TYPE_CHECKING:
    from ..drilling import Plan, Result

PORT = 9468
"""Where a live drill serves its metrics: `run`, `serve` and `ingest` of one host have those before."""


def drill_live(config: Path | None, plan: Plan, port: int, earliest: bool) -> None:
    """Drill until a signal or the last round; exit status 1 if a campaign was missed."""
    from .. import wiring
    from ..drilling import run_drill
    from ..service import Signals, configure_logging
    from ..settings import load_settings

    settings = load_settings(config)
    missing = [Problem(str(config or "settings"), 0, message, field) for field, message in settings.missing_for_run()]
    if missing:
        raise BadInput(missing)
    configure_logging(settings.log)

    def told(result: Result) -> None:
        after = "missed" if result.after_s is None else f"found after {result.after_s / 3600:.1f} h of event time"
        out.print(f"{plan.scenario}, {result.accounts} accounts: {after}", markup=False)

    with Signals() as signals:
        made = run_drill(settings, wiring.keyring(settings), plan, signals, port=port, told=told, earliest=earliest)
    if not made.results:
        err.print(f"no round was finished: {made.profile.requests:,} requests were studied", style="yellow")
    raise typer.Exit(1 if any(r.after_s is None for r in made.results) else 0)
