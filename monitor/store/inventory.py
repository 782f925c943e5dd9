"""Everything that is kept, where, for how long, and what `monitor forget` takes out of it. One table, tested.

The README's table "Privacy" and `monitor inventory` say what stands here; a test writes everything that can be written
to Redis and finds each key in exactly one row, with no longer a life than the row says.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kept:
    """One kind of thing that is kept. ``life`` is a setting, or words where it is not ours to set."""

    where: str
    key: str
    what: str
    names_accounts: bool
    life: str
    forget: str


_IDS = "account ids, request ids, model names, numbers"

REDIS = (
    Kept("Redis", "alerts", f"stream of alerts: {_IDS}", True, "redis.ttl_s", "entries that name it"),
    Kept("Redis", "ledger:<alert id>", "digests of what was written", False, "redis.ttl_s", "stays: it stops a repeat"),
    Kept(
        "Redis",
        "alert:<alert id>",
        f"an alert as last written: {_IDS}",
        True,
        "redis.ttl_s",
        "its own; its name in a campaign",
    ),
    Kept("Redis", "members:<alert id>", "members of a campaign", True, "redis.ttl_s", "its name"),
    Kept("Redis", "account:<account>", "an account's last alert", True, "redis.ttl_s", "all"),
    Kept("Redis", "top", "accounts with an open alert", True, "redis.ttl_s", "its name"),
    Kept("Redis", "verdict:<account>", "advice to a gateway", True, "redis.verdict_ttl_s", "all"),
    Kept("Redis", "alive:<instance>", "nothing but that it is there", False, "redis.ttl_s", "nothing"),
    Kept(
        "Redis",
        "case:<alert id>",
        "decisions on a case, names of analysts",
        True,
        "evidence.keep_days",
        "its own; its name in a campaign",
    ),
    Kept("Redis", "cases", "ids of cases", False, "evidence.keep_days", "its own"),
    Kept("Redis", "incident:<incident id>", "the alert id behind it", False, "evidence.keep_days", "its own"),
    Kept(
        "Redis",
        "hold:<alert id>",
        "what must be preserved of a case",
        True,
        "evidence.keep_days",
        "stays: refused until released",
    ),
    Kept("Redis", "holds", "ids of cases under a hold", False, "evidence.keep_days", "nothing"),
    Kept("Redis", "decision:<id>", "a proposed decision and its accounts", True, "evidence.keep_days", "its name"),
    Kept("Redis", "decisions", "ids of decisions", False, "evidence.keep_days", "nothing"),
    Kept("Redis", "enforce:<account>", "the decision in force", True, "evidence.keep_days", "all"),
    Kept("Redis", "audit", "who read which case", True, "evidence.keep_days", "stays: it says who knew"),
    Kept(
        "Redis",
        "{links:…}",
        "links of accounts, for the campaign step, and who is suspected",
        True,
        "three days",
        "stays until then",
    ),
    Kept(
        "Redis",
        "{cp:…}",
        "checkpoints, where checkpoint.store is redis",
        True,
        "features.idle_days",
        "stays until then",
    ),
)
"""By the part of the key after ``<prefix>:{<prefix>}:``."""

ELSEWHERE = (
    Kept(
        "checkpoint.path",
        "",
        "account and request ids, model names, counts, times, keyed hashes",
        True,
        "features.idle_days after an account's last request",
        "stays until then",
    ),
    Kept(
        "archive",
        "",
        "account and organisation ids, counts, times, keyed hashes, scores, a row an account and day; with "
        "archive.reads the numbers of its last 32 requests of the day",
        True,
        "archive.days",
        "all",
    ),
    Kept("memory", "", "text, until the end of the sketch step", True, "a batch", "nothing"),
    Kept(
        "dead letters",
        "",
        "reason, coordinates, length, keyed digest, name of the field",
        False,
        "your topic's retention",
        "nothing",
    ),
    Kept("webhook, alerts topic, alerts file", "", f"alerts: {_IDS}", True, "yours", "stays: ask the receivers"),
    Kept("logs, metrics", "", "numbers, partitions, rule ids", False, "yours", "nothing"),
    Kept(
        "reports",
        "",
        f"an alert's revisions and decisions: {_IDS}",
        True,
        "yours: they are files",
        "stays: delete the files",
    ),
)
