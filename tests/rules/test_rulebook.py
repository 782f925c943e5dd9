"""The packaged rules as a set: complete, documented, fresh, quiet on honest look-alikes and awake to scrapers."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import polars as pl
import pytest

from monitor.features.catalogue import CLIENT_CLASSES
from monitor.features.vocabulary import CATALOGUE
from monitor.fields import FAMILIES, READ_EVERYTHING, ROOTS, SEVERITIES
from monitor.rules import HoldState, RuleSet, load_rules, packaged_rules
from monitor.rules.readme import readme_text
from monitor.rules.schema import schema_text
from monitor.yamlfile import load

FILES = sorted(packaged_rules().rglob("*.yaml"))


@pytest.fixture(scope="module")
def rulebook() -> RuleSet:
    return load_rules([packaged_rules()], CATALOGUE, CLIENT_CLASSES)


def test_no_warnings_and_every_family_with_features_has_a_rule(rulebook: RuleSet) -> None:
    assert rulebook.warnings == ()
    assert len(rulebook) >= 14
    assert {r.family for r in rulebook.rules.values()} == {f.family for f in CATALOGUE}


def test_the_policy_is_contract_2(rulebook: RuleSet) -> None:
    policy = rulebook.policy
    assert dict(policy.roots) == dict(ROOTS)
    assert set(policy.never_high) == {*READ_EVERYTHING, "volume", "geography"}
    assert set(policy.exact) == {"replay", "intel"}
    assert policy.min_roots == 2
    assert {f for members in policy.roots.values() for f in members} | set(READ_EVERYTHING) == set(FAMILIES)
    country = {"asn", "country", "region"}
    assert not country & set(policy.attested)


def test_every_rule_is_worth_its_place(rulebook: RuleSet) -> None:
    for rule in rulebook.rules.values():
        assert rule.when.params == set(rule.params), rule.id
        assert any(t.startswith("AML.") for t in rule.tags), rule.id
        assert len(rule.why) > 40, rule.id
        assert rule.cooldown_s >= 3600, rule.id
        assert rule.status != "experimental" or rule.mode != "alert", rule.id


def test_medium_and_above_rest_on_more_than_one_family(rulebook: RuleSet) -> None:
    """One weak fact flags the wrong people; an exact match is not weak."""
    for rule in rulebook.rules.values():
        strong = SEVERITIES.index(rule.severity) >= SEVERITIES.index("medium")
        counting = set(rule.families) - set(rulebook.policy.never_high)
        if strong and not counting & set(rulebook.policy.exact):
            assert len(counting) >= 2, rule.id
        if rule.over == "account" and rule.family in (*rulebook.policy.never_high, "timing", "template"):
            assert not strong, rule.id


def test_no_rule_reads_geography(rulebook: RuleSet) -> None:
    for rule in rulebook.rules.values():
        assert not {"country", "asn", "region"} & set(rule.raw_fields), rule.id


def test_documents_satisfy_the_schema_that_editors_use() -> None:
    schema = json.loads(schema_text(CATALOGUE))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for file in FILES:
        validator.validate(load(file).data)
    bad = load(packaged_rules() / "volume" / "heavy-output.yaml").data | {"severity": "huge"}
    assert list(validator.iter_errors(bad))


def test_generated_files_are_fresh(rulebook: RuleSet) -> None:
    folder = packaged_rules()
    remedy = "run `monitor rules schema --write` and `monitor rules readme --write`"
    assert (folder / "schema.json").read_text() == schema_text(CATALOGUE), remedy
    assert (folder / "README.md").read_text() == readme_text(rulebook, CATALOGUE, CLIENT_CLASSES), remedy


def test_a_log_without_any_optional_field_leaves_rules_that_say_so(rulebook: RuleSet) -> None:
    inactive = rulebook.inactive(())
    assert set(inactive) < set(rulebook.rules)
    assert all(missing for missing in inactive.values())
    assert inactive["foreign-reasoning-blob"] == ("reasoning_blob_fp",)
    every_field = {n for f in CATALOGUE for n in f.needs}
    assert rulebook.inactive(every_field) == {}
    models = {f.name for f in CATALOGUE if f.family == "classifier"}
    assert rulebook.inactive(every_field, models) == {"distillation-by-classifier": ("classifier_distillation",)}


# Rows as the features stage gives them for accounts of these kinds; a share that a kind does not have is zero.
ORDINARY: dict[str, float] = {
    **{f.name: 0.0 for f in CATALOGUE if f.family in ("content", "template", "replay")},
    **{f.name: 0.0 for f in CATALOGUE if f.name.endswith("_share_24h") and f.family == "shape"},
    "requests_24h": 60,
    "requests_1h": 8,
    "output_tokens_24h": 20_000,
    "rate_limited_share_1h": 0,
    "day_entropy_7d": 0.75,
    "active_hours_24h": 8,
    "gap_log_sd_24h": 2.5,
    "output_tokens_mean_24h": 330,
    "in_out_log_ratio_24h": 0.5,
    "choices_mean_24h": 1,
    "reasoning_share_24h": 0.1,
    "prompt_length_sd_24h": 0.9,
    "temperature_mean_24h": 0.7,
    "models_distinct_24h": 1,
    "models_distinct_7d": 1,
    "model_shift_past": 0,
    "model_concentration_24h": 1,
    "keys_distinct_24h": 1,
    "networks_distinct_24h": 1,
    "networks_distinct_7d": 2,
    "user_agents_distinct_24h": 1,
    "clients_distinct_24h": 1,
    "ja4_distinct_24h": 1,
    "account_age_days": 200,
    "requests_vs_past": 0,
    "output_tokens_vs_past": 0,
    "output_length_vs_past": 0,
    "follow_up_vs_past": 0,
    "template_vs_past": 0,
    "style_vs_past": 0.1,
    "anomaly_population": 0.5,
    "anomaly_change": 0.5,
}
HARNESS = {
    "benchmark_form_share_24h": 0.8,
    "template_concentration_24h": 0.7,
    "near_repeat_share_24h": 0.6,
    "temperature_zero_share_24h": 1.0,
    "models_distinct_24h": 3.1,
    "requests_24h": 1400,
    "output_tokens_mean_24h": 25,
    "short_output_share_24h": 0.8,
    "in_out_log_ratio_24h": 3.7,
    "logprobs_share_24h": 0.3,
    "output_cap_share_24h": 0.3,
    "active_hours_24h": 22,
    "day_entropy_7d": 0.9,
}
LOOK_ALIKES: dict[str, dict[str, float]] = {
    "nightly batch, one template, 200,000 a day": {
        "requests_24h": 200_000,
        "requests_1h": 60_000,
        "template_concentration_24h": 0.99,
        "short_output_share_24h": 1,
        "prompt_length_sd_24h": 0.2,
        "in_out_log_ratio_24h": 6,
        "output_tokens_mean_24h": 6,
        "active_hours_24h": 5,
        "gap_log_sd_24h": 0.6,
        "structured_share_24h": 0.9,
        "day_entropy_7d": 0.5,
        "output_tokens_24h": 1_200_000,
        "rate_limited_share_1h": 0.4,
    },
    "evaluation harness over several models": HARNESS,
    "evaluation harness with step-by-step prompts on launch day": HARNESS
    | {"reasoning_elicitation_share_24h": 1, "model_shift_past": 0.6, "requests_vs_past": 3, "account_age_days": 12},
    "launch-day migration": {
        "model_shift_past": 0.95,
        "requests_vs_past": 1.6,
        "output_tokens_vs_past": 2.2,
        "output_length_vs_past": 0.4,
        "follow_up_share_24h": 0.6,
        "reasoning_elicitation_share_24h": 0.05,
        "anomaly_change": 1.0,
    },
    "translation pipeline in twenty languages": {
        "requests_24h": 20_000,
        "template_concentration_24h": 0.3,
        "near_repeat_share_24h": 0.3,
        "templates_distinct_24h": 60,
        "scripts_distinct_24h": 9,
        "rewriting_share_24h": 0.2,
        "active_hours_24h": 24,
        "day_entropy_7d": 0.99,
        "gap_log_sd_24h": 1.5,
        "systems_distinct_24h": 20,
    },
    "tutor that loves steps": {
        "reasoning_elicitation_share_24h": 0.8,
        "follow_up_share_24h": 0.6,
        "near_repeat_share_24h": 0.1,
        "template_concentration_24h": 0.05,
        "second_person_share_24h": 0.7,
        "active_hours_24h": 14,
        "account_age_days": 10,
    },
    "judge in CI": {
        "rubric_share_24h": 1,
        "template_concentration_24h": 0.9,
        "short_output_share_24h": 0.95,
        "in_out_log_ratio_24h": 6,
        "structured_share_24h": 1,
        "requests_24h": 4000,
        "active_hours_24h": 12,
        "model_shift_past": 0.8,
    },
    "gateway that sends blobs again": {
        "blob_share_24h": 0.9,
        "blob_reuse_24h": 6,
        "blob_foreign_24h": 0,
        "follow_up_share_24h": 0.7,
    },
    "enterprise with 400 keys behind one address": {
        "keys_distinct_24h": 270,
        "user_agents_distinct_24h": 40,
        "ja4_distinct_24h": 6,
        "requests_24h": 90_000,
        "output_tokens_24h": 40_000_000,
        "day_entropy_7d": 0.9,
        "follow_up_share_24h": 0.3,
        "minute_phase_24h": 0.6,
    },
    "university course in its first days": {
        "account_age_days": 2,
        "template_concentration_24h": 0.3,
        "near_repeat_share_24h": 0.4,
        "reasoning_elicitation_share_24h": 0.4,
        "follow_up_share_24h": 0.4,
        "active_hours_24h": 6,
    },
    "key inside a mobile app": {
        "networks_distinct_24h": 260,
        "networks_distinct_7d": 268,
        "user_agents_distinct_24h": 2,
        "follow_up_share_24h": 0.4,
        "requests_24h": 9000,
        "day_entropy_7d": 0.92,
    },
}
ATTACKS: dict[str, tuple[dict[str, float], str]] = {
    "trace harvester": (
        {
            "reasoning_elicitation_share_24h": 0.85,
            "template_concentration_24h": 0.25,
            "active_hours_24h": 24,
            "output_cap_share_24h": 0.9,
            "requests_24h": 2600,
            "day_entropy_7d": 0.99,
        },
        "trace-harvest",
    ),
    "one account of a campaign with 26 a day": (
        {
            "reasoning_elicitation_share_24h": 0.4,
            "template_concentration_24h": 0.1,
            "requests_24h": 26,
            "active_hours_24h": 17,
        },
        "trace-harvest",
    ),
    "harvester whose text is not logged": (
        {
            **{f.name: float("nan") for f in CATALOGUE if "prompt" in f.needs},
            "output_cap_share_24h": 0.9,
            "high_effort_share_24h": 0.8,
            "choices_mean_24h": 3,
            "reasoning_share_24h": 0.5,
            "output_tokens_mean_24h": 3500,
            "in_out_log_ratio_24h": -3,
            "active_hours_24h": 24,
            "requests_24h": 2600,
        },
        "reasoning-hoarding",
    ),
    "reward labels": (
        {
            "rubric_share_24h": 1,
            "logprobs_share_24h": 0.9,
            "short_output_share_24h": 0.97,
            "requests_24h": 420,
            "in_out_log_ratio_24h": 6.5,
            "active_hours_24h": 24,
        },
        "reward-model-harvest",
    ),
    "mix of traces, grades and rewrites": (
        {
            "reasoning_elicitation_share_24h": 0.4,
            "rubric_share_24h": 0.3,
            "requests_24h": 29,
            "rewriting_share_24h": 0.15,
            "template_concentration_24h": 0.1,
        },
        "trace-and-grading",
    ),
    "sold key": (
        {"networks_distinct_24h": 40, "user_agents_distinct_24h": 12, "requests_vs_past": 4, "style_vs_past": 0.9},
        "key-on-many-networks",
    ),
    "replayed blobs": ({"blob_foreign_24h": 3, "blob_share_24h": 0.6}, "foreign-reasoning-blob"),
}


def _fired(rulebook: RuleSet, features: dict[str, float]) -> dict[str, str]:
    """Rules that fire on an account whose rows stay so for two hours, with their severity."""
    row: dict[str, Any] = {"subject": "a", "partition": 0, "client_class": 2, **ORDINARY, **features}
    ticks = pl.DataFrame({"tick": [0, 720], "t_ms": [0, 7_200_000]}, schema={"tick": pl.Int64, "t_ms": pl.Int64})
    frame = ticks.with_columns(pl.lit(v).alias(k) for k, v in row.items()).with_columns(
        pl.col("client_class").cast(pl.UInt8)
    )
    found = rulebook.evaluate(frame, HoldState()).firings
    alerting = found.filter(pl.col("row") == 1)["rule"].to_list()
    return {r: rulebook.rules[r].severity for r in alerting if rulebook.rules[r].mode == "alert"}


def test_an_ordinary_account_fires_nothing(rulebook: RuleSet) -> None:
    assert _fired(rulebook, {"follow_up_share_24h": 0.4}) == {}


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_look_alikes_stay_below_medium(rulebook: RuleSet, kind: str) -> None:
    strong = {r for r, severity in _fired(rulebook, LOOK_ALIKES[kind]).items() if severity not in ("info", "low")}
    assert strong == set()


@pytest.mark.parametrize("kind", ATTACKS)
def test_scrapers_reach_medium(rulebook: RuleSet, kind: str) -> None:
    features, rule = ATTACKS[kind]
    assert _fired(rulebook, features).get(rule) in ("medium", "high")
