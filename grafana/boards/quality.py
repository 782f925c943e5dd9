"""For whoever answers for the detection: are the scores what they were, and what did people find?"""

from __future__ import annotations

from builder import Board, Column, Panel, Row, Table

from boards.queries import judging, m, per_second, quantile

HOT = 'le="0.9"'


def hot(window: str) -> str:
    """Share of a detector's scores over 0.9 in a window."""
    under = f"sum by (detector) (increase({m('score_ratio_bucket', HOT)}[{window}]))"
    return f"1 - {under} / sum by (detector) (increase({m('score_ratio_count')}[{window}]))"


SCORES = Row(
    "Scores",
    (
        Panel(
            "Scores, quantiles",
            "Where do the scores of each detector lie?",
            "timeseries",
            {f"{{{{detector}}}} p{round(q * 100)}": quantile(q, "score_ratio", "detector") for q in (0.5, 0.9, 0.99)},
            "percentunit",
            width=12,
        ),
        Panel(
            "Rows scored a second",
            "Does every detector work?",
            "timeseries",
            {"{{detector}}": per_second("rows_scored_total", "detector")},
            "cps",
            width=6,
        ),
        Panel(
            "Detectors and rules that can't work",
            "What is blind for want of a field or a model?",
            "timeseries",
            {
                "inactive: {{detector}}": f"1 - min by (detector) {judging(m('detector_active'))}",
                "inactive rules": f"max ({m('rules_inactive')})",
            },
            width=6,
        ),
    ),
)

VERDICTS = Row(
    "Verdicts",
    (
        Table(
            "False-positive budget, by week",
            "Of the false HIGH alerts a week that you accept (alerts.budget_per_week), how many are spent?",
            "/v1/quality?weeks=8",
            "weeks",
            (
                Column("week", "week from", "timestamp_epoch_s"),
                Column("alerts", "alerts of medium or more", "number"),
                Column("high", "of HIGH", "number"),
                Column("confirmed", "confirmed", "number"),
                Column("false_positive", "found false", "number"),
                Column("false_high", "false and HIGH", "number"),
                Column("budget", "budget", "number"),
                Column("spent", "budget spent", "number", "percentunit"),
                Column("expected_false", "expected false", "number"),
            ),
            width=16,
            height=8,
        ),
        Table(
            "Cases, by state",
            "How many alerts did people decide on, and how?",
            "/v1/quality?weeks=8",
            "cases",
            (Column("case", "case"), Column("alerts", "alerts", "number"), Column("high", "of HIGH", "number")),
            width=8,
            height=8,
        ),
        Table(
            "Rules, by what people found",
            "Which rules are right, and which are not?",
            "/v1/rules",
            "rules",
            (
                Column("rule", "rule", page="page"),
                Column("title", "what it says"),
                Column("severity", "severity"),
                Column("hypothesis", "may be"),
                Column("all", "alerts", "number"),
                Column("open", "open", "number"),
                Column("strong", "medium or more", "number"),
                Column("confirmed", "confirmed", "number"),
                Column("false_positive", "found false", "number"),
                Column("precision", "right, of those decided", "number", "percentunit"),
            ),
            height=10,
        ),
    ),
)

DRIFT = Row(
    "Drift",
    (
        Panel(
            "High scores, against this range",
            "Do more rows score over 0.9 now than over the whole range (1: as many)?",
            "timeseries",
            {"{{detector}}": f"({hot('$__rate_interval')}) / ({hot('$__range')})"},
        ),
        Panel(
            "Over the frozen threshold",
            "Does what is scored with, what learns, or what was accepted weeks ago alarm more than 5 %?",
            "timeseries",
            {"{{detector}}: {{model}}": f"max by (detector, model) ({m('anomaly_alarm_ratio')})"},
            "percentunit",
            empty="nothing was compared yet",
        ),
        Panel(
            "Anomaly models, by state",
            "Are the models ready, and does one see another population than it learned?",
            "timeseries",
            {"{{detector}}: {{state}}": f"sum by (detector, state) ({m('anomaly_models')})"},
        ),
        Panel(
            "Promotions",
            "Are challengers taken, or refused?",
            "timeseries",
            {"{{detector}}: {{outcome}}": f"sum by (detector, outcome) ({m('anomaly_promotions')})"},
        ),
        Panel(
            "Calibration of campaigns",
            "Are there enough groups to rank candidates among (100)?",
            "timeseries",
            {"groups": f"max ({m('campaign_calibration_groups')})"},
        ),
        Panel(
            "Fields of a wrong type",
            "Did a gateway change what the detectors read?",
            "timeseries",
            {"{{field}}": f"topk(10, {per_second('wrong_types_total', 'field')})"},
            "cps",
        ),
    ),
)

QUALITY = Board(
    "abuse-monitor-quality",
    "Detection quality",
    "Score quantiles, verdicts of people, the false-positive budget, and drift.",
    (SCORES, VERDICTS, DRIFT),
)
