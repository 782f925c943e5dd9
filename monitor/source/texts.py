"""Texts out of a file: what a corpus is built from. NDJSON, a JSON array, Parquet, or plain text with one a line.

A file is told by its content, compressed or not, as :mod:`monitor.source.readers` does. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from monitor.errors import BadInput, Problem

from .readers import DamagedFile, kind_of, read_blocks

USUAL: Final = ("prompt", "instruction", "question", "text", "input", "query", "problem")
"""Columns that are looked for, in this order, where none is named."""
_LINE_MOST: Final = 64 << 20


def read_texts(path: Path, columns: Sequence[str] = ()) -> Iterator[str]:
    """The texts of a file in its order. Several ``columns`` of a row are joined by a line end, empty ones left out.

    Raises BadInput where the file can't be read, is damaged, or no row has the columns.
    """
    try:
        yield from _texts(path, columns)
    except DamagedFile as error:
        raise BadInput([error.problem]) from error


def _texts(path: Path, columns: Sequence[str]) -> Iterator[str]:
    rows, named, seen = 0, tuple(columns), set[str]()
    for row in _rows(path):
        if isinstance(row, str):
            yield row
            continue
        rows += 1
        if rows <= 100:
            seen.update(map(str, row))
        if not named:
            named = tuple(name for name in USUAL if isinstance(row.get(name), str))[:1]
        text = "\n".join(value for name in named if isinstance(value := row.get(name), str) and value)
        if text:
            yield text
            rows = -1 << 62
    if rows > 0:
        wanted = ", ".join(columns or USUAL)
        raise BadInput([Problem(
            str(path), 0, f"no row has text in {wanted}: name its columns with --column; there are "
            f"{', '.join(sorted(seen)) or 'none'}",
        )])  # fmt: skip


def _rows(path: Path) -> Iterator[str | Mapping[str, Any]]:
    """JSON objects as mappings, lines of plain text as they are."""
    array: list[bytes] | None = None
    plain = False
    for number, line in enumerate((line for block in read_blocks(path, _LINE_MOST) for line in block), 1):
        if number == 1 and kind_of(path) != "parquet":
            array = [] if line.lstrip()[:1] == b"[" else None
            plain = line.lstrip()[:1] not in (b"{", b"[")
        if array is not None:
            array.append(line)
        elif plain:
            yield line.decode("utf-8", "replace").strip()
        else:
            row = _json(line, path, number)
            if not isinstance(row, Mapping):
                raise BadInput([Problem(str(path), number, "is no JSON object, as the lines before are")])
            yield row
    if array is not None:
        rows = _json(b"\n".join(array), path, 0)
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, str | Mapping):
                yield row


def _json(value: bytes, path: Path, line: int) -> Any:
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError):  # their text quotes the file
        raise BadInput([Problem(str(path), line, "is not JSON: mend the line, or give plain text")]) from None
