"""What a scenario file may say, and its loading: every problem at once, with file and line.

A scenario is data: who takes part, how often they call, what they send and what they share. Figures are
those of the full-size campaign beside a provider of :data:`POPULATION` accounts; the world scales counts
and link pools down together and leaves the rate of an account as it is. Knows nothing of how traffic is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from monitor import yamlfile
from monitor.errors import BadInput, Problem

POPULATION = 1_000_000
"""Accounts of the provider for which a scenario's ``accounts`` and pools are stated."""

_DAY = 86_400.0

TASKS = (
    "chat", "question", "coding", "agentic_swe", "data_analysis", "classify", "extract", "summarise", "translate",
    "benchmark", "tutor", "reasoning_qa", "trace", "rubric", "safe_rewrite", "dataset_gen", "embedding",
)  # fmt: skip
LANGUAGES = ("en", "es", "fr", "de", "pt", "it", "zh", "ja", "ko", "ru", "ar", "hi")
Task = Literal[
    "chat", "question", "coding", "agentic_swe", "data_analysis", "classify", "extract", "summarise", "translate",
    "benchmark", "tutor", "reasoning_qa", "trace", "rubric", "safe_rewrite", "dataset_gen", "embedding",
]  # fmt: skip
Language = Literal["en", "es", "fr", "de", "pt", "it", "zh", "ja", "ko", "ru", "ar", "hi"]
Actor = Literal["distillation", "resale", "account_farm", "stolen_key", "evaluation", "automation", "unknown", "benign"]
Shape = Literal["flat", "office", "evening", "day", "hourly", "nightly", "duty"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rate(_Part):
    """Requests an account makes a day: ``mean`` with ``cv`` (gamma), ``median`` with ``sigma`` (log-normal), or
    ``quantiles`` (probability to value), or the group's ``traffic_share`` of all requests. ``cap`` bounds it.
    ``growth`` is per day: 0.05 is 5 % more each day.
    """

    mean: Positive | None = None
    cv: Annotated[float, Field(ge=0.0)] = 0.9
    median: Positive | None = None
    sigma: Annotated[float, Field(ge=0.0)] = 1.0
    quantiles: dict[float, Positive] | None = None
    traffic_share: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    cap: Positive | None = None
    growth: float = 0.0

    @model_validator(mode="after")
    def _one_of(self) -> Rate:
        if sum(x is not None for x in (self.mean, self.median, self.quantiles, self.traffic_share)) != 1:
            raise ValueError("give one of mean, median, quantiles or traffic_share")
        return self


class Arrivals(_Part):
    """When requests come. ``renewal``: sessions whose gaps are gamma with ``cv`` (a number, or quantiles over
    accounts) in operational time, each of ``turns`` requests on average, ``think_s`` apart (median). ``sync``:
    the group fires together ``bursts_per_day`` times, each account within ``jitter_s`` of the burst.
    ``shape`` is the week's outline (weights); ``duty`` the share of the day of shape ``duty``; ``offsets``
    hours from UTC, drawn per account (absent: the world's).
    """

    kind: Literal["renewal", "sync"] = "renewal"
    cv: Positive | dict[float, Positive] = 1.2
    turns: Annotated[float, Field(ge=1.0)] = 1.0
    think_s: Positive = 45.0
    shape: dict[Shape, Positive] = {"day": 1.0}
    duty: dict[float, Share] | None = None
    offsets: list[Annotated[float, Field(ge=-12, le=14)]] | None = None
    active_days: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    day_sigma: Annotated[float, Field(ge=0.0)] = 0.3
    bursts_per_day: Positive = 48.0
    jitter_s: Annotated[float, Field(ge=0.0)] = 0.0


class LogNormal(_Part):
    """A log-normal count of tokens."""

    median: Positive
    sigma: Annotated[float, Field(ge=0.0)] = 0.8


class Tokens(_Part):
    """Tokens of a request: ``input`` is the context before the text's own, ``reasoning`` a share of the output."""

    input: LogNormal = LogNormal(median=450, sigma=1.1)
    output: LogNormal = LogNormal(median=180, sigma=1.0)
    reasoning: Share = 0.0
    cached: Share = 0.0


class Text(_Part):
    """What is sent. ``tasks`` and ``languages`` are weights. ``families`` is the number of template families
    at full size (absent: each account has its own), ``per_account`` how many of them an account uses.
    ``paraphrase`` is the share of requests with another wording, ``human`` the share dressed with pronouns,
    questions and politeness, ``systems`` the number of distinct system prompts (absent: own; 0: none).
    ``shared_system`` takes the one that many unrelated accounts use. ``swap_pairs`` sends pairs with the two
    answers exchanged. ``grid`` sweeps topics and languages in order.
    """

    tasks: dict[Task, Positive]
    languages: dict[Language, Positive] = {"en": 1.0}
    families: Annotated[int, Field(ge=1)] | None = None
    per_account: Annotated[int, Field(ge=1)] = 1
    paraphrase: Share = 0.1
    human: Share = 0.0
    systems: Annotated[int, Field(ge=0)] | None = None
    shared_system: str | None = None
    swap_pairs: bool = False
    grid: bool = False


class Parameters(_Part):
    """Shares of requests that set a parameter so; ``n`` is the value where ``n_share`` sets it."""

    temperature: dict[float, Positive] | None = None
    logprobs: Share = 0.0
    n: Annotated[int, Field(ge=1)] = 1
    n_share: Share = 0.0
    max_tokens_at_cap: Share = 0.05
    seed: Share = 0.02
    json_output: Share = 0.05
    stream: Share = 0.5
    batch: Share = 0.0
    effort_high: Share = 0.05
    tools: Share = 0.05
    logit_bias: Share = 0.002
    refusals: Share = 0.01
    errors: Share = 0.01
    models: dict[str, Positive] | None = None


class Links(_Part):
    """What accounts share. A pool is its number of values at full size (absent: each account has its own);
    the share ``*_reuse`` of accounts draws from it, the rest has its own. ``prefixes`` are egress /24s.
    ``residential`` draws them from those that ordinary customers use. ``copy_from`` takes the links that a
    client can choose from accounts of another group, or of the ``background``, instead.
    ``no_network_channel`` is a channel whose log has no network and no payment; ``reseller`` is the reseller
    of record that the provider knows.
    """

    payments: Annotated[int, Field(ge=1)] | None = None
    payment_reuse: Share = 1.0
    prefixes: Annotated[int, Field(ge=1)] | None = None
    prefix_reuse: Share = 1.0
    residential: bool = False
    asns: Annotated[int, Field(ge=1)] | None = None
    builds: Annotated[int, Field(ge=1)] | None = None
    ja4: Annotated[int, Field(ge=1)] | None = None
    cohorts: Annotated[int, Field(ge=1)] | None = None
    cohort_hours: Positive = 2.0
    created_days_before: tuple[float, float] = (1.0, 700.0)
    orgs: Annotated[int, Field(ge=1)] | None = None
    keys: Annotated[int, Field(ge=1)] = 1
    tool_schemas: Annotated[int, Field(ge=1)] | None = None
    referrals: Annotated[int, Field(ge=1)] | None = None
    contact_domains: Annotated[int, Field(ge=1)] | None = None
    end_users: Annotated[int, Field(ge=0)] = 0
    channels: dict[str, Positive] = {"api": 1.0}
    no_network_channel: str | None = None
    plans: dict[str, Positive] = {"payg": 1.0}
    billing: dict[str, Positive] = {"prepaid": 1.0}
    blobs: Share = 0.0
    blob_pool: Annotated[int, Field(ge=1)] | None = None
    reseller: str | None = None
    product_seen: Share = 0.0
    copy_from: str | None = None


class Evasion(_Part):
    """Knobs of an attack: ``cover`` share of ordinary requests, ``jitter_s`` on every arrival, ``bans_per_day``
    share of accounts banned a day and replaced after ``replace_minutes``, ``unique_payment``, ``unique_egress``,
    ``age_days`` added to the age of accounts.
    """

    cover: Share = 0.0
    jitter_s: Annotated[float, Field(ge=0.0)] = 0.0
    bans_per_day: Share = 0.0
    replace_minutes: Positive = 45.0
    unique_payment: bool = False
    unique_egress: bool = False
    age_days: Annotated[float, Field(ge=0.0)] = 0.0
    paraphrase: Share | None = None
    human: Share | None = None


class Phase(_Part):
    """From ``from_day`` of the group's own time on, ``tasks`` replace the mix (blended in over ``ramp_days``)."""

    from_day: Annotated[float, Field(ge=0.0)]
    tasks: dict[Task, Positive]
    ramp_days: Annotated[float, Field(ge=0.0)] = 0.0


class Group(_Part):
    """Accounts that behave alike. ``share`` is of the scenario's accounts. ``pivot`` is the share of traffic
    that moves to a newly released model within 24 h (absent: as everyone); ``surge`` multiplies the rate of
    those who moved, for a day and a half. ``hijack``: the accounts are ordinary ones, whose own traffic goes
    on. ``new_per_day`` is the share of accounts that join on a day, ``stagger_days`` spreads the others' start.
    """

    name: str
    share: Share = 1.0
    actor: Actor | None = None
    rate: Rate
    arrivals: Arrivals = Arrivals()
    text: Text
    tokens: Tokens = Tokens()
    parameters: Parameters = Parameters()
    links: Links = Links()
    evasion: Evasion = Evasion()
    phases: list[Phase] = []
    pivot: Share | None = None
    hijack: bool = False
    surge: Annotated[float, Field(ge=1.0)] = 1.0
    stagger_days: Annotated[float, Field(ge=0.0)] = 0.0
    new_per_day: Share = 0.0


class Release(_Part):
    """A model released during the run, at a share ``at`` of it; ``moved_24h`` of ordinary traffic moves in a day."""

    model: str = "atlas-5"
    at: Share = 0.6
    moved_24h: Share = 0.15


class Agreement(_Part):
    """A sanctioned use that the provider knows of (contract 5)."""

    kind: Literal["distillation", "router", "reseller", "research", "red_team", "evaluation"]
    owner: str


class Expect(_Part):
    """What a detector should manage; printed beside what it did, never a pass mark of the simulator."""

    high_within_h: Positive | None = None
    leaked_share: Share | None = None
    note: str = ""


class Scenario(_Part):
    """One scenario file. ``accounts`` is the count at full size; at least ``min_accounts`` come on a whole day of the
    scenario, and so many more are made as stay away (``active_days``). ``days`` is the real length, cut to the run;
    it starts at the share ``start`` of the run.
    """

    version: Literal["scenario/v1"] = Field(alias="schema")
    id: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
    title: str
    kind: Literal["attack", "grey", "poison", "confounder", "background"]
    actor: Actor
    also: list[Actor] = []
    grounded_in: str = ""
    accounts: Annotated[int, Field(ge=1)]
    min_accounts: Annotated[int, Field(ge=1)] = 1
    days: Positive = 3650.0
    start: Share = 0.0
    campaign: bool = True
    groups: Annotated[list[Group], Field(min_length=1)]
    release: Release | None = None
    agreement: Agreement | None = None
    expect: Expect = Expect()
    same_timing: bool = False

    def span(self, first_s: float, days: float) -> tuple[float, float]:
        """Start and end in seconds, within a run of ``days`` days from ``first_s``."""
        begin = first_s + self.start * days * _DAY
        return begin, min(begin + self.days * _DAY, first_s + days * _DAY)


def _problem(item: ErrorDetails, node: yamlfile.Node) -> Problem:
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "no such setting; the published schema names them all (monitor simulate --schema)"
    elif item["type"] == "missing":
        message = "is required"
    return node.problem(message, *(step for step in item["loc"] if step != "[key]"))


def load(path: str | Path) -> Scenario:
    """Read one scenario file. Raises :class:`BadInput` with every problem, each at its line."""
    node = yamlfile.load(path)
    try:
        return Scenario.model_validate(node.data)
    except ValidationError as e:
        raise BadInput([_problem(item, node) for item in e.errors(include_url=False, include_input=False)]) from None


def shipped() -> dict[str, Path]:
    """The scenario files of the package, by id (the file's name)."""
    folder = Path(str(resources.files("monitor.simulate") / "scenarios"))
    return {p.stem: p for p in sorted(folder.glob("*.yaml")) if p.stem != "background"}


def background() -> Scenario:
    """The ordinary traffic beside which every scenario runs."""
    return load(Path(str(resources.files("monitor.simulate") / "scenarios" / "background.yaml")))


def find(names: list[str]) -> list[Scenario]:
    """Scenarios by shipped id (``S4``) or by path. Raises :class:`BadInput` with all problems of all of them."""
    known, problems, found = shipped(), [], []
    for name in names:
        path = known.get(name, Path(name))
        if name not in known and not path.is_file():
            problems.append(Problem(name, 0, f"no such scenario or file; shipped are {', '.join(known)}"))
            continue
        try:
            found.append(load(path))
        except BadInput as e:
            problems.extend(e.problems)
    if problems:
        raise BadInput(problems)
    return found


def loaded_of(scenarios: Sequence[str | Scenario]) -> list[Scenario]:
    """Scenarios given by id, by path or loaded, in their order: what stands before another draws as without it."""
    named = iter(find([s for s in scenarios if isinstance(s, str)]))
    return [s if isinstance(s, Scenario) else next(named) for s in scenarios]


def evade(scenario: Scenario, **knobs: float | bool) -> Scenario:
    """The scenario with knobs of :class:`Evasion` turned in every hostile group. Raises ``BadInput``."""
    groups = []
    for group in scenario.groups:
        if (group.actor or scenario.actor) == "benign":
            groups.append(group)
            continue
        try:
            turned = Evasion.model_validate({**group.evasion.model_dump(), **knobs})
        except ValidationError as e:
            wrong = e.errors(include_url=False, include_input=False)
            names = ", ".join(Evasion.model_fields)
            raise BadInput(
                Problem("arguments", 0, f"{w['msg']}; the knobs are {names}", ".".join(map(str, w["loc"])))
                for w in wrong
            ) from None
        groups.append(group.model_copy(update={"evasion": turned}))
    return scenario.model_copy(update={"groups": groups})


def json_schema() -> dict[str, Any]:
    """The published JSON Schema of a scenario file."""
    return Scenario.model_json_schema(by_alias=True)
