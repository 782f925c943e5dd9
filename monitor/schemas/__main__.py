"""Writes the shipped schemas beside this file: ``python -m monitor.schemas`` after a change of the contracts' code."""

from __future__ import annotations

from pathlib import Path

from monitor.schemas import render

if __name__ == "__main__":
    for name, text in render().items():
        Path(__file__).with_name(name).write_text(text, "utf-8")
