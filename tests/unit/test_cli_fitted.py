"""Wide tables: cut by columns where a terminal is narrow, whole where nobody counts columns."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from monitor.cli import fitted

HEADERS = ["run", *(f"false alarms of kind {k}" for k in range(12))]


@pytest.fixture
def wide() -> Table:
    table = Table(title="Detectors")
    for header in HEADERS:
        table.add_column(header, overflow="fold")
    table.add_row("this detector", *(f"{k:04} (of {k:05})" for k in range(12)))
    return table


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_cell_is_cut_and_each_part_names_its_rows(wide: Table, width: int) -> None:
    cut = fitted.parts(wide, width)
    assert len(cut) > 1
    assert [column.header for part in cut for column in part.columns[1:]] == HEADERS[1:]
    sink = StringIO()
    for part in cut:
        assert part.columns[0].header == "run"
        Console(file=sink, width=width).print(part)
    text = sink.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert all(f"{k:04} (of {k:05})" in text for k in range(12))
    assert text.count("this detector") == len(cut)
    assert text.count("alarms") == 12


def test_a_pipe_gets_one_table_whole(wide: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = StringIO()
    monkeypatch.setattr(fitted, "out", Console(file=sink, width=80))
    fitted.show(wide)
    text = sink.getvalue()
    assert text.count("this detector") == 1
    assert all(f"{k:04} (of {k:05})" in text for k in range(12))


def test_what_fits_stays_one_table(wide: Table) -> None:
    assert fitted.parts(wide, 500) == [wide]
