"""``monitor demo``: see it work, on real servers, in about a minute."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from ..plain import clean
from .common import JsonOption, err, guarded, out, write_json


@guarded
def demo(
    accounts: Annotated[int, typer.Option(min=100, help="Ordinary accounts.")] = 2_000,
    days: Annotated[float, typer.Option(min=1.5, help="Days of event time.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed of the traffic.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running with a console until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a broker and a Valkey server, hide two scrapers among ordinary accounts, and find them.

    Exit status 1 if a scraper is missed or an honest look-alike is raised to medium or above.
    """
    from ..demo import Demo, World
    from ..service import Signals

    play = Demo(World(accounts, days, seed), keep=keep)
    with Signals() as signals, _view(play, quiet=as_json):
        play.run(signals)
    verdict = _verdict(play)
    if as_json:
        write_json(verdict)
    else:
        _tell(play, verdict)
    raise typer.Exit(0 if verdict["as_it_should_be"] else 1)


class _view:  # noqa: N801 - reads as a with-statement's verb
    """The live view on a terminal, a line every few seconds elsewhere."""

    def __init__(self, play: Any, *, quiet: bool):
        self._play = play
        self._began = time.monotonic()
        self._over = threading.Event()
        self._live = (
            None if quiet else Live(get_renderable=self._panel, console=err, refresh_per_second=4, transient=True)
        )
        self._thread = threading.Thread(target=self._lines, daemon=True)
        self._quiet = quiet

    def __enter__(self) -> None:
        if self._live is not None and err.is_terminal:
            self._live.__enter__()
        elif not self._quiet:
            self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._live is not None and err.is_terminal:
            self._live.__exit__(None, None, None)

    def _figures(self) -> dict[str, str]:
        play, service = self._play, self._play.service
        state = f"{play.state}, compiling (a first run takes a minute)" if play.compiling else play.state
        figures = {"state": state, "time": f"{time.monotonic() - self._began:.0f} s"}
        if service is None:
            return figures
        pipeline = service.runner.pipeline
        counts = pipeline.observe.counts
        alerts = pipeline.open_by_severity()
        lag = max(play.events_produced - counts.events, 0)
        marks = pipeline.ticks.watermarks_ms
        figures |= {
            "requests": f"{counts.events:,}" + (f" ({lag:,} behind)" if lag else ""),
            "a second": f"{counts.events / max(time.monotonic() - service.runner.began, 1):,.0f}",
            "accounts": f"{len(pipeline.features.accounts):,}",
            "rows scored": f"{counts.rows:,}",
            "open alerts": ", ".join(f"{k} {v}" for k, v in sorted(alerts.items())) or "none",
            "event time": time.strftime("%a %H:%M", time.gmtime(min(marks.values()) / 1000)) if marks else "",
        }
        return figures

    def _panel(self) -> Panel:
        grid = Table.grid(padding=(0, 2))
        for name, value in self._figures().items():
            grid.add_row(name, f"[bold]{escape(value)}[/bold]")
        for name, value in self._places():  # a subtitle would be cut at the width of the figures
            grid.add_row(name, escape(value))
        return Panel(grid, title="api abuse monitor · demo", expand=False)

    def _places(self) -> list[tuple[str, str]]:
        """What can be opened while it runs."""
        play, service = self._play, self._play.service
        places = [("server", server) for server in play.servers]
        if play.console:
            places.insert(0, ("console", f"{play.console}  token {play.token}"))
            if service is not None and service.http:
                places.insert(1, ("metrics", f"{service.http.last_url}/metrics"))
        return places

    def _lines(self) -> None:
        told, last = False, -1
        while not self._over.wait(5):
            if self._play.console and not told:
                told = True
                err.print("\n".join(f"{k} {v}" for k, v in self._places()), markup=False, soft_wrap=True)
            service = self._play.service
            done = -1 if service is None else service.runner.pipeline.observe.counts.events
            if done <= 0 or done != last:  # kept open, it has nothing new to say
                err.print("  ".join(f"{k} {v}" for k, v in self._figures().items()), markup=False, soft_wrap=True)
            last = done


def _verdict(play: Any) -> dict[str, Any]:
    """What was found, held against the truth."""
    weighty = [a for a in play.alerts if a.mode == "alert" and a.severity in ("medium", "high", "critical")]
    raised = {account for alert in weighty for account in alert.accounts}
    campaigns = [a for a in weighty if a.kind == "campaign" and a.severity in ("high", "critical")]
    hidden: Counter[str] = Counter()
    found: Counter[str] = Counter()
    alike: Counter[str] = Counter()
    wrong: list[str] = []
    for account, line in play.truth.items():
        scenario = line["scenario"]
        if line["actor"] == "benign":
            alike[scenario] += 1
            if account in raised:
                wrong.append(account)
        else:
            hidden[scenario] += 1
            found[scenario] += account in raised
    wrong += [account for account in raised if account not in play.truth]
    return {
        "scrapers": {s: {"accounts": n, "found": found[s]} for s, n in sorted(hidden.items())},
        "look_alikes": dict(sorted(alike.items())),
        "campaigns": {a.subject: {"members": len(a.members), "core": len(a.accounts)} for a in campaigns},
        "raised_wrongly": wrong,
        "requests": play.events_produced,
        "seconds": round(play.seconds, 1),
        "servers": play.servers,
        "as_it_should_be": bool(hidden) and all(found[s] for s in hidden) and not wrong,
    }


def _tell(play: Any, verdict: dict[str, Any]) -> None:
    from .alerts import explain

    for alert in sorted(play.alerts, key=lambda a: a.raised_at):
        if alert.mode == "alert" and alert.severity in ("medium", "high", "critical"):
            lines = [play.truth.get(account) for account in alert.accounts]
            who = Counter(f"{line['scenario']} {line['actor']}" if line else "an ordinary account" for line in lines)
            out.rule(escape(clean(", ".join(sorted(who)) or "nobody")), align="left")
            explain(alert)
    low = sum(1 for a in play.alerts if a.severity in ("info", "low"))
    out.rule(align="left")
    service = play.service
    if service is not None and service.http is not None:
        out.print(f"metrics were served at {service.http.last_url}/metrics", markup=False)
    for server in play.servers:
        out.print(server, markup=False)
    for scenario, count in verdict["scrapers"].items():
        out.print(f"{scenario}: {count['found']} of {count['accounts']} hidden accounts found", markup=False)
    for campaign, count in verdict["campaigns"].items():
        told = f"a HIGH campaign of {count['members']} accounts, {count['core']} of them core"
        out.print(f"{campaign}: {told}", markup=False)
    kinds = ", ".join(f"{name} ({count})" for name, count in verdict["look_alikes"].items())
    out.print(f"honest look-alikes: {kinds}; raised to medium or above: {len(verdict['raised_wrongly'])}", markup=False)
    out.print(f"alerts below medium: {low} · {verdict['requests']:,} requests · {verdict['seconds']} s", markup=False)
