"""Tables of many columns on the terminal that there is: cut by columns rather than every cell into pieces."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

from .common import out

_FRAME = 3
"""Border and padding of a column."""


def show(table: Table) -> None:
    """Print ``table``: on a terminal in as many parts as its width needs, into a file or a pipe whole."""
    if out.is_terminal:
        for part in parts(table, out.width):
            out.print(part)
    else:
        _settle(table.columns)
        Console(file=out.file, highlight=False, width=sum(map(_width, table.columns)) + 1).print(table)


def parts(table: Table, width: int) -> list[Table]:
    """The table as tables of at most ``width`` characters, each with its first column; a part has two columns at
    least, however narrow the terminal."""
    if sum(_width(column, whole=True) for column in table.columns) < width:
        return [table]
    _settle(table.columns)
    first, *others = table.columns
    groups: list[list[Column]] = []
    room = 0
    for column in others:
        if not groups or _width(column) > room:
            groups.append([])
            room = width - 1 - _width(first)
        groups[-1].append(column)
        room -= _width(column)
    if len(groups) < 2:
        return [table]
    return [_of([first, *group], table, number) for number, group in enumerate(groups)]


def _of(columns: list[Column], table: Table, number: int) -> Table:
    made = Table(title=None if number else table.title, title_justify="left", header_style=table.header_style)
    for column in columns:
        made.add_column(column.header, justify=column.justify, overflow="fold", width=column.width)
    for row in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*row)
    return made


def _settle(columns: list[Column]) -> None:
    """Widths of their own: left to itself the library takes from the widest first, until words are cut."""
    for column in columns:
        column.width = _width(column) - _FRAME


def _width(column: Column, whole: bool = False) -> int:
    """What no cell, and no word of the header (the whole header), has to be cut for."""
    words = [cell_len(word) for word in ([str(column.header)] if whole else str(column.header).split())]
    cells = [cell_len(line) for cell in column.cells for line in str(cell).split("\n")]
    return max([*words, *cells, 1]) + _FRAME
