"""Records a run: the demo with its console and a real Prometheus, and draws the pictures of the README from it.

    PYTHONPATH=.:tests python deploy/images/record.py [--accounts N] [--out FOLDER]

Writes ``alerts.png``, ``console.png`` and ``report.png`` as headless Chromium (Debian's ``chromium``) shows them, and
``panels.svg`` from the answers of Prometheus (Debian's ``prometheus``). Nothing is made up, and nothing is written
where the demo missed a scraper or accused somebody honest: exit status 1.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import panels
from browser import Chromium
from servers import Prometheus

from monitor.cli.demo import _verdict
from monitor.demo import Demo, World
from monitor.service import Signals

ROOT = Path(__file__).resolve().parents[2]
TAB, ENTER = 9, 13
WIDTH = 1_180
START_S, RUN_S, AFTER_S = 180.0, 900.0, 12.0


def waited(what: str, ready: Any, player: threading.Thread, limit_s: float) -> None:
    """Wait until ``ready()``; a run that ended or takes too long is no run to show."""
    end = time.monotonic() + limit_s
    while not ready():
        if not player.is_alive() or time.monotonic() > end:
            sys.exit(f"nothing recorded: {what} did not happen")
        time.sleep(0.2)


def asked(demo: Demo, path: str) -> bytes:
    """What the console answers a program."""
    request = urllib.request.Request(  # noqa: S310 - the console of our own demo
        demo.console + path, headers={"Authorization": f"Bearer {demo.token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        body: bytes = answer.read()
    return body


def newest(demo: Demo) -> dict[str, Any]:
    """The largest campaign of HIGH."""
    rows: list[dict[str, Any]] = json.loads(asked(demo, "/v1/alerts?severity=high&kind=campaign"))["alerts"]
    if not rows:
        sys.exit("nothing recorded: the console has no campaign of HIGH")
    return max(rows, key=lambda row: int(row.get("accounts", 0) or 0))


def shot(page: Chromium, out: Path, height: int, top: int = 0) -> None:
    """A part of the page, from ``top`` on, as PNG."""
    whole = page.call("Page.getLayoutMetrics")["cssContentSize"]["height"]
    clip = {"x": 0, "y": top, "width": WIDTH, "height": min(height, whole - top), "scale": 1}
    answer = page.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
    out.write_bytes(base64.b64decode(answer["data"]))


def pages(demo: Demo, folder: Path) -> None:
    """Sign in as a person does, and take the list, a campaign, and its report as it stands by itself."""
    alert = newest(demo)
    with Chromium(width=WIDTH, height=900) as page:
        page.goto(demo.console)
        page.js("document.getElementById('name').focus()")
        page.type("Mia")
        page.key("Tab", TAB)
        page.type(demo.token)
        page.key("Enter", ENTER)
        page.loaded()
        shot(page, folder / "alerts.png", 620)
        page.goto(demo.console + str(alert["page"]))
        shot(page, folder / "console.png", 1_000)
        report = folder / "report.html"
        report.write_bytes(asked(demo, f"/reports/{alert['alert_id']}.html"))
        page.goto(report.as_uri())
        heading = "[...document.querySelectorAll('h2')].find(h => /link/i.test(h.textContent))"
        place = page.js(f"(e => e ? e.getBoundingClientRect().top + scrollY : 0)({heading})")
        shot(page, folder / "report.png", 1_000, max(int(place) - 20, 0))
        report.unlink()


def main() -> int:
    """Run, take the pictures, and put them in place where the run was as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=World().accounts)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    demo, signals = Demo(World(accounts=options.accounts), keep=True), Signals()
    player = threading.Thread(target=demo.run, args=(signals,), daemon=True)
    player.start()
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        try:
            waited("a port for metrics", lambda: demo.service and demo.service.http and demo.service.http.last_url,
                   player, START_S)  # fmt: skip
            assert demo.service is not None
            assert demo.service.http is not None
            target = urlsplit(demo.service.http.last_url).netloc
            with Prometheus([target], [ROOT / "deploy/prometheus/alerts.yml"]) as p:
                begin = time.time()
                waited("an end of the traffic", lambda: demo.settled, player, RUN_S)
                time.sleep(AFTER_S)  # the last scrapes, and rates over them
                end = time.time()
                shown = panels.panels(ROOT / "grafana/dashboards")
                drawn = [panels.ask(p.url, panel, begin, end, 1.0) for panel in shown]
                if empty := [d.panel.title for d in drawn if not d.lines]:
                    sys.exit(f"nothing recorded: Prometheus has nothing for {empty}")
                (folder / "panels.svg").write_text(panels.picture(drawn, begin, end), "utf-8")
            pages(demo, folder)
        finally:
            signals.stop()
            player.join(120)
        verdict = _verdict(demo)
        if not verdict["as_it_should_be"]:
            print("the demo was not as it should be: nothing recorded", verdict, file=sys.stderr)
            return 1
        for made in sorted(folder.iterdir()):
            (options.out / made.name).write_bytes(made.read_bytes())
            print(f"{made.name}: {made.stat().st_size:,} bytes")
    print(f"{verdict['requests']:,} requests, {', '.join(verdict['servers'])}, Prometheus {p.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
