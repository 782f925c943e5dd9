"""What the dashboard shows, in the order in which a person asks: is something raised, does it keep up?"""

from __future__ import annotations

from builder import Panel, Row

S = '{job=~"$job", instance=~"$instance"}'


def m(name: str, *more: str) -> str:
    """A metric of ours with the dashboard's selectors, and more of them."""
    selectors = ", ".join(['job=~"$job"', 'instance=~"$instance"', *more])
    return f"abusemon_{name}{{{selectors}}}"


def per_second(name: str, by: str = "", *more: str) -> str:
    """The rate of a counter, summed over replicas."""
    return f"sum{f' by ({by})' if by else ''} (rate({m(name, *more)}[$__rate_interval]))"


def in_range(name: str, by: str = "", *more: str) -> str:
    """How often a counter rose in the range that the dashboard shows."""
    return f"sum{f' by ({by})' if by else ''} (increase({m(name, *more)}[$__range]))"


def per_step(name: str, by: str, *more: str) -> str:
    """How often a counter rose in a step of the graph."""
    return f"sum by ({by}) (increase({m(name, *more)}[$__rate_interval]))"


def quantile(q: float, name: str, by: str = "") -> str:
    """A quantile of a histogram over replicas."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({m(f'{name}_bucket')}[$__rate_interval])))"


def stat(
    title: str, question: str, query: str, unit: str = "short", width: int = 3, height: int = 4,
    thresholds: tuple[tuple[float, str], ...] = (), mappings: tuple[tuple[str, str, str], ...] = (),
) -> Panel:  # fmt: skip
    """One number."""
    return Panel(title, question, "stat", {"": query}, unit, width, height, thresholds, mappings)


YES_NO = (("1", "yes", "green"), ("0", "no", "red"))
NO_YES = (("0", "no", "green"), ("1", "yes", "red"))
ALERT = 'mode="alert"'
SHADOW = 'mode="shadow"'
HIGH = 'severity=~"high|critical"'

FUNNEL = Row(
    "From request to alert",
    (
        Panel(
            "Funnel",
            "Of what came in over this range, how much became what?",
            "funnel",
            {
                "records read": in_range("records_consumed_total"),
                "requests decoded": in_range("requests_decoded_total"),
                "account rows scored": f"max (sum by (detector) (increase({m('rows_scored_total')}[$__range])))",
                "rule firings": in_range("rule_firings_total"),
                "alerts opened": in_range("alerts_total", "", ALERT),
            },
            width=10,
            height=8,
        ),
        stat("Requests a second", "How much traffic is read?", per_second("requests_decoded_total"), "reqps", 5, 4),
        stat("Ready", "Is every replica ready?", f"min ({m('ready')})", mappings=YES_NO),
        stat("Reading paused", "Is a sink or store holding the input back?", f"max ({m('paused')})", mappings=NO_YES),
        stat(
            "Open high or critical",
            "How much waits for a person?",
            f"sum ({m('alerts_open', HIGH)})",
            thresholds=((1, "orange"), (10, "red")),
        ),
        stat("Records waiting", "How far behind are we?", f"sum ({m('consumer_lag_records')})", width=5),
        stat("Accounts with state", "How many accounts are watched?", f"sum ({m('accounts_tracked')})"),
        stat("Partitions held", "Is every partition read by someone?", f"sum ({m('partitions_assigned')})"),
        stat("Rules in force", "How many rules alert?", f"max ({m('rules_loaded', ALERT)})"),
    ),
)

ALERTS = Row(
    "Alerts",
    (
        Panel(
            "Opened, by severity",
            "When was how much raised?",
            "bars",
            {"{{severity}}": per_step("alerts_total", "severity", ALERT)},
        ),
        Panel(
            "Opened, by hypothesis",
            "What do they look like?",
            "bars",
            {"{{hypothesis}}": per_step("alerts_total", "hypothesis", ALERT)},
        ),
        Panel(
            "Open now, by severity",
            "What is not closed yet?",
            "timeseries",
            {"{{severity}}": f"sum by (severity) ({m('alerts_open')})"},
        ),
        Panel(
            "Opened, by rule",
            "Which rules raise, over this range?",
            "table",
            {"": f"topk(20, {in_range('alerts_total', 'rule, severity, hypothesis, mode')} > 0)"},
            empty="nothing raised in this range",
        ),
        Panel(
            "Shadow alerts, by rule",
            "What would the rules on trial raise?",
            "bars",
            {"{{rule}}": per_step("alerts_total", "rule", SHADOW)},
        ),
        Panel(
            "Held back, and revised",
            "What did not become an alert of its own?",
            "bars",
            {
                "held back: {{reason}}": per_step("alerts_suppressed_total", "reason"),
                "revision: {{state}}": per_step("alert_revisions_total", "state"),
            },
        ),
    ),
)

INPUT = Row(
    "Input",
    (
        Panel(
            "Records a second",
            "What comes in, and what of it is a request?",
            "timeseries",
            {"read": per_second("records_consumed_total"), "decoded": per_second("requests_decoded_total")},
            "cps",
        ),
        Panel(
            "Rejects, by reason",
            "Why is a record no request?",
            "timeseries",
            {
                "{{reason}}": per_second("rejects_total", "reason"),
                "dead letters written": per_second("dead_letters_total"),
            },
            "cps",
        ),
        Panel(
            "Odd requests",
            "Duplicates, ids used twice, late ones?",
            "timeseries",
            {
                "duplicates": per_second("duplicates_total"),
                "id used twice": per_second("id_reuse_total"),
                "late, {{outcome}}": per_second("late_total", "outcome"),
            },
            "cps",
        ),
        Panel(
            "Fields of a wrong type",
            "Which optional fields does a gateway send wrongly?",
            "timeseries",
            {"{{field}}": f"topk(10, {per_second('wrong_types_total', 'field')})"},
            "cps",
        ),
        Panel(
            "Lag, by partition",
            "Which partition is behind?",
            "timeseries",
            {"{{partition}}": f"max by (partition) ({m('consumer_lag_records')})"},
        ),
        Panel(
            "Partitions in trouble",
            "Does a partition stand still, by itself or by its rejects?",
            "timeseries",
            {
                "stalled: {{partition}}": f"max by (partition) ({m('partition_stalled')})",
                "stopped by rejects: {{partition}}": f"max by (partition) ({m('partition_stopped')})",
            },
        ),
        Panel(
            "Tick delay",
            "How old is an event when its tick is scored?",
            "timeseries",
            {"p50": quantile(0.5, "tick_delay_seconds"), "p99": quantile(0.99, "tick_delay_seconds")},
            "s",
        ),
        Panel(
            "Tick delay, spread",
            "Is it a few ticks or all of them?",
            "heatmap",
            {"{{le}}": f"sum by (le) (increase({m('tick_delay_seconds_bucket')}[$__rate_interval]))"},
        ),
        Panel(
            "Rebalances",
            "Do partitions move, and are they lost?",
            "bars",
            {"{{event}}": per_step("rebalances_total", "event")},
        ),
    ),
)

PIPELINE = Row(
    "Pipeline",
    (
        Panel(
            "Time by stage",
            "What is a second of the process spent on?",
            "timeseries",
            {"{{stage}}": per_second("stage_seconds_sum", "stage")},
            "percentunit",
        ),
        Panel(
            "Slow passes, by stage",
            "How long does the slowest percent of passes take?",
            "timeseries",
            {"{{stage}}": quantile(0.99, "stage_seconds", "stage")},
            "s",
        ),
        Panel(
            "Memory",
            "How much memory does a replica have, and how much of it is state?",
            "timeseries",
            {
                "resident: {{instance}}": f"process_resident_memory_bytes{S}",
                "state: {{component}}": f"sum by (component) ({m('state_bytes')})",
            },
            "bytes",
        ),
    ),
)

SCORES = Row(
    "Scores",
    (
        Panel(
            "Rows scored a second",
            "Does every detector work?",
            "timeseries",
            {"{{detector}}": per_second("rows_scored_total", "detector")},
            "cps",
        ),
        Panel(
            "High scores",
            "Where do the highest scores of each detector lie?",
            "timeseries",
            {
                "{{detector}} p50": quantile(0.5, "score_ratio", "detector"),
                "{{detector}} p99": quantile(0.99, "score_ratio", "detector"),
            },
            "percentunit",
        ),
        Panel(
            "Detectors and rules that can't work",
            "What is blind for want of a field or a model?",
            "timeseries",
            {
                "inactive: {{detector}}": f"max by (detector) (1 - {m('detector_active')})",
                "inactive rules": f"max ({m('rules_inactive')})",
            },
        ),
        Panel(
            "Inference",
            "How long does the classifier take?",
            "timeseries",
            {"{{provider}} p99": quantile(0.99, "classifier_seconds", "provider")},
            "s",
            empty="no model: the classifier is inactive",
        ),
        Panel(
            "Execution provider",
            "Does the classifier run where it should?",
            "timeseries",
            {"{{provider}}": f"sum by (provider) ({m('classifier_provider_info')})"},
        ),
        Panel(
            "Model",
            "Which model is in use?",
            "table",
            {"": f"max by (model, sha256) ({m('model_info')})"},
            empty="no model: the classifier is inactive",
        ),
    ),
)

RULES = Row(
    "Rules",
    (
        Panel(
            "Firings, by rule",
            "On how many rows does each rule hold?",
            "timeseries",
            {"{{rule}} ({{mode}})": per_second("rule_firings_total", "rule, mode")},
            "cps",
        ),
        Panel(
            "Taken away by exceptions",
            "Which exceptions are in use?",
            "bars",
            {"{{rule}}: {{exception}}": per_step("rule_exception_hits_total", "rule, exception")},
            empty="no exception was used",
        ),
        stat(
            "Rules on disk in force",
            "Was the last reload taken?",
            f"min ({m('rules_last_reload_successful')})",
            width=4,
            mappings=YES_NO,
        ),
        stat(
            "Rules loaded",
            "How old are the rules in force?",
            f"time() - min ({m('rules_last_reload_success_timestamp_seconds')})",
            "s",
            4,
        ),
        Panel(
            "Rules, by mode",
            "How many alert, and how many are on trial?",
            "timeseries",
            {"{{mode}}": f"max by (mode) ({m('rules_loaded')})"},
            height=5,
        ),
        Panel(
            "Versions",
            "Which version, configuration and rules does each replica run?",
            "table",
            {"": f"max by (instance, version, python, config, rules) ({m('build_info')})"},
            width=16,
            height=5,
        ),
    ),
)

STATE = Row(
    "Sinks and state",
    (
        Panel(
            "Sinks",
            "Do alerts get out?",
            "timeseries",
            {
                "taken by {{sink}}": per_second("sink_alerts_total", "sink"),
                "busy: {{sink}}": per_second("sink_busy_total", "sink"),
            },
            "cps",
        ),
        Panel(
            "Redis errors, by use",
            "What of Redis fails?",
            "timeseries",
            {"{{operation}}": per_second("redis_errors_total", "operation")},
            "cps",
        ),
        Panel(
            "Age of the oldest checkpoint",
            "How much would a crash repeat?",
            "timeseries",
            {"{{instance}}": f"time() - min by (instance) ({m('checkpoint_timestamp_seconds')})"},
            "s",
        ),
        Panel(
            "Checkpoint time",
            "How long does reading stop for a checkpoint?",
            "timeseries",
            {"p50": quantile(0.5, "checkpoint_seconds"), "p99": quantile(0.99, "checkpoint_seconds")},
            "s",
        ),
        Panel(
            "Checkpoint bytes",
            "How much is written?",
            "timeseries",
            {"written": per_second("checkpoint_bytes_total")},
            "Bps",
        ),
        Panel(
            "Partitions taken up",
            "From a checkpoint, or from nothing?",
            "bars",
            {"{{outcome}}": per_step("restores_total", "outcome")},
        ),
    ),
)

ROWS = (FUNNEL, ALERTS, INPUT, PIPELINE, SCORES, RULES, STATE)
