"""Plots as inline SVG: no script, no style attribute, a text alternative on each. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .markup import Markup, clean, el, number, when

SEVERITIES = ("info", "low", "medium", "high", "critical")
_W = 640


def _svg(height: float, title: str, *children: Any, width: int = _W) -> Markup:
    return el("svg", el("title", title), *children, viewBox=f"0 0 {width} {height:.0f}", role="img", aria_label=title)


def _text(x: float, y: float, words: object, class_: str | None = None, anchor: str = "start") -> Markup:
    return el("text", words, x=f"{x:.1f}", y=f"{y:.1f}", class_=class_, text_anchor=anchor)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str, width: float | None = None) -> Markup:
    return el(
        "line",
        x1=f"{x1:.1f}",
        y1=f"{y1:.1f}",
        x2=f"{x2:.1f}",
        y2=f"{y2:.1f}",
        class_=class_,
        stroke_width=None if width is None else f"{width:.2f}",
    )


def _rect(x: float, y: float, w: float, h: float, class_: str, radius: float = 2) -> Markup:
    return el("rect", x=f"{x:.1f}", y=f"{y:.1f}", width=f"{max(w, 0):.1f}", height=f"{h:.1f}", rx=radius, class_=class_)


def _dot(x: float, y: float, r: float, class_: str, title: str | None = None) -> Markup:
    return el(
        "circle", el("title", title) if title else None, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{r:.1f}", class_=class_
    )


def short(words: str, length: int) -> str:
    """At most so many characters, the cut marked."""
    words = clean(words)
    return words if len(words) <= length else words[: length - 1] + "…"


def _times(low: float, high: float, left: float, right: float, y: float) -> list[Markup]:
    """Three labels under a time axis; one where both ends are one."""
    ends = [(left, low, "start"), (right, high, "end")] if high > low else [(left, low, "start")]
    made = [_line(left, y, right, y, "axis")]
    for x, at, anchor in ends:
        made.append(_text(x, y + 17, when(at).removesuffix(" UTC")[:16], "t", anchor))
    return made


def timeline(revisions: Sequence[Mapping[str, Any]], events: Sequence[tuple[float, str]] = ()) -> Markup:
    """Severity over event time as steps, requests as an area behind it; decisions as flags."""
    left, right, top, bottom = 74, _W - 58, 26, 164
    times = [float(r["revised_at"]) for r in revisions]
    begin = min(float(revisions[0]["window"]["start"]), times[0])
    low, high = begin, max([*times, *(at for at, _ in events if at < times[-1] + 30 * 86_400)])
    span = max(high - low, 1.0)
    x = [left + (right - left) * (at - low) / span for at in times]
    counts = [int(r["exposure"].get("requests") or 0) for r in revisions]
    most = max([*counts, 1])
    made: list[Markup] = []
    for level, word in enumerate(SEVERITIES):
        y = bottom - (bottom - top) * level / 4
        made += [_line(left, y, right, y, "g"), _text(left - 8, y + 4, word, "t", "end")]
    heights = [bottom - (bottom - top) * c / most for c in counts]
    area = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, heights, strict=True))
    made.append(el("polygon", points=f"{x[0]:.1f},{bottom} {area} {x[-1]:.1f},{bottom}", class_="af"))
    made += [_text(_W - 4, top + 4, number(most), "t", "end"), _text(_W - 4, bottom + 4, "0", "t", "end")]
    steps, last = [], None
    for i, r in enumerate(revisions):
        y = bottom - (bottom - top) * SEVERITIES.index(str(r["severity"])) / 4
        steps += ([f"{x[i]:.1f},{last:.1f}"] if last is not None else []) + [f"{x[i]:.1f},{y:.1f}"]
        last = y
        made.append(_dot(x[i], y, 2.6 if len(x) > 20 else 4, "h", f"revision {r['revision']}: {r['severity']}"))
    made.append(el("polyline", points=" ".join(steps), class_="hl"))
    for at, word in events:
        place = left + (right - left) * min(max((at - low) / span, 0.0), 1.0)
        made += [_line(place, top - 8, place, bottom, "wl"), _text(place - 4, top - 12, short(word, 20), "t", "end")]
    title = (
        f"{len(revisions)} revisions from {when(times[0])} to {when(times[-1])}: severity {revisions[0]['severity']} "
        f"to {revisions[-1]['severity']}, {number(counts[-1])} requests at the end"
    )
    key = [
        _rect(left, 196, 12, 10, "af"),
        _text(left + 18, 205, "requests so far (right)", "t"),
        _line(left + 190, 201, left + 210, 201, "hl"),
        _text(left + 216, 205, "severity (left)", "t"),
    ]
    return _svg(212, title, made, _times(low, high, left, right, bottom), key)


def strips(rows: Sequence[tuple[str, float | None, str, bool]], title: str, ends: tuple[str, str]) -> Markup:
    """One track a row from 0 to 1 with a dot at the row's rank; ``(name, rank, words, marked)``."""
    left, right, step = 236, _W - 120, 26
    made: list[Markup] = [_text(left, 14, ends[0], "t"), _text(right, 14, ends[1], "t", "end")]
    for i, (name, rank, words, marked) in enumerate(rows):
        y = 34 + step * i
        made += [_text(left - 10, y + 4, short(name, 33), None, "end"), _rect(left, y - 4, right - left, 8, "track", 4)]
        if rank is not None and math.isfinite(rank):
            at = left + (right - left) * min(max(rank, 0.0), 1.0)
            made += [_rect(left, y - 4, at - left, 8, "af", 4), _dot(at, y, 6, "h" if marked else "a")]
        made.append(_text(_W - 4, y + 4, short(words, 18), "t", "end"))
    spoken = "; ".join(f"{n}: {'not known' if r is None else f'{r:.3f}'}" for n, r, _, _ in rows)
    return _svg(34 + step * len(rows), f"{title}. {spoken}", made)


