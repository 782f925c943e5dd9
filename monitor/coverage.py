"""What a log carries and what the monitor can do with it: the figures of ``monitor check``. Keeps no value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from monitor import wiring
from monitor.decode import AUTO, DecodeOptions, Reader, available_fields, decode, read_message
from monitor.decode.formats import Auto
from monitor.errors import NothingReadable
from monitor.fields import FIELDS, REJECT_REASONS
from monitor.observe import Inactive
from monitor.records import RawBatch
from monitor.settings import Settings
from monitor.sketch import Keyring
from monitor.sketch.frame import sketch_frame
from monitor.source.readers import DamagedFile, read_blocks

_BATCH = 5_000


@dataclass(slots=True)
class Coverage:
    """Counts over all files. ``fields``: field -> rows that say it; ``rejects``: (reason, field) -> items."""

    formats: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    requests: int = 0
    ignored: int = 0
    rejects: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong_types: Counter[str] = field(default_factory=Counter)
    unknown_fields: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    accounts: int = 0
    problems: list[str] = field(default_factory=list)
    inactive: Inactive = field(default_factory=lambda: Inactive({}, {}, {}))

    def shares(self) -> dict[str, float]:
        """Field -> share of the requests that say it, in the contract's order; fields that none says are left out."""
        return {name: self.fields[name] / self.requests for name in FIELDS if self.fields[name]}

    def as_json(self) -> dict[str, Any]:
        """The report of ``--json``."""
        return {
            "formats": dict(sorted(self.formats.items())),
            "messages": self.messages,
            "requests": self.requests,
            "accounts": self.accounts,
            "rejected": sum(self.rejects.values()),
            "rejects": [
                {"reason": reason, "field": name or None, "count": count, "help": REJECT_REASONS[reason].help}
                for (reason, name), count in self.rejects.most_common()
            ],
            "ignored": self.ignored,
            "wrong_types": dict(self.wrong_types.most_common()),
            "unknown_fields": self.unknown_fields,
            "fields": {name: round(share, 4) for name, share in self.shares().items()},
            "absent": [name for name in FIELDS if not self.fields[name]],
            "inactive": {
                "features": {n: list(m) for n, m in sorted(self.inactive.features.items())},
                "detectors": dict(sorted(self.inactive.detectors.items())),
                "rules": {n: list(m) for n, m in sorted(self.inactive.rules.items())},
            },
            "problems": self.problems,
        }


def check_files(
    paths: Sequence[Path], settings: Settings, format: str = AUTO, rules: Path | None = None, limit: int | None = None
) -> Coverage:
    """Read ``paths`` (at most ``limit`` messages) as ``format`` and say what is in them.

    Raises BadInput for files, formats or rules that cannot be used, NothingReadable where there is no message at all.
    """
    reader = wiring.reader(settings, format)
    keys = Keyring.from_seed(1)  # nothing is kept: any key shows what is known
    pipeline = wiring.pipeline(settings, keys=keys, rules=wiring.load(settings, (rules,) if rules is not None else ()))
    options = DecodeOptions(digest_key=b"check", max_bytes=settings.decode.max_bytes * 8, entity=settings.source.entity)
    found = Coverage()
    accounts: set[str] = set()
    for values in _batches(paths, reader, settings.decode.max_bytes, limit, found):
        n = len(values)
        stamps = np.full(n, -1, np.int64)
        batch = RawBatch(values, np.zeros(n, np.int32), np.arange(n, dtype=np.int64), stamps, {0: n})
        decoded = decode(batch, options)
        found.requests += decoded.frame.height
        found.rejects.update((r.reason, r.field or "") for r in decoded.rejects)
        found.wrong_types.update(decoded.wrong_types)
        found.unknown_fields += decoded.unknown_fields
        found.fields.update(_said(decoded.frame))
        accounts.update(decoded.frame["account_id"].unique().to_list())
        events, _ = sketch_frame(decoded.frame, pipeline.sketcher, entity=options.entity)
        pipeline.observe.counts.fields |= available_fields(decoded.frame) | available_fields(events)
    if not found.messages:
        problems = "".join(f"\n{p}" for p in found.problems)
        raise NothingReadable(f"the files hold no record{problems}")
    found.accounts = len(accounts)
    found.inactive = pipeline.inactive()
    if isinstance(reader, Auto):
        found.formats = dict(reader.seen)
    else:
        found.formats = {reader.name: found.messages}
    return found


def _batches(
    paths: Sequence[Path], reader: Reader, max_bytes: int, limit: int | None, found: Coverage
) -> Iterator[list[bytes]]:
    values: list[bytes] = []
    for path in paths:
        try:
            for block in read_blocks(path, max_bytes):
                for line in block:
                    if limit is not None and found.messages >= limit:
                        break
                    message = read_message(reader, line, f"{path.name}/{found.messages}", max_bytes)
                    found.messages += 1
                    found.ignored += message.ignored
                    values += message.events
                if len(values) >= _BATCH:
                    yield values
                    values = []
        except DamagedFile as error:
            found.problems.append(str(error.problem))
    if values:
        yield values


def _said(frame: pl.DataFrame) -> dict[str, int]:
    said = {}
    for name, known in FIELDS.items():
        if name == "completed_at":
            said[name] = int((frame["t_ms"] != frame["ts_ms"]).sum())
        elif known.columns[0] in frame.columns:
            said[name] = frame.height - frame[known.columns[0]].null_count()
    return said
