"""Proposed decisions on the core accounts of an alert: approved by people, expiring, undone by one command.

Nobody is hit by a proposal. One that is approved (by two people where it is about a campaign) is written, for its
accounts, under keys that gateways may read; they end with it by themselves. The monitor itself proposes nothing.

Keys: ``decision:<id>`` holds a proposal, ``decisions`` lists them, ``enforce:<account>`` is what is in force.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import msgspec
import redis

from monitor.errors import MonitorError
from monitor.lifecycle import state_of
from monitor.records import Alert
from monitor.store.alert_keys import AlertKeys, text
from monitor.store.cases import Life, case
from monitor.store.readers import answered, members, show
from monitor.store.redis_link import Reply, Script

ACTIONS = ("observe", "step_up", "limit_outputs", "throttle", "suspend_key", "suspend_account")
"""From the mildest on."""
MOST_DAYS = 90.0
"""A decision that should last longer is taken again."""

# KEYS: decision, then enforce keys. The proposal is compared as a whole: two approvals at once see each other.
_REPLACE = Script("""
local held = redis.call('GET', KEYS[1])
if (held or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
for i = 2, #KEYS do
  if ARGV[4] == 'set' then redis.call('SET', KEYS[i], ARGV[5], 'EX', ARGV[6])
  elseif ARGV[4] == 'drop' then
    local other = redis.call('GET', KEYS[i])
    if other and cjson.decode(other).decision == ARGV[7] then redis.call('DEL', KEYS[i]) end
  end
end
return 1
""")


class Step(msgspec.Struct, frozen=True):
    """Who did what with a proposal, when and why."""

    what: str
    by: str
    at: float
    why: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal and what became of it: ``proposed``, ``approved`` or ``undone``. Times are epoch seconds."""

    decision: str
    alert_id: str
    action: str
    accounts: list[str]
    spared: list[str]
    until: float
    needs: int
    state: str
    steps: list[Step]

    @property
    def approvals(self) -> list[str]:
        """Who approved it."""
        return [s.by for s in self.steps if s.what == "approved"]


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an action would hit: core accounts, those spared, what they have used."""

    alert_id: str
    action: str
    severity: str
    case: str
    accounts: list[str]
    spared: list[str]
    requests: int | None
    cost_usd: float | None
    objections: list[str]


@answered
def whom(
    client: redis.Redis, keys: AlertKeys, alert_id: str, action: str, *, protected: Collection[str] = (),
    max_accounts: int = 1_000,
) -> Hit:  # fmt: skip
    """What a decision would do, without doing it; ``objections`` say what stands against it."""
    if action not in ACTIONS:
        raise MonitorError(f"{action!r} is no action: one of {', '.join(ACTIONS)}")
    alert = show(client, keys, alert_id)
    if alert is None:
        raise MonitorError(f"no alert {alert_id} is known (any more): `monitor alerts list` shows those there are")
    whole = members(client, keys, alert_id) if alert.members_ref else None
    core = sorted(whole.accounts if whole is not None else alert.accounts)
    state = state_of(case(client, keys, alert_id).events)
    spared = [a for a in core if a in protected]
    return Hit(
        alert_id=alert_id,
        action=action,
        severity=alert.severity,
        case=state,
        accounts=[a for a in core if a not in protected],
        spared=spared,
        requests=alert.exposure.get("requests"),
        cost_usd=alert.exposure.get("cost_usd"),
        objections=_objections(alert, action, state, len(core) - len(spared), max_accounts),
    )


def _objections(alert: Alert, action: str, state: str, count: int, most: int) -> list[str]:
    found = []
    if alert.mode != "alert":
        found.append("the alert is on trial (shadow): nobody is acted on for it")
    if state in ("false_positive", "appealed", "closed"):
        found.append(f"the case is {state}")
    if action.startswith("suspend") and state != "confirmed":
        found.append("nobody is suspended before a person has confirmed the case")
    if count > most:
        found.append(f"it hits {count} accounts, {most} at most: decide in parts")
    if count == 0:
        found.append("it hits nobody: every core account is protected, or there is none")
    return found


@answered
def propose(
    client: redis.Redis, keys: AlertKeys, life: Life, hit: Hit, *, by: str, why: str, at: float, until: float
) -> Decision:
    """Write a proposal down. Raises MonitorError for what stands against it, or an end that is not ahead."""
    if hit.objections:
        raise MonitorError("; ".join(hit.objections))
    if not at < until <= at + MOST_DAYS * 86_400:
        raise MonitorError(f"--until is later than now and at most {MOST_DAYS:g} days away: a decision ends by itself")
    if not by.strip() or not why.strip():
        raise MonitorError("--by and --why are needed")
    alert = show(client, keys, hit.alert_id)
    needs = 2 if alert is None or alert.kind == "campaign" else 1
    name = hashlib.blake2b(msgspec.json.encode([hit.alert_id, hit.action, by, at]), digest_size=6).hexdigest()
    made = Decision(
        decision=name, alert_id=hit.alert_id, action=hit.action, accounts=hit.accounts, spared=hit.spared, until=until,
        needs=needs, state="proposed", steps=[Step("proposed", by, at, why)],
    )  # fmt: skip
    _REPLACE.run(client, [keys.decision(name)], ["", msgspec.json.encode(made), life.seconds, "", "", 0, name])
    client.zadd(keys.decisions(), {name: at})
    client.expire(keys.decisions(), life.seconds)
    return made


@answered
def approve(client: redis.Redis, keys: AlertKeys, life: Life, name: str, *, by: str, why: str, at: float) -> Decision:
    """Approve; with the last approval that it needs it is in force. Whoever proposed it may approve it once."""
    held = get(client, keys, name)
    if held.state != "proposed":
        raise MonitorError(f"the decision is {held.state}: only a proposed one is approved")
    if at >= held.until:
        raise MonitorError("the decision's time is over: propose it again")
    if by in held.approvals:
        raise MonitorError(f"{by} has approved it already: it needs {held.needs} people")
    state = state_of(case(client, keys, held.alert_id).events)
    if state in ("false_positive", "appealed"):
        raise MonitorError(f"the case is {state} now: nothing is enforced on it")
    steps = [*held.steps, Step("approved", by, at, why)]
    done = sum(s.what == "approved" for s in steps) >= held.needs
    made = msgspec.structs.replace(held, steps=steps, state="approved" if done else "proposed")
    advice = msgspec.json.encode(
        {"action": held.action, "decision": name, "alert_id": held.alert_id, "until": held.until}
    )
    accounts = [keys.enforce(a) for a in held.accounts] if done else []
    seconds = max(int(held.until - at), 1)
    _write(client, keys, life, held, made, accounts, ["set" if done else "", advice, seconds])
    return made


@answered
def undo(client: redis.Redis, keys: AlertKeys, life: Life, name: str, *, by: str, why: str, at: float) -> Decision:
    """End it at once, for every account: what another decision has put there since stays."""
    held = get(client, keys, name)
    if held.state == "undone":
        raise MonitorError("the decision is undone already")
    made = msgspec.structs.replace(held, steps=[*held.steps, Step("undone", by, at, why)], state="undone")
    _write(client, keys, life, held, made, [keys.enforce(a) for a in held.accounts], ["drop", "", 0])
    return made


@answered
def lift(client: redis.Redis, keys: AlertKeys, life: Life, alert_id: str, *, by: str, why: str, at: float) -> list[str]:
    """Undo whatever is proposed or in force because of an alert; which."""
    found = [d for d in every(client, keys) if d.alert_id == alert_id and d.state != "undone"]
    for held in found:
        undo(client, keys, life, held.decision, by=by, why=why, at=at)
    return [held.decision for held in found]


@answered
def get(client: redis.Redis, keys: AlertKeys, name: str) -> Decision:
    """One proposal. Raises MonitorError where there is none."""
    data: Reply = client.get(keys.decision(name))
    if data is None:
        raise MonitorError(f"there is no decision {name!r}: `monitor decisions list` shows those there are")
    return msgspec.json.decode(data, type=Decision)


@answered
def every(client: redis.Redis, keys: AlertKeys) -> list[Decision]:
    """All of them, newest first."""
    names: Reply = client.zrevrange(keys.decisions(), 0, -1)
    found = [client.get(keys.decision(text(name))) for name in names]
    return [msgspec.json.decode(data, type=Decision) for data in found if data is not None]


def _write(
    client: redis.Redis, keys: AlertKeys, life: Life, held: Decision, made: Decision, accounts: Sequence[str],
    args: Sequence[object],
) -> None:  # fmt: skip
    before, after = msgspec.json.encode(held), msgspec.json.encode(made)
    given = [before, after, life.seconds, *args, held.decision]
    if not _REPLACE.run(client, [keys.decision(held.decision), *accounts], given):
        raise MonitorError("somebody moved this decision just now: look at `monitor decisions list` and decide again")
