"""What tuning found, as one HTML file with nothing outside it: the sweep's curve, or alerts gained and lost."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.evidence.markup import Markup, card, definitions, el, join, number, table, when
from monitor.evidence.style import CSS, REPORT_POLICY

from .compare import WHAT, Change, Comparison, summary
from .sweep import Curve, Point

_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 240, 60, 20, 16, 196
_MOST_ROWS = 200


def curve_page(curve: Curve) -> str:
    """A sweep: one curve a count, and its table."""
    title = f"{curve.sweep.rule}: {curve.sweep.param} from {_g(curve.points[0].value)} to {_g(curve.points[-1].value)}"
    lines: list[tuple[str, str, list[float]]] = [("accounts it fires on", "hl", [p.subjects for p in curve.points])]
    if curve.abusive is not None:
        lines = [
            ("abusive accounts", "hl", [p.abusive or 0 for p in curve.points]),
            ("honest accounts", "wl", [(p.look_alike or 0) + (p.background or 0) for p in curve.points]),
        ]
    facts = definitions([("value in force", _g(curve.now.value)), ("accounts now", number(curve.now.subjects)),
                         ("alerts now", number(curve.now.alerts))])  # fmt: skip
    plot = lines_plot(title, [p.value for p in curve.points], lines, curve.sweep.param, curve.now.value)
    head = ["value", "rows", "accounts", "alerts", "medium or more", "high", "accounts gained", "accounts lost"]
    told = curve.abusive is not None
    rows = [[*map(number, _cells(p, told))] for p in curve.points]
    made = table([*head, *(("abusive", "look-alikes", "background") if told else ())], [list(r) for r in rows],
                 caption=title, numeric=tuple(range(len(head) + 3)))  # fmt: skip
    return _page(title, card("The curve", plot, facts), card("Its points", made))


def _cells(p: Point, told: bool) -> Sequence[object]:
    counts = (_g(p.value), p.fired, p.subjects, p.alerts, p.medium, p.high, p.gained, p.lost)
    return (*counts, p.abusive, p.look_alike, p.background) if told else counts


def comparison_page(found: Comparison) -> str:
    """Two rule sets: what changed for alerts and for accounts."""
    title = "Alerts gained and lost"
    counts = [(w, sum(c.what == w for c in found.accounts), sum(c.what == w for c in found.alerts)) for w in WHAT]
    bars = bars_plot("accounts by what changed", [(w, n) for w, n, _ in counts])
    facts = definitions([
        ("old rules", f"{summary(found.old)['hash']}, {number(len(found.old.alerts))} alerts"),
        ("new rules", f"{summary(found.new)['hash']}, {number(len(found.new.alerts))} alerts"),
    ])  # fmt: skip
    cards = [card("Accounts", bars, facts, _changes(found.accounts, "accounts"))]
    return _page(title, *cards, card("Alerts", _changes(found.alerts, "alerts")))


def _changes(changes: Sequence[Change], what: str) -> Markup:
    if not changes:
        return el("p", f"No {what} changed.")
    rows: list[list[object]] = [
        [c.what, c.mode, c.kind, el("code", c.subject), c.old or "none", c.new or "none", ", ".join(c.rules),
         when(c.at), c.truth or "not told"] for c in changes[:_MOST_ROWS]
    ]  # fmt: skip
    heads = ["change", "mode", "kind", "subject", "old", "new", "rules", "raised", "truth"]
    made = table(heads, rows, caption=what)
    left = len(changes) - len(rows)
    return join(made, el("p", f"{left} more are in the JSON.") if left > 0 else None)


def lines_plot(
    title: str, x: Sequence[float], lines: Sequence[tuple[str, str, Sequence[float]]], axis: str, marked: float
) -> Markup:
    """Curves over one axis, from 0 to the largest value; a line at the value in force. ``(name, class, values)``."""
    low, high = min(x), max(x)
    most = max([*(v for _, _, values in lines for v in values), 1])

    def at(value: float) -> float:
        return _LEFT + (_W - _LEFT - _RIGHT) * (value - low) / ((high - low) or 1.0)

    def up(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / most

    made: list[Markup] = [
        _line(_LEFT, _BOTTOM, _W - _RIGHT, _BOTTOM, "axis"), _text(_LEFT - 8, _TOP + 4, number(most), "end"),
        _text(_LEFT - 8, _BOTTOM + 4, "0", "end"), _text(_LEFT, _BOTTOM + 17, _g(low), "start"),
        _text(_W - _RIGHT, _BOTTOM + 17, _g(high), "end"), _text((_W + _LEFT) / 2, _BOTTOM + 17, axis, "middle"),
    ]  # fmt: skip
    if low <= marked <= high:
        made.append(_line(at(marked), _TOP, at(marked), _BOTTOM, "g"))
    for i, (name, style, values) in enumerate(lines):
        points = [(at(a), up(b)) for a, b in zip(x, values, strict=True)]
        made.append(el("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in points), class_=style, fill="none"))
        made += [
            el("circle", el("title", f"{_g(v)}: {number(n)} {name}"), cx=f"{a:.1f}", cy=f"{b:.1f}", r=4,
               class_="h" if style == "hl" else "a")
            for (a, b), v, n in zip(points, x, values, strict=True)
        ]  # fmt: skip
        left = _LEFT + 230 * i
        made += [_line(left, _H - 12, left + 20, _H - 12, style), _text(left + 26, _H - 8, name, "start")]
    spoken = "; ".join(f"{name}: {', '.join(map(_g, values))}" for name, _, values in lines)
    return el("svg", el("title", f"{title}. {spoken}"), made, viewBox=f"0 0 {_W} {_H}", role="img", aria_label=title)


def bars_plot(title: str, rows: Sequence[tuple[str, int]]) -> Markup:
    """Counts as bars."""
    most = max([n for _, n in rows] + [1])
    made: list[Markup] = []
    for i, (name, n) in enumerate(rows):
        y = 10 + 26 * i
        width = (_W - 200) * n / most
        made += [_text(100, y + 12, name, "end"), _text(120 + width, y + 12, number(n), "start"),
                 el("rect", x="110", y=f"{y}", width=f"{width:.1f}", height="16", rx="2", class_="af")]  # fmt: skip
    spoken = "; ".join(f"{name}: {n}" for name, n in rows)
    height = 14 + 26 * len(rows)
    box = f"0 0 {_W} {height}"
    return el("svg", el("title", f"{title}: {spoken}"), made, viewBox=box, role="img", aria_label=title)


def _g(value: float) -> str:
    return f"{value:g}"


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return el("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=style)


def _text(x: float, y: float, words: object, anchor: str) -> Markup:
    return el("text", words, x=f"{x:.1f}", y=f"{y:.1f}", class_="t", text_anchor=anchor)


def _page(title: str, *body: Markup) -> str:
    head = join(
        el("meta", charset="utf-8"), el("meta", http_equiv="Content-Security-Policy", content=REPORT_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"), el("title", title),
        el("style", Markup(CSS)),
    )  # fmt: skip
    main = el("main", el("h1", title), *body)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{main}</body></html>\n'
