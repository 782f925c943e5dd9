"""Text by grammar: pools of written parts, and prompts as rows of part numbers.

A prompt is nine parts side by side, chosen by arithmetic on whole columns and joined once by Polars, so
that no Python runs per request. The grammars are in ``grammar/``; all of it was written for this project.
Knows nothing of accounts or time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import polars as pl
import yaml

from .draws import F64, I64, Bools, mix, stream
from .replay import Prompts
from .scenario import LANGUAGES, TASKS

SLOTS = 9
_ORDER = (0, 8, 1, 2, 3, 4, 5, 6, 7)
"""Opener, preamble, prefix, four of content, question, suffix."""
PREAMBLES, PREAMBLE_WORDINGS = 16_000, 3
"""Each template family has a preamble of its own (project, owner, file): two unrelated customers may well use the
same instruction, but not the same template."""
SENTENCES = 260
"""Sentences of one kind in one language and domain: four of them in a row give 4e9 distinct prompts."""
ASIDES = 30_000
"""Short sentences with invented people and places: without them unrelated customers share whole sentences far
more often than people do, and every template link would drown in chance."""
_SYLLABLES = ("ka", "mi", "lo", "ren", "da", "vel", "sho", "tar", "ni", "bre", "ul", "mar", "ed", "sa", "quin", "or",
              "fe", "ty", "ba", "gri", "hol", "an", "wes", "pi")  # fmt: skip
PARAGRAPHS = 160
FAMILY_WORDINGS = 6
_KINDS = ("statement", "question", "request", "followup", "opener", "paragraph", "casual")
TEMPLATED = frozenset({"classify", "extract", "summarise", "translate", "benchmark", "tutor", "reasoning_qa", "trace",
                        "rubric", "safe_rewrite", "dataset_gen", "agentic_swe", "data_analysis", "coding"})  # fmt: skip
"""Tasks whose prompts are written to a template; the rest is free speech."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What each of n requests is to say; every field is a column of length n (``family`` -1: no template)."""

    task: I64
    language: I64
    domain: I64
    family: I64
    turn: I64
    paraphrase: Bools
    human: Bools
    casual: Bools


def _dice(rng: np.random.Generator) -> Iterator[int]:
    """Endless integers, drawn in blocks: one draw at a time would make building the pools five times slower."""
    while True:
        yield from rng.integers(0, 1 << 31, 65_536).tolist()


def _read(name: str) -> dict[str, Any]:
    folder = resources.files("monitor.simulate") / "grammar"
    return dict(yaml.safe_load((folder / name).read_text(encoding="utf-8")))


