"""Taking an account out of Redis: its alerts, its state and verdicts, its name in campaigns' lists of members.

A stream can't be edited, so entries that name the account are deleted; of a campaign, the newest revision is added
again without it (the one case in which the stream repeats a revision). What a hold preserves is not forgotten.
"""

from __future__ import annotations

from typing import Any

import msgspec
import redis

from monitor.errors import MonitorError
from monitor.fields import MODES
from monitor.records import Alert
from monitor.store.alert_keys import AlertKeys, decode_alert, text
from monitor.store.cases import Case, Hold, case, holds
from monitor.store.decisions import every
from monitor.store.readers import Members, answered
from monitor.store.redis_link import Reply


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken out. ``alerts`` were the account's own, ``campaigns`` go on without it."""

    keys: int
    entries: int
    alerts: list[str]
    campaigns: list[str]
    archive: int = 0
    """Daily rows of the archive."""


@answered
def forget(client: redis.Redis, keys: AlertKeys, account: str) -> Forgotten:
    """Remove the account. Raises MonitorError while a hold names it: a duty to preserve goes first."""
    holding = [h.alert_id for h in holds(client, keys) if _named(h, account)]
    if holding:
        raise MonitorError(
            f"{len(holding)} hold(s) preserve this account ({', '.join(holding)}): end them first, "
            "with `monitor hold ALERT_ID --release`"
        )
    entries, newest, where = _entries(client, keys, account)
    gone = client.delete(keys.account(account), keys.verdict(account), keys.enforce(account)) + client.zrem(
        keys.top(), account
    )
    _leave_decisions(client, keys, account)
    own, campaigns = [], []
    for alert_id in sorted(newest.keys() | _states(client, keys, account)):
        alert = newest.get(alert_id) or _last(client, keys, alert_id)
        if alert is None:
            continue
        if alert.kind == "account":
            own.append(alert_id)
            held = case(client, keys, alert_id)
            gone += client.delete(
                keys.alert(alert_id),
                keys.members(alert_id),
                keys.case(alert_id),
                keys.incident(held.incident),
                keys.account(alert.subject),
            )
            client.zrem(keys.cases(), alert_id)
            client.zrem(keys.top(), alert.subject)
        else:
            campaigns.append(alert_id)
            _scrub(client, keys, alert_id, account, where.get(alert_id))
    for stream, ids in entries.items():
        if ids:
            client.xdel(stream, *ids)
    return Forgotten(keys=int(gone), entries=sum(map(len, entries.values())), alerts=own, campaigns=campaigns)


def _leave_decisions(client: redis.Redis, keys: AlertKeys, account: str) -> None:
    for held in every(client, keys):
        if account in held.accounts or account in held.spared:
            left = msgspec.structs.replace(
                held,
                accounts=[a for a in held.accounts if a != account],
                spared=[a for a in held.spared if a != account],
            )
            client.set(keys.decision(held.decision), msgspec.json.encode(left), keepttl=True)


def _named(hold: Hold, account: str) -> bool:
    return account in hold.accounts or any(_is(a.subject, account) for a in hold.revisions if a.kind == "account")


def _is(subject: str, account: str) -> bool:
    """Also ``account:<hash>``, where account and end user are scored together."""
    return subject == account or subject.startswith(f"{account}:")


def _names(alert: Alert, account: str) -> bool:
    own = alert.kind == "account" and _is(alert.subject, account)
    return own or account in alert.accounts or account in alert.members


def _entries(
    client: redis.Redis, keys: AlertKeys, account: str
) -> tuple[dict[str, list[bytes]], dict[str, Alert], dict[str, str]]:
    """Stream -> entries that name the account; the newest alert of each, and its stream."""
    found: dict[str, list[bytes]] = {}
    newest: dict[str, Alert] = {}
    where: dict[str, str] = {}
    for stream in (keys.stream_of(mode) for mode in MODES):
        found[stream] = []
        end = "+"
        while True:
            page: Reply = client.xrevrange(stream, max=end, count=500)
            for name, fields in page:
                alert = decode_alert(fields[b"alert"])
                if not _names(alert, account):
                    continue
                found[stream].append(name)
                if alert.alert_id not in newest or newest[alert.alert_id].revision < alert.revision:
                    newest[alert.alert_id], where[alert.alert_id] = alert, stream
            if len(page) < 500:
                break
            end = "(" + text(page[-1][0])
    return found, newest, where


def _states(client: redis.Redis, keys: AlertKeys, account: str) -> set[str]:
    """Alerts whose own keys, lists of members or cases name the account, though the stream does not any more."""
    found = set()
    for kind in ("alert", "members", "case"):
        prefix = keys.name(kind, "")
        for name in client.scan_iter(match=f"{prefix}*", count=1_000):
            alert_id = text(name).removeprefix(prefix)
            if kind == "case":
                held = case(client, keys, alert_id).alert
                named = held is not None and _names(held, account)
            else:
                data: Reply = client.get(name)
                named = data is not None and (
                    _names(decode_alert(data), account)
                    if kind == "alert"
                    else account in _members(data).accounts or account in _members(data).members
                )
            if named:
                found.add(alert_id)
    return found


def _last(client: redis.Redis, keys: AlertKeys, alert_id: str) -> Alert | None:
    data: Reply = client.get(keys.alert(alert_id))
    return decode_alert(data) if data is not None else case(client, keys, alert_id).alert


def _scrub(client: redis.Redis, keys: AlertKeys, alert_id: str, account: str, stream: str | None) -> None:
    """The campaign without the account: its key, its list of members, its case, one entry of the stream."""
    data: Reply = client.get(keys.alert(alert_id))
    if data is not None:
        alert = _without(decode_alert(data), account)
        body = msgspec.json.encode(alert)
        client.set(keys.alert(alert_id), body, keepttl=True)
        if stream is not None:
            fields: dict[Any, Any] = {
                "alert_id": alert_id,
                "revision": alert.revision,
                "kind": alert.kind,
                "subject": alert.subject,
                "severity": alert.severity,
                "state": alert.state,
                "mode": alert.mode,
                "alert": body,
            }
            client.xadd(stream, fields)
    whole: Reply = client.get(keys.members(alert_id))
    if whole is not None:
        held = _members(whole)
        left = Members(
            [a for a in held.accounts if a != account], {k: m for k, m in held.members.items() if k != account}
        )
        client.set(keys.members(alert_id), msgspec.json.encode(left), keepttl=True)
    decided: Case = case(client, keys, alert_id)
    if decided.alert is not None:
        client.hset(keys.case(alert_id), "last", msgspec.json.encode(_without(decided.alert, account)))


def _without(alert: Alert, account: str) -> Alert:
    return msgspec.structs.replace(
        alert,
        accounts=[a for a in alert.accounts if a != account],
        members={name: m for name, m in alert.members.items() if name != account},
    )


def _members(data: bytes) -> Members:
    return msgspec.json.decode(data, type=Members)
