"""The fire drill: scenarios laid over a provider's own log, the real detector run on it, one page of answers.

The overlay takes from the log its length, hours, models, clients, networks and gaps (a field that the log
lacks, the overlay lacks). Its accounts and requests are tagged ``drill:`` and live in files of their own
run, so they can't enter learning, alerts or verdicts of the real one. Knows no detector: it is handed in.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from monitor import fields
from monitor.errors import BadInput, NothingReadable, Problem
from monitor.simulate import Simulator, find

from .inputs import DAY, _epoch, _lines, read_alerts, read_log
from .inputs import Truth as TruthLine
from .score import Evaluation, evaluate
from .suite import Backtest, Progress

TAG = "drill:"
SCENARIOS = ("S0", "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S13", "S14", "P1")
WORTH: Mapping[str, tuple[str, ...]] = {
    "payment_fp": ("payment_fp",),
    "network": ("ip", "asn", "country"),
    "ja4": ("ja4",),
    "client": ("user_agent", "client_name", "client_version"),
    "account_created_at": ("account_created_at",),
    "text or sketch": ("system", "prompt"),
    "reasoning_blob_fp": ("reasoning_blob_fp",),
    "tools": ("tools", "tool_schema_fp"),
}
"""What a missing field would be worth: name, and the fields given back to see."""
_BORROWED = (("user_agent", "client_name", "client_version"), ("ja4",), ("asn", "country"), ("plan",), ("channel",),
             ("billing_type",), ("region",), ("model",))  # fmt: skip
_SAMPLES = 400
_PRESENT = 0.01


@dataclass(slots=True)
class Profile:
    """What the overlay takes from a log."""

    requests: int = 0
    first: float = np.inf
    last: float = -np.inf
    accounts: set[str] = field(default_factory=set)
    present: Counter[str] = field(default_factory=Counter)
    hours: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(24, np.int64))
    values: dict[tuple[str, ...], Counter[tuple[Any, ...]]] = field(default_factory=dict)

    def add(self, at: float, request: Mapping[str, Any]) -> None:
        """One request of the log, at its event time."""
        self.requests += 1
        self.first, self.last = min(self.first, at), max(self.last, at)
        self.accounts.add(str(request.get("account_id")))
        self.present.update(k for k, v in request.items() if v is not None)
        self.hours[int(at % DAY // 3600)] += 1
        for names in _BORROWED:
            seen = self.values.setdefault(names, Counter())
            value = tuple(request.get(n) for n in names)
            if value[0] is not None and (value in seen or len(seen) < _SAMPLES):
                seen[value] += 1

    def has(self, name: str) -> bool:
        """Whether the log gives the field in at least 1 % of its requests."""
        return self.present[name] >= _PRESENT * self.requests

    @property
    def days(self) -> float:
        """Length of the log."""
        return (self.last - self.first) / DAY


@dataclass(frozen=True, slots=True)
class Worth:
    """Scenarios found if the log had a field that it lacks."""

    name: str
    found: int


@dataclass(frozen=True, slots=True)
class DrillReport:
    """The page: what was found of the overlay, what the undisturbed log alone raises, what is missing."""

    scenarios: int
    found: tuple[str, ...]
    missed: tuple[str, ...]
    median_hours: float | None
    leaked_share: float
    false_high: int
    requests: int
    accounts: int
    days: float
    missing: tuple[Worth, ...]
    overlay: Evaluation

    def page(self) -> str:
        """One page of plain text."""
        hours = "-" if self.median_hours is None else f"{self.median_hours:.1f}"
        lines = [
            f"Drill over {self.requests} requests of {self.accounts} accounts, {self.days:.1f} days",
            f"found {len(self.found)} of {self.scenarios}: {', '.join(self.found) or 'none'}",
            f"missed: {', '.join(self.missed) or 'none'}",
            f"median hours to HIGH: {hours}; leaked before: {self.leaked_share:.1%} of the overlay's requests",
            f"HIGH alerts on the undisturbed log: {self.false_high}",
        ]
        for c in self.overlay.campaigns:
            when = "-" if c.hours_to_high is None else f"{c.hours_to_high:.1f} h"
            lines.append(f"  {c.scenario:4} {c.accounts} : {c.population}  {'found' if c.found else 'missed'}  {when}  "
                         f"leaked {c.leaks[0].share:.0%}  at medium {c.noticed} of {c.accounts}")  # fmt: skip
        lines += [f"with {w.name}: {w.found} of {self.scenarios}" for w in self.missing]
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**{k: getattr(self, k) for k in self.__slots__ if k not in ("overlay", "missing")},
                "missing": [{"name": w.name, "found": w.found} for w in self.missing],
                "overlay": self.overlay.as_dict()}  # fmt: skip


def event_time(request: Mapping[str, Any]) -> float:
    """Epoch seconds. Raises ValueError, TypeError, KeyError or AttributeError for what is no request."""
    return _epoch(request.get("completed_at") or request["ts"])


def _requests(logs: Sequence[Path]) -> Iterator[tuple[float, dict[str, Any]]]:
    for path in logs:
        for request in _rows(path) if path.suffix == ".parquet" else _objects(path):
            try:
                at = event_time(request)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
            yield at, request


def _objects(path: Path) -> Iterator[Any]:
    decoder = msgspec.json.Decoder()
    for _, line in _lines(path):
        with suppress(msgspec.DecodeError):
            yield decoder.decode(line)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Requests of a Parquet log without its nulls; times of a date type as epoch seconds. Raises ``BadInput``."""
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as e:
        raise BadInput([Problem(str(path), 0, f"can't be read as Parquet ({type(e).__name__})")]) from None
    frame = frame.with_columns(pl.selectors.datetime().dt.epoch("us") / 1e6)
    for row in frame.iter_rows(named=True):
        yield {name: value for name, value in row.items() if value is not None}