class Grammar:
    """Pools of sentences by language, domain and kind, and template families made on demand by number."""

    def __init__(self, seed: int, families: int, systems: int, prompts: Prompts | None = None):
        self._dice = _dice(stream(seed, "grammar"))
        self._parts: list[str] = [""]
        self._tasks = _read("tasks.yaml")
        languages = [_read(f"{code}.yaml") for code in LANGUAGES]
        self.domains = max(len(g["domains"]) for g in languages)
        shape = (len(LANGUAGES), self.domains, len(_KINDS))
        self._start, self._count = np.zeros(shape, np.int64), np.ones(shape, np.int64)
        for i, grammar in enumerate(languages):
            own = [self._domain(grammar, d) for d in grammar["domains"].values()]
            for d in range(self.domains):
                for k in range(len(_KINDS)):
                    self._start[i, d, k], self._count[i, d, k] = own[d % len(own)][k]
        self._traces = [self._add(g.get("trace", [])) if g.get("trace") else None for g in languages]
        self._aside_start, _ = self._add(self._asides())
        self._preamble_start, _ = self._add(self._preambles())
        self._family_parts(seed, families)
        self._system_start, self.systems = self._add(self._system(stream(seed, "system", i)) for i in range(systems))
        table = [self._tasks["tasks"].get(t, {}).get("content", [1, 3]) for t in TASKS]
        self._low, self._high = np.array([c[0] for c in table]), np.array([c[1] for c in table])
        self._long = np.array([bool(self._tasks["tasks"].get(t, {}).get("long")) for t in TASKS])
        self.templated = np.array([t in TEMPLATED for t in TASKS])
        self._replayed = prompts
        if prompts is not None:
            self._replay_start, _ = self._add(prompts.prompt)
            given = sorted({s for s in prompts.system if s})
            first, _ = self._add(given)
            place = {s: first + i for i, s in enumerate(given)}
            self._replay_system = np.array([place.get(s or "", -1) for s in prompts.system], np.int64)
        self._pool = pl.Series("part", self._parts, dtype=pl.String)
        # the wire's form of each part, made once: escaping every prompt anew would cost more than joining it
        self._wire = pl.Series("part", [json.dumps(p, ensure_ascii=False)[1:-1] for p in self._parts], dtype=pl.String)
        self.chars = self._pool.str.len_chars().to_numpy().astype(np.int64)

    def _add(self, texts: Any) -> tuple[int, int]:
        start = len(self._parts)
        self._parts.extend(texts)
        return start, len(self._parts) - start

    def _name(self) -> str:
        dice = self._dice
        return "".join(_SYLLABLES[next(dice) % len(_SYLLABLES)] for _ in range(2 + next(dice) % 2)).capitalize()

    def _person(self) -> str:
        return f"{self._name()} {self._name()}"

    def _asides(self) -> list[str]:
        frames = ("{} of {} asked for it. ", "It is for {} in {}. ", "{} ({}) has the file. ", "See also {}, {}. ",
                  "Ask {} at {}. ", "{} from {} disagrees. ")  # fmt: skip
        people = [self._person() for _ in range(1500)]
        places = [self._name() for _ in range(600)]
        dice = self._dice
        return [
            frames[next(dice) % 6].format(people[next(dice) % 1500], places[next(dice) % 600]) for _ in range(ASIDES)
        ]

    def _preambles(self) -> list[str]:
        dice, out = self._dice, []
        for _ in range(PREAMBLES):
            owner, place, project, number = self._person(), self._name(), self._name(), next(dice) % 900
            out += [f"{project} {place} desk, owner {owner}, sheet {number}.\n",
                    f"Sheet {number} of project {project}, {place}; {owner} owns it.\n",
                    f"[{project}/{place}] {owner}, item list {number}\n"]  # fmt: skip
        return out

    def _sentence(self, grammar: dict[str, Any], domain: dict[str, Any], kind: str) -> str:
        dice = self._dice

        def pick(items: list[str]) -> str:
            return items[next(dice) % len(items)]

        noun, fact = pick(domain["nouns"]), pick(domain["facts"])
        who = self._person() if next(dice) % 10 < 6 else pick(grammar["slots"]["who"])
        nouns = domain["nouns"]
        other = nouns[(nouns.index(noun) + 1 + next(dice) % (len(nouns) - 1)) % len(nouns)]
        words = {
            "noun": noun, "noun2": other, "act": pick(domain["acts"]),
            "fact": fact, "fact_cap": fact[:1].upper() + fact[1:], "who": who, "time": pick(grammar["slots"]["time"]),
            "num": 2 + next(dice) % 88, "num2": 90 + next(dice) % 810,
        }  # fmt: skip
        text = pick(grammar[kind]).format(**words)
        return text[:1].upper() + text[1:]

    def _domain(self, grammar: dict[str, Any], domain: dict[str, Any]) -> list[tuple[int, int]]:
        gap = "" if grammar["language"] in ("zh", "ja") else " "

        def many(kind: str, count: int = SENTENCES) -> list[str]:
            return [self._sentence(grammar, domain, kind) + gap for _ in range(count)]

        casual = [q.lower().replace("?", "") for q in many("questions", 80)] + [r.lower() for r in many("requests", 80)]
        paragraphs = ["".join(many("statements", 7)) + "\n" for _ in range(PARAGRAPHS)]
        return [
            self._add(many("statements")), self._add(many("questions")), self._add(many("requests")),
            self._add(grammar["followups"]), self._add(grammar["openers"]), self._add(paragraphs), self._add(casual),
        ]  # fmt: skip

    def _family_parts(self, seed: int, families: int) -> None:
        """``families`` template families of each task: prefix and suffix wordings, contiguous by family."""
        self.families = families
        self._prefix, self._suffix = np.zeros(len(TASKS), np.int64), np.zeros(len(TASKS), np.int64)
        for t, task in enumerate(TASKS):
            words = self._tasks["tasks"].get(task)
            if words is None:
                continue
            dice, prefixes, suffixes = _dice(stream(seed, "family", task)), [], []
            for _ in range(families * FAMILY_WORDINGS):
                lead, demand, form = (words[k][next(dice) % len(words[k])] for k in ("leads", "demands", "forms"))
                if "{target}" in lead:
                    lead = lead.format(target=words["targets"][next(dice) % len(words["targets"])])
                extra = self._tasks["rules"][next(dice) % len(self._tasks["rules"])]
                prefixes.append(f"{lead} {demand} {extra}\n")
                suffixes.append(f"\n{form}")
            self._prefix[t], _ = self._add(prefixes)
            self._suffix[t], _ = self._add(suffixes)

    def _system(self, rng: np.random.Generator) -> str:
        t = self._tasks
        picks = [t["rules"][int(i)] for i in rng.permutation(len(t["rules"]))[: int(rng.integers(2, 5))]]
        role, firm = t["roles"][int(rng.integers(len(t["roles"])))], t["firms"][int(rng.integers(len(t["firms"])))]
        return " ".join([f"You are {role} at {firm}.", *picks, t["tones"][int(rng.integers(len(t["tones"])))]])

    def _from(self, rng: np.random.Generator, ask: Ask, kind: str, rows: I64) -> I64:
        at = (ask.language[rows], ask.domain[rows] % self.domains, _KINDS.index(kind))
        return np.asarray(self._start[at] + (rng.random(len(rows)) * self._count[at]).astype(np.int64))

    def compose(self, rng: np.random.Generator, ask: Ask) -> I64:
        """Part numbers of n prompts, shape (n, 9); ``render`` joins them in the order of ``_ORDER``."""
        n = len(ask.task)
        parts = np.zeros((n, SLOTS), np.int64)
        everyone = np.arange(n)
        low, high = self._low[ask.task], self._high[ask.task]
        want = low + (rng.random(n) * (high - low + 1)).astype(np.int64)
        long = self._long[ask.task]
        for k in range(4):
            rows = np.flatnonzero((want > k) & ~long)
            parts[rows, 2 + k] = self._from(rng, ask, "statement", rows)
            rows = np.flatnonzero((want > k) & long)
            parts[rows, 2 + k] = self._from(rng, ask, "paragraph", rows)
        rows = np.flatnonzero((want < 4) & (rng.random(n) < 0.75))
        parts[rows, 5] = self._aside_start + rng.integers(ASIDES, size=len(rows))
        templated = self.templated[ask.task] & (ask.family >= 0)
        free = np.flatnonzero(~templated)
        shuffled = rng.random(n)
        self._free_speech(rng, ask, parts, free, shuffled)
        rows = np.flatnonzero(templated)
        wording = np.where(ask.paraphrase, (rng.random(n) * FAMILY_WORDINGS).astype(np.int64), 0)
        form = np.where(ask.paraphrase, (rng.random(n) * FAMILY_WORDINGS).astype(np.int64), 0)
        base = (ask.family % self.families) * FAMILY_WORDINGS
        parts[rows, 1] = (self._prefix[ask.task] + base + wording)[rows]
        parts[rows, 7] = (self._suffix[ask.task] + base + form)[rows]
        preamble = (mix(ask.family, 5) % np.uint64(PREAMBLES)).astype(np.int64) * PREAMBLE_WORDINGS
        parts[rows, 8] = (self._preamble_start + preamble + wording % PREAMBLE_WORDINGS)[rows]
        self._foreign_traces(rng, ask, parts, rows)
        dressed = np.flatnonzero(ask.human)
        parts[dressed, 0] = self._from(rng, ask, "opener", dressed)
        asking = dressed[rng.random(len(dressed)) < 0.6]
        parts[asking, 6] = self._from(rng, ask, "question", asking)
        following = np.flatnonzero((ask.turn > 0) & ~templated & (shuffled[everyone] < 0.7))
        parts[following, 1:] = 0
        parts[following, 1] = self._from(rng, ask, "followup", following)
        named = following[rng.random(len(following)) < 0.8]
        parts[named, 5] = self._aside_start + rng.integers(ASIDES, size=len(named))
        more = following[rng.random(len(following)) < 0.4]
        parts[more, 2] = self._from(rng, ask, "statement", more)
        return parts

    def replay(self, session: F64, turn: I64, bank: I64) -> tuple[I64, I64] | None:
        """Part numbers (n, 9) and system prompts (n,) from the given prompts; None where there are none."""
        if self._replayed is None:
            return None
        row = self._replayed.row(session, turn, bank)
        parts = np.zeros((len(row), SLOTS), np.int64)
        parts[:, 1] = self._replay_start + row
        return parts, self._replay_system[row]

    def _free_speech(self, rng: np.random.Generator, ask: Ask, parts: I64, rows: I64, shuffled: F64) -> None:
        casual = rows[ask.casual[rows]]
        proper = rows[~ask.casual[rows]]
        parts[casual, 6] = self._from(rng, ask, "casual", casual)
        parts[casual, 3] = np.where(shuffled[casual] < 0.5, 0, parts[casual, 3])
        questions, requests = proper[shuffled[proper] < 0.6], proper[shuffled[proper] >= 0.6]
        parts[questions, 6] = self._from(rng, ask, "question", questions)
        parts[requests, 1] = self._from(rng, ask, "request", requests)
        opened = rows[shuffled[rows] * 7 % 1 < 0.25]
        parts[opened, 0] = self._from(rng, ask, "opener", opened)

    def _foreign_traces(self, rng: np.random.Generator, ask: Ask, parts: I64, rows: I64) -> None:
        """Trace elicitation in other languages: the demand itself is in that language."""
        trace = rows[(ask.task[rows] == TASKS.index("trace")) & (ask.language[rows] > 0)]
        for code, pool in enumerate(self._traces):
            mine = trace[ask.language[trace] == code]
            if pool is not None and len(mine):
                choice = (ask.family[mine] + (rng.random(len(mine)) < 0.15) * 1) % pool[1]
                parts[mine, 1], parts[mine, 7] = pool[0] + choice, 0

    def system_of(self, number: I64) -> I64:
        """Part number of the ``number``-th system prompt (modulo how many there are); -1 gives none."""
        return np.where(number >= 0, self._system_start + number % self.systems, -1)

    def render(self, parts: I64, escaped: bool = False) -> pl.Series:
        """Prompts of part numbers (n, 9); ``escaped``: as they stand between the quotes of JSON."""
        pool = self._wire if escaped else self._pool
        columns = [pool.gather(parts[:, k]).alias(str(k)) for k in _ORDER]
        return pl.DataFrame(columns).select(pl.concat_str(pl.all())).to_series()

    def lookup(self, part: I64, escaped: bool = False) -> pl.Series:
        """Single parts as text (``escaped`` as in :meth:`render`); null where the number is negative."""
        pool = self._wire if escaped else self._pool
        return pool.gather(pl.Series(part).replace(-1, None).cast(pl.UInt32))
