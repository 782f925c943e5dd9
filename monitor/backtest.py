"""The whole pipeline over files, in event time, without a server: exactly what ``run`` runs.

The same input and seed give the same output, byte for byte; files may be given in any order.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor import memory
from monitor.ahead import Ahead
from monitor.alerts import Sink
from monitor.beside import Beside
from monitor.decode import NATIVE, Reader, read_message
from monitor.errors import NothingReadable, Problem
from monitor.observe import Counts, Inactive
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


class Tally:
    """Alerts by what their newest revision says, as `monitor alerts list` has them: one that opens low may end high."""

    def __init__(self) -> None:
        self.revisions = 0
        self._newest: dict[str, tuple[int, str, str]] = {}

    def __len__(self) -> int:
        return len(self._newest)

    @property
    def severity(self) -> Counter[str]:
        """How many of each severity."""
        return Counter(severity for _, severity, _ in self._newest.values())

    @property
    def hypothesis(self) -> Counter[str]:
        """How many of each best hypothesis."""
        return Counter(hypothesis for _, _, hypothesis in self._newest.values())

    def add(self, alerts: Sequence[Alert]) -> None:
        """Count these, in any order."""
        for alert in alerts:
            self.revisions += 1
            said = alert.revision, alert.severity, alert.hypothesis
            self._newest[alert.alert_id] = max(said, self._newest.get(alert.alert_id, said))


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
    mute_before(pipeline, source, logs, warmup)
    tally = Tally()

    def write(alerts: Sequence[Alert]) -> None:
        tally.add(alerts)
        sink.send(alerts)

    counts = pipeline.observe.counts
    for raised in through(pipeline, source):
        write(raised)
        progress(counts.events, len(tally))
    sink.flush()
    return summary(
        pipeline, counts, tally, began, accounts=len(pipeline.features.accounts), peaks_mb=[peak_rss_mb()],
        messages=sum(source.messages.values()), ignored=sum(source.ignored.values()), problems=source.problems,
    )  # fmt: skip


def mute_before(pipeline: Pipeline, source: FileSource, logs: Sequence[Path], warmup: Sequence[Path]) -> None:
    """What the warm-up raises is not written: nothing is before the first event of ``logs``."""
    starts = [start for path in logs if (start := source.starts[Path(path)]) is not None] if warmup else []
    if starts:
        for partition in source.assigned:
            pipeline.alerts.mute(partition, int(min(starts) * 1000))
        pipeline.campaigns.alerts.mute(int(min(starts) * 1000))


def through(pipeline: Pipeline, source: FileSource, *, leads: bool = True) -> Iterator[list[Alert]]:
    """All of ``source`` through the steps, in order: what each batch raised. Campaign steps are worked beside the batch
    that follows, or, where this does not lead, only published."""
    memory.set_aside()
    with Ahead() as ahead, Beside() as beside:
        while not source.finished or ahead.busy:
            batch = source.poll(MAX_RECORDS, 0.0)
            prepared = ahead.swap(pipeline, batch) if len(batch) else ahead.result()
            if prepared is not None:
                raised = pipeline.take(prepared).alerts + pipeline.campaigns_raised(beside.result())
                pipeline.publish_campaigns()
                if leads:
                    beside.begin(pipeline.campaign_pass())
                yield raised
        raised = pipeline.finish().alerts + pipeline.campaigns_raised(beside.result())
        pipeline.publish_campaigns()
        yield raised + pipeline.work_campaigns() if leads else raised


def summary(
    pipeline: Pipeline,
    counts: Counts,
    tally: Tally,
    began: float,
    *,
    accounts: int,
    peaks_mb: Sequence[float],
    messages: int,
    ignored: int,
    problems: Sequence[Problem],
    scores: Mapping[str, str] | None = None,
) -> Summary:
    """What a run says of itself; ``began`` is of ``time.perf_counter``, ``peaks_mb`` of each process that took part,
    ``scores`` see :meth:`Pipeline.inactive`.

    Raises NothingReadable where nothing was decoded.
    """
    if not counts.decoded:
        raise NothingReadable(_why(problems, counts.events, counts.rejects))
    seconds = time.perf_counter() - began
    return Summary(
        {
            "messages": messages,
            "ignored": ignored,
            "events": counts.events,
            "decoded": counts.decoded,
            "duplicates": counts.duplicates,
            "late": counts.late,
            "dropped": counts.dropped,
            "id_reuse": counts.id_reuse,
            "accounts": accounts,
            "rows": counts.rows,
            "rows_scored": dict(sorted(counts.rows_scored.items())),
            "rejects": dict(sorted(counts.rejects.items())),
            "wrong_types": dict(sorted(counts.wrong_types.items())),
            "alerts": {
                "total": len(tally),
                "revisions": tally.revisions,
                "severity": dict(sorted(tally.severity.items())),
                "hypothesis": dict(sorted(tally.hypothesis.items())),
            },
            "seconds": round(seconds, 3),
            "events_per_second": round(counts.events / seconds) if seconds else 0,
            "peak_rss_mb": round(max(peaks_mb), 1),
            "peak_rss_mb_all": round(sum(peaks_mb), 1),
            "inactive": _plain(pipeline.inactive(scores)),
            "problems": [str(p) for p in problems],
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


def _why(problems: Sequence[Problem], events: int, rejects: Mapping[str, int]) -> str:
    if not events:
        return "the files hold no record" + "".join(f"\n{p}" for p in problems)
    worst = ", ".join(f"{reason} {count}" for reason, count in sorted(rejects.items(), key=lambda r: -r[1])[:5])
    return f"none of {events} records is a request by the contract ({worst}): see `monitor fields`"
