"""For whoever keeps it running: does it keep up, does it lose something, does what it finds get out?"""

from __future__ import annotations

from builder import Board, Panel, Row

from boards.queries import NO_YES, YES_NO, S, m, per_second, per_step, quantile, stat

NOW = Row(
    "Now",
    (
        stat("Ready", "Is every replica ready?", f"min ({m('ready')})", width=4, mappings=YES_NO),
        stat(
            "Reading paused",
            "Is a sink or store holding the input back?",
            f"max ({m('paused')})",
            width=4,
            mappings=NO_YES,
        ),
        stat("Records waiting", "How far behind are we?", f"sum ({m('consumer_lag_records')})", width=4),
        stat("Partitions held", "Is every partition read by someone?", f"sum ({m('partitions_assigned')})", width=4),
        stat("Accounts with state", "How many accounts are watched?", f"sum ({m('accounts_tracked')})", width=4),
        stat(
            "Oldest checkpoint",
            "How much would a crash repeat?",
            f"time() - min ({m('checkpoint_timestamp_seconds')})",
            "s",
            4,
            thresholds=((120, "yellow"), (600, "red")),
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

STAGES = Row(
    "Steps",
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
            "How long does reading stop for a checkpoint, at once, and until when is it written?",
            "timeseries",
            {
                "pause p50": quantile(0.5, "checkpoint_pause_seconds"),
                "pause p99": quantile(0.99, "checkpoint_pause_seconds"),
                "written p99": quantile(0.99, "checkpoint_seconds"),
            },
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
        Panel(
            "Archive steps lost",
            "Is a day missing for a later hunt?",
            "bars",
            {"lost": f"sum (increase({m('archive_lost_total')}[$__rate_interval]))"},
        ),
    ),
)

PIPELINE = Board(
    "abuse-monitor-pipeline",
    "Pipeline",
    "Lag, delay, rejects, time by step, memory, checkpoints and sinks.",
    (NOW, INPUT, STAGES, STATE),
)
