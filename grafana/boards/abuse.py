"""For whoever works the cases: is something raised, how much has leaked, and who is it?"""

from __future__ import annotations

from builder import Board, Column, Panel, Row, Table

from boards.queries import ALERT, HIGH, YES_NO, in_range, m, per_second, per_step, stat

STRONG = 'severity=~"medium|high|critical"'
REACHED = 'severity="{}"'
CAMPAIGN, ACCOUNT = 'kind="campaign"', 'kind="account"'
CORE = 'tier="core"'


def leaked(name: str, by: str, *more: str) -> str:
    """What open alerts of medium or more cover, summed over replicas."""
    return f"sum by ({by}) ({m(name, STRONG, *more)})"


NOW = Row(
    "From request to HIGH",
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
                "alerts of medium or more": in_range("alerts_reached_total", "", REACHED.format("medium")),
                "alerts of HIGH": in_range("alerts_reached_total", "", REACHED.format("high")),
            },
            width=10,
            height=8,
        ),
        stat(
            "Open high or critical",
            "How much waits for a person?",
            f"sum ({m('alerts_open', HIGH)})",
            width=4,
            thresholds=((1, "orange"), (10, "red")),
        ),
        stat("Campaigns open", "How many campaigns are under way?", f"sum ({m('campaigns_open')})", width=3),
        stat(
            "Accounts in their core",
            "How many accounts may be acted on?",
            f"sum ({m('campaign_members', CORE)})",
            width=3,
        ),
        stat(
            "Output tokens leaked so far",
            "How much did the subjects of open alerts of medium or more get?",
            # an account may have an alert of its own and one as a member: the larger of the two sums, not both
            f"max (sum by (kind) ({m('exposed_output_tokens', STRONG)}))",
            width=4,
        ),
        stat("Requests a second", "How much traffic is read?", per_second("requests_decoded_total"), "reqps", 4),
        stat("Ready", "Is every replica ready?", f"min ({m('ready')})", width=3, mappings=YES_NO),
        stat("Accounts with state", "How many accounts are watched?", f"sum ({m('accounts_tracked')})", width=3),
        stat("Rules in force", "How many rules alert?", f"max ({m('rules_loaded', ALERT)})", width=4),
    ),
)

CAMPAIGNS = Row(
    "Campaigns",
    (
        Table(
            "Campaigns",
            "Which campaigns are there, how large are they, and what did they take?",
            "/v1/campaigns?limit=100",
            "campaigns",
            (
                Column("raised_at", "raised", "timestamp_epoch_s"),
                Column("incident", "incident", page="page"),
                Column("severity", "severity"),
                Column("hypothesis", "may be"),
                Column("confidence", "confidence", "number", "percentunit"),
                Column("accounts", "core accounts", "number"),
                Column("members", "members", "number"),
                Column("requests", "requests", "number"),
                Column("output_tokens", "output tokens", "number"),
                Column("cost_usd", "cost", "number", "currencyUSD"),
                Column("revised_at", "revised", "timestamp_epoch_s"),
                Column("state", "alert"),
                Column("case", "case"),
            ),
            empty="no campaign is known",
        ),
        Panel(
            "Campaigns open, by hypothesis",
            "What are the campaigns after?",
            "timeseries",
            {"{{hypothesis}}": f"sum by (hypothesis) ({m('campaigns_open')})"},
        ),
        Panel(
            "Accounts in campaigns, by tier",
            "Do they grow, and how surely does an account belong to one?",
            "timeseries",
            {"{{tier}}": f"sum by (tier) ({m('campaign_members')})"},
        ),
        Panel(
            "Output tokens leaked so far",
            "How much did the subjects of open alerts of medium or more get?",
            "timeseries",
            {
                "campaigns: {{severity}}": leaked("exposed_output_tokens", "severity", CAMPAIGN),
                "accounts: {{severity}}": leaked("exposed_output_tokens", "severity", ACCOUNT),
            },
        ),
        Panel(
            "Requests of open alerts",
            "How many requests do these tokens come from?",
            "timeseries",
            {"{{kind}}": leaked("exposed_requests", "kind")},
        ),
        Panel(
            "Candidates and what they are ranked among",
            "Are there groups to judge, and enough groups to rank them among (100)?",
            "timeseries",
            {
                "candidates": f"max ({m('campaign_candidates')})",
                "calibration groups": f"max ({m('campaign_calibration_groups')})",
            },
        ),
        Panel(
            "Reached HIGH",
            "When did an alert come to be HIGH, at its opening or later?",
            "bars",
            {"{{kind}}": per_step("alerts_reached_total", "kind", REACHED.format("high"))},
        ),
    ),
)

ACCOUNTS = Row(
    "Accounts",
    (
        Table(
            "Accounts under suspicion",
            "Which accounts do the newest alerts name, and what are they there?",
            "/v1/accounts?limit=500",
            "accounts",
            (
                Column("account", "account", page="page"),
                Column("severity", "severity"),
                Column("hypothesis", "may be"),
                Column("kind", "alert on"),
                Column("tier", "tier"),
                Column("membership", "membership", "number", "percentunit"),
                Column("incident", "incident", page="alert_page"),
                Column("alerts", "alerts", "number"),
                Column("revised_at", "revised", "timestamp_epoch_s"),
                Column("state", "alert"),
                Column("case", "case"),
            ),
            height=11,
            empty="no account is under suspicion",
        ),
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
            "Revisions, by state",
            "Do alerts grow, close or merge?",
            "bars",
            {"{{state}}": per_step("alert_revisions_total", "state")},
        ),
        Table(
            "Newest alerts",
            "What was raised last, on whom, and is somebody on it?",
            "/v1/alerts?severity=medium&limit=50",
            "alerts",
            (
                Column("raised_at", "raised", "timestamp_epoch_s"),
                Column("incident", "incident", page="page"),
                Column("severity", "severity"),
                Column("hypothesis", "may be"),
                Column("kind", "kind"),
                Column("subject", "subject"),
                Column("case", "case"),
            ),
            width=8,
            height=7,
            empty="no alert of medium or more",
        ),
    ),
)

ABUSE = Board(
    "abuse-monitor",
    "Abuse",
    "What is raised, how much has leaked, and who it is, with links to the evidence.",
    (NOW, CAMPAIGNS, ACCOUNTS, ALERTS),
)
