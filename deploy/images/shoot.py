"""Draws console.png from a console that runs: a page as headless Chromium (Debian's `chromium`) shows it.

    PYTHONPATH=.:tests python deploy/images/shoot.py URL TOKEN_FILE [PATH] [--out FILE] [--height PIXELS] [--dark]

PATH is a page such as /alerts/a-17; without it the newest alert of medium or more is shown.
"""

from __future__ import annotations

import argparse
import base64
import json
import urllib.request
from pathlib import Path

from browser import Chromium

TAB, ENTER = 9, 13


def newest(url: str, token: str) -> str:
    """Page of the newest alert that matters."""
    asked = urllib.request.Request(  # noqa: S310 - the address is the caller's own
        f"{url}/v1/alerts?severity=medium&limit=1", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
        return str(json.load(answer)["alerts"][0]["page"])


def main() -> None:
    """Sign in, load the page, write its upper part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("token", type=Path)
    parser.add_argument("page", nargs="?")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "console.png")
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    url, token = options.url.rstrip("/"), options.token.read_text().strip()
    page = options.page or newest(url, token)
    with Chromium(width=1_180, height=options.height, dark=options.dark) as browser:
        browser.goto(url)
        browser.js("document.getElementById('name').focus()")
        browser.type("Mia")
        browser.key("Tab", TAB)
        browser.type(token)
        browser.key("Enter", ENTER)
        browser.loaded()
        browser.goto(url + page)
        clip = {"x": 0, "y": 0, "width": 1_180, "height": options.height, "scale": 1}
        shot = browser.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        options.out.write_bytes(base64.b64decode(shot["data"]))
    print(f"{options.out}: {page} of {url}")


if __name__ == "__main__":
    main()
