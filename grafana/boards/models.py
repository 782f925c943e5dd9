"""For whoever changes models and rules: what is in force, on what it runs, and what is on trial."""

from __future__ import annotations

from builder import Board, Panel, Row

from boards.queries import ALERT, SHADOW, YES_NO, in_range, judging, m, per_second, per_step, quantile, stat

NO_MODEL = "no model: the classifier is inactive"

VERSIONS = Row(
    "What runs",
    (
        Panel(
            "Versions",
            "Which version, configuration and rules does each replica run?",
            "table",
            {"": f"max by (instance, version, python, config, rules) ({m('build_info')})"},
            width=14,
            height=5,
        ),
        Panel(
            "Models",
            "Which classifier is in use, and which is on trial?",
            "table",
            {"": f"max by (instance, role, model, sha256) ({m('model_info')})"},
            width=10,
            height=5,
            empty=NO_MODEL,
        ),
    ),
)

MODEL = Row(
    "Classifier",
    (
        Panel(
            "Execution provider",
            "Does the classifier run where it should?",
            "timeseries",
            {"{{provider}}": f"sum by (provider) ({m('classifier_provider_info')})"},
        ),
        Panel(
            "Inference",
            "How long does a batch take?",
            "timeseries",
            {"{{provider}} p99": quantile(0.99, "classifier_seconds", "provider")},
            "s",
            empty=NO_MODEL,
        ),
        Panel(
            "Rows of a batch",
            "Are the batches full?",
            "timeseries",
            {"p50": quantile(0.5, "classifier_batch_rows"), "p99": quantile(0.99, "classifier_batch_rows")},
            empty=NO_MODEL,
        ),
        Panel(
            "Model on trial against the one in use",
            "In which share of rows do they differ by 0.1 or more?",
            "timeseries",
            {"differ": f"{per_second('classifier_shadow_differs_rows_total')} / "
                       f"{per_second('classifier_shadow_rows_total')}"},
            "percentunit",
            empty="no model is on trial",
        ),
        Panel(
            "Rows compared",
            "On how many rows were they compared?",
            "timeseries",
            {"compared": per_second("classifier_shadow_rows_total")},
            "cps",
        ),
        Panel(
            "Failed inferences",
            "Does the classifier give no opinion where it should?",
            "timeseries",
            {"failed": per_second("classifier_failures_total")},
            "cps",
        ),
    ),
)  # fmt: skip

RULES = Row(
    "Rules",
    (
        stat(
            "Rules on disk in force",
            "Was the last reload taken?",
            f"min {judging(m('rules_last_reload_successful'))}",
            width=4,
            mappings=YES_NO,
        ),
        stat(
            "Rules loaded",
            "How old are the rules in force?",
            f"time() - min {judging(m('rules_last_reload_success_timestamp_seconds'))}",
            "s",
            4,
        ),
        stat("Rules that can't fire", "How many rules lack a field of this log?", f"max ({m('rules_inactive')})",
             width=4, thresholds=((1, "yellow"),)),
        Panel(
            "Rules, by mode",
            "How many alert, and how many are on trial?",
            "timeseries",
            {"{{mode}}": f"max by (mode) ({m('rules_loaded')})"},
            width=12,
            height=4,
        ),
        Panel(
            "Firings, by rule",
            "On how many rows does each rule that alerts hold?",
            "timeseries",
            {"{{rule}}": per_second("rule_firings_total", "rule", ALERT)},
            "cps",
            width=12,
        ),
        Panel(
            "Firings in shadow, by rule",
            "On how many rows would the rules on trial hold?",
            "timeseries",
            {"{{rule}}": per_second("rule_firings_total", "rule", SHADOW)},
            "cps",
            width=12,
            empty="no rule is on trial",
        ),
        Panel(
            "Shadow against active",
            "How many alerts would the rules on trial add to those there are?",
            "bars",
            {"{{mode}}": per_step("alerts_total", "mode")},
        ),
        Panel(
            "Shadow alerts, by rule",
            "What would the rules on trial raise?",
            "bars",
            {"{{rule}}": per_step("alerts_total", "rule", SHADOW)},
            empty="no rule is on trial",
        ),
        Panel(
            "Firings, by rule, over this range",
            "Which rules hold most often?",
            "table",
            {"": f"topk(30, {in_range('rule_firings_total', 'rule, mode')} > 0)"},
            empty="nothing fired in this range",
        ),
        Panel(
            "Taken away by exceptions",
            "Which exceptions are in use?",
            "bars",
            {"{{rule}}: {{exception}}": per_step("rule_exception_hits_total", "rule, exception")},
            width=12,
            empty="no exception was used",
        ),
        Panel(
            "Taken away by agreements",
            "How many firings fell to a use that somebody sanctioned?",
            "bars",
            {"{{reason}}": per_step("alerts_suppressed_total", "reason")},
            width=12,
        ),
    ),
)  # fmt: skip

MODELS = Board(
    "abuse-monitor-models",
    "Model and rules",
    "Providers, versions, shadow against active, firings by rule.",
    (VERSIONS, MODEL, RULES),
)
