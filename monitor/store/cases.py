"""Cases in Redis: what people decided, what must be preserved, and who read what. Beside the alerts, in their slot.

A case is a hash: its moves in order (``1``, ``2``, …), their number, its state and incident id. A move is added by a
script that compares the number first, so two people who decide at once see each other. These keys outlive the alerts
(``evidence.keep_days``): a verdict is worth something when its alert is long gone.

Every function takes a client of :func:`~monitor.store.redis_link.connect` and raises DependencyDown with the remedy
where the server can't answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import redis

from monitor.errors import MonitorError
from monitor.lifecycle import CaseEvent, incident, move, read_incident, state_of
from monitor.records import Alert
from monitor.store.alert_keys import AlertKeys, text
from monitor.store.readers import answered, members, revisions_of, show
from monitor.store.redis_link import Reply, Script

_DAY_S = 86_400

# KEYS: case, index, incident, then the verdicts to take back. The verdict of another alert stays.
_ADD = Script("""
local count = tonumber(redis.call('HGET', KEYS[1], 'count') or '0')
if count ~= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], tostring(count + 1), ARGV[2], 'count', tostring(count + 1), 'state', ARGV[3],
  'incident', ARGV[4], 'last', ARGV[8])
redis.call('EXPIRE', KEYS[1], ARGV[7])
redis.call('ZADD', KEYS[2], ARGV[6], ARGV[5])
redis.call('EXPIRE', KEYS[2], ARGV[7])
redis.call('SET', KEYS[3], ARGV[5], 'EX', ARGV[7])
for i = 4, #KEYS do
  local held = redis.call('GET', KEYS[i])
  if held and cjson.decode(held).alert_id == ARGV[5] then redis.call('DEL', KEYS[i]) end
end
return 1
""")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A case: its moves, and the alert as it was at the last of them (kept here because the alert's own key ends)."""

    alert_id: str
    incident: str
    events: list[CaseEvent]
    alert: Alert | None = None


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """What must be preserved: request ids and accounts of a case, with every revision as it was then."""

    alert_id: str
    by: str
    why: str
    at: float
    request_ids: list[str]
    accounts: list[str]
    start: float
    end: float
    revisions: list[Alert]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody read or moved a case. ``at`` is epoch seconds by the reader's clock."""

    at: float
    by: str
    action: str
    case: str
    via: str


@dataclass(frozen=True, slots=True)
class Life:
    """How long cases, holds and readings are kept: days, and entries of the log of readings."""

    keep_days: float = 400.0
    audit_maxlen: int = 1_000_000

    @property
    def seconds(self) -> int:
        """As Redis takes it."""
        return int(self.keep_days * _DAY_S)


@answered
def resolve(client: redis.Redis, keys: AlertKeys, name: str) -> str:
    """The alert id behind an alert id or an incident id. Raises MonitorError for an incident nobody has opened."""
    asked = read_incident(name)
    if asked is None:
        return name
    found: Reply = client.get(keys.incident(asked))
    if found is not None:
        return text(found)
    for alert_id in _ids(client, keys):
        if incident(alert_id) == asked:
            return alert_id
    for alert_id in _alert_ids(client, keys):  # a case that nobody has moved yet has no key of its own
        if incident(alert_id) == asked:
            return alert_id
    raise MonitorError(f"no case has the incident id {asked}: `monitor alerts list` shows the alerts there are")


@answered
def case(client: redis.Redis, keys: AlertKeys, alert_id: str) -> Case:
    """The case of an alert; without moves where nobody has decided yet."""
    held: Reply = client.hgetall(keys.case(alert_id))
    fields = {text(k): v for k, v in held.items()}
    count = int(fields.get("count", 0))
    events = [msgspec.json.decode(fields[str(i)], type=CaseEvent) for i in range(1, count + 1)]
    last = msgspec.json.decode(fields["last"], type=Alert) if fields.get("last") else None
    return Case(alert_id=alert_id, incident=incident(alert_id), events=events, alert=last)


@answered
def add(
    client: redis.Redis, keys: AlertKeys, life: Life, alert_id: str, state: str, *, by: str, why: str, at: float
) -> Case:
    """Move a case. A false positive takes its verdicts back at once, and the sink gives none while it stands.

    Raises MonitorError for a move that is not possible, and where somebody else moved the case meanwhile.
    """
    held = case(client, keys, alert_id)
    alert = show(client, keys, alert_id) or held.alert
    if alert is None:
        raise MonitorError(f"no alert {alert_id} is known (any more): `monitor alerts list` shows those there are")
    move(held.events, state, by=by, why=why, at=at)
    event = CaseEvent(state=state, at=at, by=by, why=why, revision=alert.revision, severity=alert.severity,
                      score=alert.score)  # fmt: skip
    verdicts = [keys.verdict(a) for a in _everybody(client, keys, alert)] if state == "false_positive" else []
    reply: Reply = _ADD.run(
        client,
        [keys.case(alert_id), keys.cases(), keys.incident(held.incident), *verdicts[:_AT_ONCE]],
        [len(held.events), msgspec.json.encode(event), state, held.incident, alert_id, at, life.seconds,
         msgspec.json.encode(alert)],
    )  # fmt: skip
    if not reply:
        raise MonitorError("somebody moved this case just now: look at `monitor alerts history` and decide again")
    for start in range(_AT_ONCE, len(verdicts), _AT_ONCE):
        _take_back(client, verdicts[start : start + _AT_ONCE], alert_id)
    return Case(alert_id=alert_id, incident=held.incident, events=[*held.events, event], alert=alert)