def bars(rows: Sequence[tuple[str, float]], title: str) -> Markup:
    """Shares between 0 and 1 as bars; the largest marked."""
    left, right, step = 130, _W - 70, 26
    best = max((v for _, v in rows), default=0.0)
    made: list[Markup] = []
    for i, (name, value) in enumerate(rows):
        y = 16 + step * i
        kind = "h" if value == best and value > 0 else "a"
        made += [
            _text(left - 10, y + 4, short(name, 18), None, "end"),
            _rect(left, y - 6, right - left, 12, "track", 3),
            _rect(left, y - 6, (right - left) * min(max(value, 0.0), 1.0), 12, kind, 3),
            _text(_W - 4, y + 4, f"{value:.2f}", "t", "end"),
        ]
    return _svg(8 + step * len(rows), f"{title}: " + ", ".join(f"{n} {v:.2f}" for n, v in rows), made)


def growth(history: Sequence[Mapping[str, Any]]) -> Markup:
    """Members over event time as an area, core members as a line in it."""
    left, right, top, bottom = 58, _W - 12, 14, 164
    times = [float(h["at"]) for h in history]
    members = [int(h.get("members") or 0) for h in history]
    core = [int(h.get("core") or 0) for h in history]
    most, span = max([*members, *core, 1]), max(times[-1] - times[0], 1.0)
    x = [left + (right - left) * (at - times[0]) / span for at in times]

    def y(count: int) -> float:
        return bottom - (bottom - top) * count / most

    def steps(counts: Sequence[int]) -> str:
        points = [f"{x[0]:.1f},{y(counts[0]):.1f}"]
        for i in range(1, len(x)):
            points += [f"{x[i]:.1f},{y(counts[i - 1]):.1f}", f"{x[i]:.1f},{y(counts[i]):.1f}"]
        return " ".join([*points, f"{right},{y(counts[-1]):.1f}"])

    made = [_line(left, y(round(most * s)), right, y(round(most * s)), "g") for s in (0, 0.5, 1)]
    made += [_text(left - 8, y(round(most * s)) + 4, number(round(most * s)), "t", "end") for s in (0, 0.5, 1)]
    made.append(el("polygon", points=f"{left},{bottom} {steps(members)} {right},{bottom}", class_="af"))
    made += [el("polyline", points=steps(members), class_="al"), el("polyline", points=steps(core), class_="hl")]
    key = [
        _line(left, 201, left + 20, 201, "al"),
        _text(left + 26, 205, "members", "t"),
        _line(left + 110, 201, left + 130, 201, "hl"),
        _text(left + 136, 205, "core", "t"),
    ]
    title = (
        f"From {members[0]} members on {when(times[0])} to {members[-1]}, {core[-1]} of them core, on {when(times[-1])}"
    )
    return _svg(212, title, made, _times(times[0], times[-1], left, right, bottom), key)


