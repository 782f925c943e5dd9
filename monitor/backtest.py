"""The whole pipeline over files, in event time, without a server: exactly what ``run`` runs.

The same input and seed give the same output, byte for byte; files may be given in any order.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.ahead import Ahead
from monitor.alerts import Sink
from monitor.beside import Beside
from monitor.decode import NATIVE, Reader, read_message
from monitor.errors import NothingReadable
from monitor.observe import Inactive
from monitor.pipeline import Pipeline
from monitor.records import Alert
from monitor.source.files import FileSource, Translate

MAX_RECORDS = 20_000


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backtest says of itself: contract 3."""

    values: dict[str, Any]

    @property
    def events(self) -> int:
        """Records read."""
        return int(self.values["events"])


def backtest(
    pipeline: Pipeline,
    logs: Sequence[Path],
    sink: Sink,
    *,
    warmup: Sequence[Path] = (),
    partitions: int,
    max_bytes: int,
    reader: Reader | None = None,
    progress: Callable[[int, int], None] = lambda events, alerts: None,
) -> Summary:
    """Run ``logs`` (and first ``warmup``, whose alerts are not written) through ``pipeline`` into ``sink``.

    ``reader`` reads another format than contract 1.
    Raises NothingReadable where no record of the logs is a request, BadInput for paths that cannot be read.
    """
    began = time.perf_counter()
    source = FileSource([*warmup, *logs], partitions, max_bytes=max_bytes, translate=translator(reader, max_bytes))
    if warmup:
        starts = [start for path in logs if (start := source.starts[Path(path)]) is not None]
        if starts:
            for partition in range(partitions):
                pipeline.alerts.mute(partition, int(min(starts) * 1000))
            pipeline.campaigns.alerts.mute(int(min(starts) * 1000))
    tally: Counter[str] = Counter()
    hypotheses: Counter[str] = Counter()
    revisions = 0

    def write(alerts: Sequence[Alert]) -> None:
        nonlocal revisions
        for alert in alerts:
            revisions += 1
            if alert.revision == 1:
                tally[alert.severity] += 1
                hypotheses[alert.hypothesis] += 1
        sink.send(alerts)

    counts = pipeline.observe.counts
    with Ahead() as ahead, Beside() as beside:
        while not source.finished or ahead.busy:
            batch = source.poll(MAX_RECORDS, 0.0)
            prepared = ahead.swap(pipeline, batch) if len(batch) else ahead.result()
            if prepared is not None:
                write(pipeline.take(prepared).alerts)
                write(pipeline.campaigns_raised(beside.result()))
                pipeline.publish_campaigns()
                beside.begin(pipeline.campaign_pass())
                progress(counts.events, sum(tally.values()))
        write(pipeline.finish().alerts)
        write(pipeline.campaigns_raised(beside.result()))
    write(pipeline.work_campaigns())
    sink.flush()
    if not counts.decoded:
        raise NothingReadable(_why(source, counts.events, counts.rejects))
    seconds = time.perf_counter() - began
    return Summary(
        {
            "messages": sum(source.messages.values()),
            "ignored": sum(source.ignored.values()),
            "events": counts.events,
            "decoded": counts.decoded,
            "duplicates": counts.duplicates,
            "late": counts.late,
            "dropped": counts.dropped,
            "id_reuse": counts.id_reuse,
            "accounts": len(pipeline.features.accounts),
            "rows": counts.rows,
            "rows_scored": dict(sorted(counts.rows_scored.items())),
            "rejects": dict(sorted(counts.rejects.items())),
            "wrong_types": dict(sorted(counts.wrong_types.items())),
            "alerts": {
                "total": sum(tally.values()),
                "revisions": revisions,
                "severity": dict(sorted(tally.items())),
                "hypothesis": dict(sorted(hypotheses.items())),
            },
            "seconds": round(seconds, 3),
            "events_per_second": round(counts.events / seconds) if seconds else 0,
            "peak_rss_mb": round(peak_rss_mb(), 1),
            "inactive": _plain(pipeline.inactive()),
            "problems": [str(p) for p in source.problems],
            "versions": dict(sorted(pipeline.versions.items())),
        }
    )


def translator(reader: Reader | None, max_bytes: int) -> Translate | None:
    """What a source of files reads its lines with; None: they are records of contract 1."""
    if reader is None or reader.name == NATIVE:
        return None
    chosen = reader
    return lambda line, made_id: read_message(chosen, line, made_id, max_bytes)


def _plain(inactive: Inactive) -> dict[str, Any]:
    return {
        "features": {name: list(missing) for name, missing in sorted(inactive.features.items())},
        "detectors": dict(sorted(inactive.detectors.items())),
        "rules": {name: list(missing) for name, missing in sorted(inactive.rules.items())},
    }


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in 10^6 bytes."""
    try:
        # ru_maxrss counts the parent's memory at the time of the fork, VmHWM starts with the program.
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _why(source: FileSource, events: int, rejects: dict[str, int]) -> str:
    if not events:
        return "the files hold no record" + "".join(f"\n{p}" for p in source.problems)
    worst = ", ".join(f"{reason} {count}" for reason, count in sorted(rejects.items(), key=lambda r: -r[1])[:5])
    return f"none of {events} records is a request by the contract ({worst}): see `monitor fields`"
