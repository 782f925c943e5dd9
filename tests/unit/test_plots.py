"""The picture of links: every name can be read, however many there are."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

import pytest

from monitor.evidence import plots

WIDTH, CHARACTER, LINE = 640, 7.6, 13
"""Of the picture; of a letter of 14 pixels, at most, and how high a line of it stands."""


def boxes(count: int, kind: str = "template_opening") -> list[tuple[float, float, float, float]]:
    """(left, top, right, bottom) of every name, count and node around the middle."""
    links = [{"kind": kind, "value": f"{i:016x}", "accounts": 400, "population": 400, "rarity": 9.0 - i / 10,
              "attested": i % 3 == 0} for i in range(count)]  # fmt: skip
    svg = ElementTree.fromstring(str(plots.links(links, 400)))
    found = []
    for e in svg.iter():
        tag = e.tag.rpartition("}")[2]
        if tag == "text" and e.get("text-anchor") != "middle" and float(e.get("y", 0)) < 380:
            x, y, wide = float(e.get("x", 0)), float(e.get("y", 0)), CHARACTER * len(e.text or "")
            left = x - wide if e.get("text-anchor") == "end" else x
            found.append((left, y - LINE + 2, left + wide, y + 2))
        elif tag == "circle" and "node" in (e.get("class") or "") and "core" not in (e.get("class") or ""):
            x, y, r = (float(e.get(k, 0)) for k in ("cx", "cy", "r"))
            found.append((x - r, y - r, x + r, y + r))
    return found


@pytest.mark.parametrize("count", range(1, 15))
def test_no_name_lies_on_another_nor_outside(count: int) -> None:
    found = boxes(count)
    assert len(found) == 3 * count
    for a, b in combinations(found, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
    for left, top, right, bottom in found:
        assert left >= 0
        assert right <= WIDTH
        assert top >= 0
        assert bottom <= 380
