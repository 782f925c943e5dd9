"""Runs the demo and draws ``demo.svg`` from what it said: ``python deploy/images/draw.py``. Invents nothing.

The picture has the live view at its fullest moment, one alert of each scraper as the demo explains it, and the
demo's last lines. Exit status 1, and no picture, where the demo missed a scraper or accused somebody honest.
"""

from __future__ import annotations

import io
import re
import sys
import threading
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

import monitor.cli.common as common

WIDTH = 100
PICTURE = Path(__file__).with_name("demo.svg")
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def slim(svg: str) -> str:
    """The same picture in half the bytes, in fonts of the reader's machine: a picture here fetches nothing."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("font-family: Fira Code, monospace", f"font-family: {FONT}")
    svg = re.sub(r'<clipPath id="[^"]*-line-\d+">.*?</clipPath>\s*', "", svg, flags=re.DOTALL)
    svg = re.sub(r' clip-path="url\(#[^"]*-line-\d+\)"', "", svg)
    svg = re.sub(r"<text [^>]*>\s*</text>", "", svg)
    svg = re.sub(r"terminal-\d+-", "t-", svg)
    return re.sub(r"[ \t]+\n", "\n", svg)


def main() -> int:
    """Run, draw, and say whether the demo was as it should be."""
    paper = Console(record=True, width=WIDTH, force_terminal=True, color_system="truecolor", highlight=False,
                    file=io.StringIO())  # fmt: skip
    common.out = paper  # before the commands import it
    from monitor.cli.demo import _tell, _verdict, _view
    from monitor.demo import Demo, World
    from monitor.service import Signals

    play = Demo(World())
    view = _view(play, quiet=True)
    fullest: dict[str, Panel] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            figures = view._figures()
            if "medium" in figures.get("open alerts", "") and "behind" in figures.get("requests", ""):
                fullest["panel"] = view._panel()

    threading.Thread(target=watch, daemon=True).start()
    with Signals() as signals:
        play.run(signals)
    over.set()
    verdict = _verdict(play)
    if not verdict["as_it_should_be"] or "panel" not in fullest:
        print("the demo was not as it should be: nothing drawn", verdict, file=sys.stderr)
        return 1
    paper.print(Text.assemble(("$ ", "dim"), ("monitor demo", "bold")))
    paper.print(fullest["panel"])
    shown: set[str] = set()
    low, raised = [], []
    for alert in sorted(play.alerts, key=lambda a: a.raised_at):
        scenario = play.truth.get(alert.subject, {}).get("scenario", "")
        if alert.severity in ("info", "low"):
            low.append(alert)
        elif alert.mode == "alert" and scenario not in shown:
            shown.add(scenario)
            raised.append(alert)
    play.alerts = [*raised, *low]
    _tell(play, verdict)
    svg = paper.export_svg(title="monitor demo")
    svg = slim(svg)
    PICTURE.write_text(svg, "utf-8")
    print(f"{PICTURE.name}: {len(svg):,} characters, demo of {verdict['seconds']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
