"""Writes ``rules/README.md`` from the catalogue and the rules, so that it can't fall behind them."""

from __future__ import annotations

from collections.abc import Sequence

from .build import known_tags
from .model import FeatureLike, Rule, RuleSet, Vocabulary

_INTRO = """\
# Rules

One YAML file a detection, in the folder of its family; the file's name is the rule's id. `policy.yaml` holds what
an alert's severity may rest on. This page is generated (`monitor rules readme --write`); change the files, not it.

A rule looks at one row of features of one account (a row for each tick of ten seconds in which it sent something)
and fires where its condition is **true**. A value that is not known is null, and a condition that hangs on it is
unknown, which never fires: `x > 5` and `!(x > 5)` are both unknown while x is. `has(x)` asks whether x is known.

## How to add one

1. Copy the nearest rule, give it a new id, `status: experimental` and `mode: shadow`.
2. Write `when` over the features below. Every number goes to `params`, with bounds and where it comes from.
3. Say why, what it can't see and whom it will hit wrongly. Add tests: one true, one false (a look-alike), one unknown.
4. `monitor rules lint rules && monitor rules test rules`, then see whom it hits and choose its numbers:
   `monitor rules backtest --input LOG --rows rows --rules NEW --against OLD`, or `--sweep rule.param=FROM:TO:POINTS`;
   `monitor rules explain RULE ACCOUNT --rows rows` says by how much each term holds. The README has it step by step.
5. Raise the status when the firings are understood: `experimental` may not alert, `test` may, `stable` is relied upon.
   `monitor rules shadow` counts what it would have said; `monitor rules promote RULE DIRECTORY` changes its mode.

Severity is what the rule declares, capped by the policy: volume alone never passes **{volume_cap}**, a lone account
never passes **{account_cap}** before false positives are calibrated, and high needs families of {min_roots} roots
({roots}) and a fact that the provider attests ({attested}) or an exact one ({exact}). {never} never count toward high.

## The condition

A subset of [CEL](https://github.com/google/cel-spec), checked when it is loaded and compiled to one Polars expression:
`? :`, `||`, `&&`, `==  !=  <  <=  >  >=`, `in`, `+ - * / %`, `!`, `-`, `has()`, `size()`, `min()`, `max()`, `abs()`,
`log2()`, and on strings `.startsWith()`, `.endsWith()`, `.contains()`, `.matches()` with a literal. Besides features it
may name `client_class` (one of {classes}), `account_id`, `subject`, `params.x`, `lists.x` and `macros.x`.
Every number is a double. Division by zero is null. Comparisons do not chain.

Around a rule: `lists/*.yaml` (`monitor.list/v1`: names with an owner and a last day), `macros/*.yaml`
(`monitor.macro/v1`: named parts of conditions), `overrides/*.yaml` (`monitor.override/v1`: mode, severity, params and
exceptions of one rule, so that the rule itself can be upgraded), and `exceptions` in a rule (who, why, whose, until
when; their hits are counted). `for` is how long a condition must hold on every row, `cooldown` the silence that ends
an episode, both in event time. What expires does so in event time, at the end of its last day in UTC.
"""


def readme_text(rules: RuleSet, catalogue: Vocabulary, classes: Sequence[str]) -> str:
    """The page, as it is committed."""
    policy = rules.policy
    intro = _INTRO.format(
        volume_cap=policy.volume_cap, account_cap=policy.account_cap, min_roots=policy.min_roots,
        roots="; ".join(f"{root}: {', '.join(families)}" for root, families in policy.roots.items()),
        attested=", ".join(f"`{a}`" for a in policy.attested), exact=", ".join(policy.exact),
        never=", ".join(policy.never_high).capitalize(), classes=", ".join(f"`{c}`" for c in classes),
    )  # fmt: skip
    parts = [intro, "## Rules\n", _table(("rule", "says", "family", "points to", "severity", "mode", "for", "needs"),
                                         [_rule_row(r, rules) for r in rules.rules.values()])]  # fmt: skip
    parts += ["## What each rule may hit wrongly\n"]
    parts += [f"**{r.id}**: {_flat(r.false_positives)}\n" for r in rules.rules.values()]
    parts += [f"## Features ({len(catalogue.by_name)})\n",
              _table(("feature", "family", "unit", "range", "needs", "meaning"),
                     [_feature_row(f) for f in catalogue.by_name.values()])]  # fmt: skip
    parts += ["## Tags\n", _table(("tag", "title"), [(f"`{t}`", title) for t, title in known_tags().items()])]
    return "\n".join(parts)


def _rule_row(rule: Rule, rules: RuleSet) -> tuple[str, ...]:
    needs = rules.inactive(()).get(rule.id, ())
    place = f"[{rule.id}]({rule.family}/{rule.id}.yaml)"
    return (place, rule.title, ", ".join(rule.families), rule.hypothesis, rule.severity, rule.mode,
            _span(rule.for_s), ", ".join(f"`{n}`" for n in needs) or "nothing optional")  # fmt: skip


def _feature_row(feature: FeatureLike) -> tuple[str, ...]:
    low = "" if feature.low is None else f"{feature.low:g}"
    high = "" if feature.high is None else f"{feature.high:g}"
    needs = ", ".join(f"`{n}`" for n in feature.needs)
    return f"`{feature.name}`", feature.family, feature.unit, f"{low} to {high}".strip(), needs, feature.meaning


def _span(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s" if seconds else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_flat(c).replace("|", "\\|") for c in line) + " |\n" for line in lines)


def _flat(text: str) -> str:
    return " ".join(text.split())