def study(logs: Sequence[Path]) -> Profile:
    """One pass over the log. Raises ``NothingReadable``."""
    p = Profile()
    for at, request in _requests(logs):
        p.add(at, request)
    if not p.requests:
        raise NothingReadable("no line of the log is a request of contract 1")
    return p


class Dresser:
    """Gives an overlay request the log's own clients, models, networks and gaps, keeping what is shared shared."""

    def __init__(self, profile: Profile, given: frozenset[str], key: str):
        self._p, self._key = profile, key
        self._keep = {n for n in fields.FIELDS if profile.has(n) or n in fields.REQUIRED or n in given}
        self._choice = {names: list(seen) for names, seen in profile.values.items() if seen}
        self._edges = {
            names: np.cumsum(list(seen.values())) / sum(seen.values()) for names, seen in profile.values.items() if seen
        }

    def _unit(self, *values: Any) -> float:
        digest = hashlib.blake2b(repr((self._key, *values)).encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    def dress(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request as this log would have it, its account and id tagged."""
        out = {k: v for k, v in request.items() if k in self._keep and v is not None}
        for names, options in self._choice.items():
            if out.get(names[0]) is None:
                continue
            # equal values stay equal: a build that the campaign shares is one build in the overlay too
            u = self._unit(names[0], *(request.get(n) for n in names))
            value = options[min(int(np.searchsorted(self._edges[names], u)), len(options) - 1)]
            out.update({n: v for n, v in zip(names, value, strict=True) if v is not None})
        for name in list(out):
            share = self._p.present[name] / self._p.requests
            if (
                name not in fields.REQUIRED
                and _PRESENT <= share < 0.98
                and self._unit(name, out["account_id"]) >= share
            ):
                del out[name]
        out["account_id"], out["request_id"] = TAG + out["account_id"], TAG + out["request_id"]
        return out


def _warp(hours: npt.NDArray[np.int64], sample: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Monotone map of the time of day that gives ``sample`` (seconds of the day) the log's hours."""
    share = np.concatenate([[0.0], np.cumsum(hours + 1e-3 * hours.sum() + 1)])
    own = np.histogram(sample, 24, (0, DAY))[0]
    mine = np.concatenate([[0.0], np.cumsum(own + 1e-3 * own.sum() + 1)])
    grid = np.linspace(0, DAY, 25)
    return grid, np.interp(mine / mine[-1], share / share[-1], grid)


@dataclass(frozen=True, slots=True)
class Raw:
    """Requests of a scenario at the log's hours, not yet dressed, and its accounts' truth by account."""

    requests: list[dict[str, Any]]
    members: dict[str, dict[str, Any]]


def raw(profile: Profile, scenario: str, seed: int) -> Raw:
    """Simulate a scenario beside a population as large as the log's."""
    world = Simulator(
        [scenario], max(10, len(profile.accounts)), max(profile.days, 0.05), seed, profile.first, silent=True
    )
    chunks = list(world)
    members = {t["account_id"]: t for t in world.truth()}
    steady = all(set(g.arrivals.shape) == {"flat"} or g.arrivals.kind == "sync" for g in find([scenario])[0].groups)
    requests = [r for chunk in chunks for r in chunk.frame.iter_rows(named=True) if r["account_id"] in members]
    grid, warped = _warp(profile.hours, np.array([r["ts"] % DAY for r in requests]))
    for request in requests if not steady else ():
        wait = request["completed_at"] - request["ts"]
        day, clock = divmod(request["ts"], DAY)
        request["ts"] = round(day * DAY + float(np.interp(clock, grid, warped)), 3)
        request["completed_at"] = round(request["ts"] + wait, 3)
    return Raw([r for r in requests if profile.first <= r["completed_at"] <= profile.last], members)


def overlay(
    profile: Profile, scenario: str, seed: int, given: frozenset[str] = frozenset(), made: Raw | None = None
) -> tuple[list[tuple[float, dict[str, Any]]], list[TruthLine]]:
    """Requests (with their event times) and truth of one scenario, dressed as the log. Times in epoch seconds.

    ``made`` is what :func:`raw` gave for the same profile, scenario and seed.
    """
    made = made if made is not None else raw(profile, scenario, seed)
    dresser, rows = Dresser(profile, given, f"{scenario}/{seed}"), []
    for request in made.requests:
        at = request["completed_at"] if profile.has("completed_at") else request["ts"]
        rows.append((at, dresser.dress(request)))
    rows.sort(key=lambda x: (x[0], x[1]["request_id"]))
    spans: dict[str, list[float]] = {}
    for _, request in rows:
        span = spans.setdefault(request["account_id"], [request["ts"], request["ts"]])
        span[0], span[1] = min(span[0], request["ts"]), max(span[1], request["ts"])
    truth = [
        TruthLine(TAG + a, t["actor"], scenario, t.get("campaign"), t.get("also", []), *spans[TAG + a])
        for a, t in made.members.items() if TAG + a in spans
    ]  # fmt: skip
    return rows, truth


def _prepare(job: tuple[Profile, str, int, Path]) -> None:
    """Simulate once what every run of a drill dresses anew."""
    profile, scenario, seed, path = job
    path.write_bytes(msgspec.msgpack.encode(raw(profile, scenario, seed)))


def _given(request: dict[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """The log's request with a field it lacks, of the account's own: as if it were logged and nobody shared."""
    own = hashlib.blake2b(str(request.get("account_id")).encode(), digest_size=6).hexdigest()
    a, b, c, wide = int(own[:2], 16), int(own[2:4], 16), int(own[4:6], 16), int(own, 16)
    made: dict[str, Any] = {
        "payment_fp": f"pm_{own}", "ip": f"10.{a}.{b}.{c}", "asn": 64_512 + a, "country": "ZZ",
        "ja4": f"t13d_{wide % 40}", "user_agent": f"client/{wide % 60}",
    }  # fmt: skip
    return {**{k: v for k, v in made.items() if k in given}, **{k: v for k, v in request.items() if v is not None}}


def drill(
    logs: Sequence[str | Path],
    backtest: Backtest,
    folder: str | Path,
    *,
    context: Path | None = None,
    scenarios: Sequence[str] = SCENARIOS,
    seed: int = 1,
    worth: bool = True,
    processes: int = 1,
    progress: Progress | None = None,
) -> DrillReport:
    """Run the drill under ``folder``. ``worth`` runs once more for each field that the log lacks.

    The log is read as it is; its own alerts are those of the undisturbed run. Runs are spread over ``processes``
    local ones, for which ``backtest`` must be picklable. Raises ``BadInput``, ``NothingReadable``.
    """
    find(list(scenarios))
    paths, folder = [Path(p) for p in logs], Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    profile = study(paths)
    own_context = context if context is not None else folder / "no-context.ndjson"
    if context is None:
        own_context.write_text("")
    alone = folder / "undisturbed.ndjson"
    _write(
        alone, heapq.merge(*([(at, i, r) for at, r in _requests([p])] for i, p in enumerate(paths)), key=lambda x: x[0])
    )
    lacking = [n for n, group in WORTH.items() if worth and not any(profile.has(f) for f in group)]
    runs = [
        _Run(name, profile, alone, own_context, backtest, folder, tuple(scenarios), seed)
        for name in (_ALONE, _OVERLAY, *lacking)
    ]
    made = [(profile, scenario, seed, _raw_path(folder, i)) for i, scenario in enumerate(scenarios)]
    done: dict[str, Evaluation] = {}
    if processes > 1:
        with ProcessPoolExecutor(min(processes, len(runs)), mp_context=get_context("spawn")) as pool:
            list(pool.map(_prepare, made))
            for run, evaluation in zip(runs, pool.map(_execute, runs), strict=True):
                _tell(progress, done, run, evaluation, len(runs))
    else:
        for job in made:
            _prepare(job)
        for run in runs:
            _tell(progress, done, run, _execute(run), len(runs))
    quiet, result = done[_ALONE], done[_OVERLAY]
    missing = [Worth(name, done[name].found) for name in lacking]
    hours = [c.hours_to_high for c in result.campaigns if c.hours_to_high is not None]
    total = sum(c.requests for c in result.campaigns)
    leaked = sum(c.leaks[0].requests for c in result.campaigns)
    return DrillReport(
        len(scenarios), tuple(c.scenario for c in result.campaigns if c.found),
        tuple(s for s in scenarios if s not in {c.scenario for c in result.campaigns if c.found}),
        median(hours) if hours else None, leaked / total if total else 0.0,
        len(quiet.false_alerts),
        profile.requests, len(profile.accounts), profile.days, tuple(missing), result,
    )  # fmt: skip


_ALONE, _OVERLAY = "undisturbed", "overlay"


def _raw_path(folder: Path, number: int) -> Path:
    return folder / f"scenario-{number}.msgpack"


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of the detector: the log alone, under the overlay, or under it with a field that the log lacks."""

    name: str
    profile: Profile
    alone: Path
    context: Path
    backtest: Backtest
    folder: Path
    scenarios: tuple[str, ...]
    seed: int


def _execute(run: _Run) -> Evaluation:
    if run.name == _ALONE:
        alerts = run.folder / "undisturbed.alerts.ndjson"
        run.backtest(run.alone, run.context, alerts)
        return evaluate(read_alerts(alerts), [], read_log([run.alone]))
    given = frozenset(WORTH.get(run.name, ()))
    folder = run.folder / (run.name if run.name == _OVERLAY else f"with-{run.name.replace(' ', '-')}")
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[list[tuple[float, int, dict[str, Any]]]] = []
    truth: list[TruthLine] = []
    for number, scenario in enumerate(run.scenarios, 1):
        kept = msgspec.msgpack.decode(_raw_path(run.folder, number - 1).read_bytes(), type=Raw)
        dressed, lines = overlay(run.profile, scenario, run.seed, given, kept)
        rows.append([(at, number, r) for at, r in dressed])
        truth += lines
    base = ((at, 0, _given(r, given)) for at, r in _requests([run.alone]))
    log, alerts = folder / "log.ndjson", folder / "alerts.ndjson"
    _write(log, heapq.merge(base, *rows, key=lambda x: (x[0], x[1])))
    (folder / "truth.ndjson").write_bytes(b"".join(msgspec.json.encode(t) + b"\n" for t in truth))
    run.backtest(log, run.context, alerts)
    return evaluate(read_alerts(alerts), truth, read_log([log]))


def _tell(
    progress: Progress | None, done: dict[str, Evaluation], run: _Run, evaluation: Evaluation, total: int
) -> None:
    done[run.name] = evaluation
    if progress is not None:
        progress(len(done), total, run.name)


def _write(path: Path, rows: Iterator[tuple[float, int, dict[str, Any]]]) -> None:
    with path.open("wb") as file:
        for _, _, request in rows:
            file.write(json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
