"""Reading alerts out of Redis, for the command line and for whoever consumes them. Writes nothing, groups excepted.

Every function takes a client of :func:`~monitor.store.redis_link.connect` and raises DependencyDown with the
remedy where the server can't answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import msgspec
import redis
from redis.exceptions import RedisError, ResponseError

from monitor.errors import DependencyDown
from monitor.records import Alert, Member
from monitor.store.alert_keys import AlertKeys, Verdict, decode_alert, text
from monitor.store.redis_link import Reply, remedy

P = ParamSpec("P")
R = TypeVar("R")
Entry = tuple[str, Alert]
"""(stream entry id, alert)."""


class Members(msgspec.Struct, frozen=True):
    """All accounts of an alert that carries only some of them."""

    accounts: list[str]
    members: dict[str, Member]


class AccountState(msgspec.Struct, frozen=True):
    """An account's last alert, and its risk where one is open (see ``alert_keys.risk``)."""

    account: str
    alert_id: str
    severity: str
    state: str
    revision: int
    revised_at: float
    risk: float | None = None


def answered(
    function: Callable[Concatenate[redis.Redis, P], R],
) -> Callable[Concatenate[redis.Redis, P], R]:
    """``function`` with the server's errors said in words: DependencyDown with the remedy."""

    @wraps(function)
    def call(client: redis.Redis, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(client, *args, **kwargs)
        except (RedisError, OSError) as error:
            what = remedy(error)
            if what is None:
                raise
            raise DependencyDown(f"Redis can't be asked: {what} ({type(error).__name__})") from error

    return call


@answered
def tail(
    client: redis.Redis,
    keys: AlertKeys,
    after: str = "$",
    *,
    count: int = 100,
    wait_s: float = 1.0,
    mode: str = "alert",
) -> list[Entry]:
    """Entries after that id ("0" from the beginning, "$" from now on), waiting for at most ``wait_s``.

    Keep ``wait_s`` under ``redis.socket_timeout_s``. Go on with the id of the last entry.
    """
    reply: Reply = client.xread({keys.stream_of(mode): after}, count=count, block=max(int(wait_s * 1_000), 1))
    return _entries(reply)


@answered
def consume(
    client: redis.Redis, keys: AlertKeys, group: str, consumer: str, *, count: int = 100, wait_s: float = 1.0,
    stuck_s: float = 60.0, mode: str = "alert",
) -> list[Entry]:  # fmt: skip
    """Entries for one member of a consumer group, those first that another member left for ``stuck_s``.

    The group is made where it is missing, at the beginning of the stream. ``ack`` what was handled.
    """
    stream = keys.stream_of(mode)
    try:
        client.xgroup_create(stream, group, id="0", mkstream=True)
        # MKSTREAM makes a key without a life where no alert was written yet.
        client.expire(stream, 30 * 86_400, nx=True)
    except ResponseError as error:
        if not text(error).startswith("BUSYGROUP"):
            raise
    claimed: Reply = client.xautoclaim(stream, group, consumer, int(stuck_s * 1_000), count=count)
    found = [_entry(item) for item in claimed[1] if item[1]]
    if found:
        return found
    reply: Reply = client.xreadgroup(group, consumer, {stream: ">"}, count=count, block=max(int(wait_s * 1_000), 1))
    return _entries(reply)


@answered
def ack(client: redis.Redis, keys: AlertKeys, group: str, ids: list[str], *, mode: str = "alert") -> int:
    """Tell the group that these entries are handled; how many were open."""
    reply: Reply = client.xack(keys.stream_of(mode), group, *ids) if ids else 0
    return int(reply)


@answered
def list_alerts(
    client: redis.Redis, keys: AlertKeys, *, limit: int = 50, mode: str = "alert",
    wanted: Callable[[Alert], bool] = lambda alert: True,
) -> list[Alert]:  # fmt: skip
    """The newest revision of each alert in the stream, newest first, that ``wanted`` accepts."""
    found: dict[str, Alert] = {}
    for alert in _backwards(client, keys.stream_of(mode)):
        held = found.get(alert.alert_id)
        if held is None or alert.revision > held.revision:
            found[alert.alert_id] = alert
        if held is None and sum(map(wanted, found.values())) >= limit:
            break
    return [alert for alert in found.values() if wanted(alert)][:limit]


def naming(client: redis.Redis, keys: AlertKeys, account: str, *, limit: int = 100) -> list[Alert]:
    """Alerts that are about the account or have it among their members, newest first."""
    return list_alerts(
        client, keys, limit=limit,
        wanted=lambda a: account == a.subject or account in a.members or account in a.accounts,
    )  # fmt: skip


@answered
def show(client: redis.Redis, keys: AlertKeys, alert_id: str) -> Alert | None:
    """An alert as it was last written; None where it is not known (any more)."""
    data: Reply = client.get(keys.alert(alert_id))
    return decode_alert(data) if data is not None else None


@answered
def revisions_of(client: redis.Redis, keys: AlertKeys, alert_id: str) -> list[Alert]:
    """Every revision of an alert that the streams still hold, oldest first; at least the one in its own key."""
    found: dict[int, Alert] = {}
    last = show(client, keys, alert_id)
    if last is not None:
        found[last.revision] = last
    for mode in (last.mode,) if last is not None else ("alert", "shadow"):
        for alert in _backwards(client, keys.stream_of(mode), only=alert_id):
            found[alert.revision] = alert
            if alert.revision == 1:
                break
    return [found[number] for number in sorted(found)]


@answered
def members(client: redis.Redis, keys: AlertKeys, alert_id: str) -> Members | None:
    """Every account of a large alert: what its ``members_ref`` refers to."""
    data: Reply = client.get(keys.members(alert_id))
    return msgspec.json.decode(data, type=Members) if data is not None else None


@answered
def verdict(client: redis.Redis, keys: AlertKeys, account: str) -> Verdict | None:
    """What a gateway reads with one GET; None: nothing is held against the account."""
    data: Reply = client.get(keys.verdict(account))
    return msgspec.json.decode(data, type=Verdict) if data is not None else None


@answered
def account(client: redis.Redis, keys: AlertKeys, name: str) -> AccountState | None:
    """The account's last alert in short."""
    held: Reply = client.hgetall(keys.account(name))
    if not held:
        return None
    fields = {text(k): text(v) for k, v in held.items()}
    score: Reply = client.zscore(keys.top(), name)
    return AccountState(
        name, fields["alert_id"], fields["severity"], fields["state"], int(fields["revision"]),
        float(fields["revised_at"]), None if score is None else float(score),
    )  # fmt: skip


@answered
def top(client: redis.Redis, keys: AlertKeys, limit: int = 20) -> list[AccountState]:
    """Accounts with an open alert, by risk. One whose state has expired is left out."""
    reply: Reply = client.zrevrange(keys.top(), 0, limit - 1)
    states = (account(client, keys, text(name)) for name in reply)
    return [state for state in states if state is not None]


def _backwards(client: redis.Redis, stream: str, page: int = 500, only: str | None = None) -> Iterator[Alert]:
    """Alerts of a stream, newest entry first. With ``only`` those of one id, and no other is decoded."""
    end, wanted = "+", None if only is None else only.encode()
    while True:
        reply: Reply = client.xrevrange(stream, max=end, count=page)
        yield from (_entry(item)[1] for item in reply if wanted is None or item[1][b"alert_id"] == wanted)
        if len(reply) < page:
            return
        end = "(" + text(reply[-1][0])


def _entries(reply: Reply) -> list[Entry]:
    """One stream's entries: RESP2 gives [[stream, entries]], RESP3 {stream: [entries]}."""
    if not reply:
        return []
    items = next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]
    return [_entry(item) for item in items]


def _entry(item: Reply) -> Entry:
    entry_id, fields = item
    return text(entry_id), decode_alert(fields[b"alert"])