@answered
def cases(client: redis.Redis, keys: AlertKeys) -> Iterator[Case]:
    """Every case that somebody has moved, newest move first."""
    return iter([case(client, keys, alert_id) for alert_id in _ids(client, keys)])


@answered
def states(client: redis.Redis, keys: AlertKeys, alert_ids: Sequence[str]) -> dict[str, str]:
    """Alert id -> state of its case, in one round trip."""
    pipe = client.pipeline(transaction=False)
    for alert_id in alert_ids:
        pipe.hget(keys.case(alert_id), "state")
    replies: Reply = pipe.execute()
    return {a: text(r) if r is not None else state_of([]) for a, r in zip(alert_ids, replies, strict=True)}


@answered
def hold(client: redis.Redis, keys: AlertKeys, life: Life, alert_id: str, *, by: str, why: str, at: float) -> Hold:
    """Preserve a case: the request ids of every revision that is still there, and the revisions themselves."""
    found = revisions_of(client, keys, alert_id)
    if not found:
        raise MonitorError(f"no alert {alert_id} is known (any more): `monitor alerts list` shows those there are")
    whole = members(client, keys, alert_id)
    everybody = {*whole.accounts, *whole.members} if whole is not None else set()
    made = Hold(
        alert_id=alert_id, by=by, why=why, at=at,
        request_ids=sorted({r for a in found for r in a.exemplars}),
        accounts=sorted({*everybody, *(m for a in found for m in (*a.accounts, *a.members))}),
        start=min(a.window["start"] for a in found), end=found[-1].revised_at, revisions=found,
    )  # fmt: skip
    client.set(keys.hold(alert_id), msgspec.json.encode(made), ex=life.seconds)
    client.zadd(keys.holds(), {alert_id: at})
    client.expire(keys.holds(), life.seconds)
    return made


@answered
def release(client: redis.Redis, keys: AlertKeys, alert_id: str) -> bool:
    """End a hold; whether there was one."""
    client.zrem(keys.holds(), alert_id)
    reply: Reply = client.delete(keys.hold(alert_id))
    return bool(reply)


@answered
def holds(client: redis.Redis, keys: AlertKeys) -> list[Hold]:
    """All holds in force."""
    names: Reply = client.zrevrange(keys.holds(), 0, -1)
    found = [client.get(keys.hold(text(name))) for name in names]
    return [msgspec.json.decode(data, type=Hold) for data in found if data is not None]


@answered
def note(client: redis.Redis, keys: AlertKeys, life: Life, reading: Reading) -> None:
    """Add to the log of readings."""
    fields = msgspec.to_builtins(reading)
    client.xadd(keys.audit(), fields, maxlen=life.audit_maxlen, approximate=True)
    client.expire(keys.audit(), life.seconds)


@answered
def readings(client: redis.Redis, keys: AlertKeys, limit: int = 100) -> list[Reading]:
    """The newest entries of the log of readings, newest first."""
    reply: Reply = client.xrevrange(keys.audit(), count=limit)
    entries = ({text(k): text(v) for k, v in fields.items()} for _, fields in reply)
    return [msgspec.convert(entry, Reading, strict=False) for entry in entries]


_AT_ONCE = 1_000
_TAKE_BACK = Script("""
for i = 1, #KEYS do
  local held = redis.call('GET', KEYS[i])
  if held and cjson.decode(held).alert_id == ARGV[1] then redis.call('DEL', KEYS[i]) end
end
return 1
""")


def _take_back(client: redis.Redis, verdicts: Sequence[str], alert_id: str) -> None:
    _TAKE_BACK.run(client, verdicts, [alert_id])


def _ids(client: redis.Redis, keys: AlertKeys) -> list[str]:
    names: Reply = client.zrevrange(keys.cases(), 0, -1)
    return [text(name) for name in names]


def _alert_ids(client: redis.Redis, keys: AlertKeys) -> Iterator[str]:
    prefix = keys.alert("")
    for name in client.scan_iter(match=f"{prefix}*", count=1_000):
        yield text(name).removeprefix(prefix)


def _everybody(client: redis.Redis, keys: AlertKeys, alert: Alert) -> list[str]:
    """Core accounts, also those that the alert itself is too short for."""
    whole = members(client, keys, alert.alert_id) if alert.members_ref else None
    return whole.accounts if whole is not None else alert.accounts
