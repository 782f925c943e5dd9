"""Plots as inline SVG: a campaign's timeline with the alert on it, leak curves, precision by threshold.

No script, no font, no link outside the page. Knows numbers and labels, not what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 560, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 26
_COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#4a5568")

LINES = len(_COLOURS)
"""Most lines of one plot of curves."""


def _x(value: float, low: float, high: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * (value - low) / ((high - low) or 1.0)


def _y(value: float, top: float) -> float:
    return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / (top or 1.0)


def _frame(title: str, body: str, x_label: str, top: float) -> str:
    base = HEIGHT - _BOTTOM
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{body}"
        f'<path d="M{_LEFT} {_TOP}V{base}H{WIDTH - _RIGHT}" class="axis"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 8}" class="end">{top:g}</text>'
        f'<text x="{_LEFT - 6}" y="{base}" class="end">0</text>'
        f'<text x="{(WIDTH + _LEFT) / 2}" y="{HEIGHT - 6}" class="mid">{escape(x_label)}</text></svg>'
    )


def timeline(title: str, data: dict[str, Any]) -> str:
    """Requests of a campaign over the log (grey), those of accounts already named (blue), a line at each naming."""
    sent, named, start, end = data["sent"], data["named"], data["start"], data["end"]
    top, count = max([*sent, 1]), len(sent)
    width = (WIDTH - _LEFT - _RIGHT) / count
    bars = []
    for values, style in ((sent, "sent"), (named, "named")):
        for i, value in enumerate(values):
            if value:
                y = _y(value, top)
                bars.append(
                    f'<rect x="{_LEFT + i * width:.1f}" y="{y:.1f}" width="{max(width - 0.6, 0.4):.1f}" '
                    f'height="{HEIGHT - _BOTTOM - y:.1f}" class="{style}"/>'
                )
    marks = []
    if data["named_at"]:
        at = _x(min(max(data["named_at"][0], start), end), start, end)
        marks.append(f'<path d="M{at:.1f} {_TOP}V{HEIGHT - _BOTTOM}" class="alert"/>')
        marks.append(f'<text x="{at + 3:.1f}" y="{_TOP + 9}">first HIGH</text>')
    else:
        marks.append(f'<text x="{WIDTH - _RIGHT - 4}" y="{_TOP + 9}" class="end">never named at HIGH</text>')
    for day in range(int((end - start) // 86_400) + 1) if end - start < 31 * 86_400 else ():
        at = _x(start + day * 86_400, start, end)
        marks.append(f'<text x="{at:.1f}" y="{HEIGHT - _BOTTOM + 11}" class="mid">{day}</text>')
    return _frame(title, "".join(bars + marks), f"days ({(end - start) / 86_400:.1f} in all)", float(top))


def curves(title: str, lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], x_label: str) -> str:
    """Lines of (x, share) with their names; y from 0 to 1."""
    xs = [x for _, points in lines for x, _ in points] or [0.0]
    low, high, body = min(xs), max(xs), []
    for i, (name, points) in enumerate(lines):
        colour = _COLOURS[i % len(_COLOURS)]
        path = "L".join(f"{_x(x, low, high):.1f} {_y(y, 1.0):.1f}" for x, y in points)
        body.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        body += [
            f'<circle cx="{_x(x, low, high):.1f}" cy="{_y(y, 1.0):.1f}" r="2.2" fill="{colour}"/>' for x, y in points
        ]
        # curves of what leaks rise to the right: the corner below them is free
        y = HEIGHT - _BOTTOM - 8 - 11 * (len(lines) - 1 - i)
        body.append(f'<text x="{WIDTH - _RIGHT - 6}" y="{y}" class="end" style="fill:{colour}">{escape(name)}</text>')
    for x in sorted({x for _, points in lines for x, _ in points}):
        body.append(f'<text x="{_x(x, low, high):.1f}" y="{HEIGHT - _BOTTOM + 11}" class="mid">{x:g}</text>')
    return _frame(title, "".join(body), x_label, 1.0)


def bars(title: str, values: Sequence[tuple[str, float | None]]) -> str:
    """One bar a label, shares from 0 to 1; a gap where the value is not known."""
    step, body = (WIDTH - _LEFT - _RIGHT) / max(len(values), 1), []
    for i, (name, value) in enumerate(values):
        x = _LEFT + i * step
        if value is not None:
            y = _y(value, 1.0)
            place = f'x="{x + step * 0.2:.1f}" y="{y:.1f}" width="{step * 0.6:.1f}" height="{HEIGHT - _BOTTOM - y:.1f}"'
            body.append(f'<rect {place} class="named"/>')
        label = f"{name} {'-' if value is None else format(value, '.2f')}"
        body.append(f'<text x="{x + step / 2:.1f}" y="{HEIGHT - _BOTTOM + 12}" class="mid">{escape(label)}</text>')
    return _frame(title, "".join(body), "", 1.0)