def _beside(i: int, of: int, middle: tuple[float, float]) -> tuple[float, float, bool]:
    """Place of the i-th link, and whether it is on the right: two bowed columns, so that no name meets another."""
    right, row = i % 2 == 0, i // 2
    rows = (of + 1) // 2 if right else of // 2
    off = (row - (rows - 1) / 2) * min(62.0, 350.0 / max(rows, 1))
    out = 150 * math.sqrt(1 - (off / 240) ** 2)
    return middle[0] + (out if right else -out), middle[1] - 12 + off, right


def links(found: Sequence[Mapping[str, Any]], accounts: int, most: int = 14) -> Markup:
    """The campaign in the middle, its rarest links around it: the rarer, the thicker the line."""
    shown = sorted(found, key=lambda f: (-(f.get("rarity") or 0.0), str(f.get("kind")), str(f.get("value"))))[:most]
    width, height, middle = _W, 400, (_W / 2, 200)
    peak = max([float(f.get("rarity") or 0.0) for f in shown] + [1e-9])
    lines: list[Markup] = []
    nodes: list[Markup] = []
    for i, link in enumerate(shown):
        px, py, right = _beside(i, len(shown), middle)
        rarity, share = float(link.get("rarity") or 0.0), int(link.get("accounts") or 0)
        lines.append(_line(middle[0], middle[1], px, py, "e", 0.8 + 5 * max(rarity, 0.0) / peak))
        attested = bool(link.get("attested"))
        words = f"{link.get('kind')} {link.get('value')}: {share} accounts of it here, {link.get('population')} in all"
        nodes.append(
            _dot(
                px,
                py,
                7 + 11 * math.sqrt(min(share / max(accounts, 1), 1.0)),
                f"{'w' if attested else 'a'} node",
                words,
            )
        )
        tx = px + (22 if right else -22)
        nodes += [
            _text(tx, py - 1, short(str(link.get("kind")), 17), None, "start" if right else "end"),
            _text(tx, py + 13, f"{number(share)} accounts", "t", "start" if right else "end"),
        ]
    nodes += [
        _dot(*middle, 36, "core node"),
        _text(middle[0], middle[1] + 1, number(accounts), "on", "middle"),
        _text(middle[0], middle[1] + 16, "accounts", "on2", "middle"),
    ]
    key = [
        _dot(14, 388, 6, "w"),
        _text(26, 392, "attested by you", "t"),
        _dot(150, 388, 6, "a"),
        _text(162, 392, "chosen by the client", "t"),
        _text(width - 4, 392, "thicker: rarer", "t", "end"),
    ]
    title = f"{len(shown)} links of {accounts} accounts: " + ", ".join(
        f"{f.get('kind')} shared by {f.get('accounts')}" for f in shown
    )
    return _svg(height, title, lines, nodes, key)


def tiers(counts: Mapping[str, int]) -> Markup:
    """Members by tier as one bar in three parts."""
    total, x = max(sum(counts.values()), 1), 0.0
    made: list[Markup] = []
    for count, kind in zip(counts.values(), ("h", "w", "a"), strict=False):
        width = _W * count / total
        made.append(_rect(x, 0, width - 2 if width > 3 else width, 16, kind, 3))
        x += width
    place = 0
    for (name, count), kind in zip(counts.items(), ("h", "w", "a"), strict=False):
        made += [_dot(place + 6, 34, 6, kind), _text(place + 18, 38, f"{name} {number(count)}", "t")]
        place += 170
    return _svg(44, "Members by tier: " + ", ".join(f"{n} {c}" for n, c in counts.items()), made)
