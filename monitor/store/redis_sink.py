"""Alerts into Redis or Valkey: exactly once in the stream, and what an account's state is now.

One script an alert. It looks into the alert's ledger for (revision, content): what is there already is not
written again, however often a crash, a timeout or a take-over sends it. Everything else (stream entry, state,
risk, verdict, ledger) is written by the same script, so there is no in-between. An older revision that comes
late (another version replaying) enters the stream but never turns the state back.

The ledger lives ``ttl_s``: longer than Kafka keeps the log, or a replay from its beginning repeats alerts.
Every key has a life, given by the script that writes it. The server's policy must be ``noeviction``: a full
server then refuses and we pause; any other policy may throw the ledger away.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

import msgspec
import redis
from redis.exceptions import RedisError

from monitor.errors import DependencyDown, SinkBusy
from monitor.fields import SEVERITIES
from monitor.records import Alert, trimmed
from monitor.store.alert_keys import VERDICTS, AlertKeys, Verdict, decode_alert, risk, text
from monitor.store.redis_link import RedisOptions, Reply, Script, connect, remedy

# KEYS: ledger, stream, alert, members, top, account, case, then one verdict a core account. Nobody is held against
# whom people found innocent: no verdict is given while the case is a false positive.
# The first write is one that a full server refuses: nothing is ever half done.
_PUBLISH = Script("""
local id, revision, digest = ARGV[1], ARGV[2], ARGV[3]
local ttl, maxlen = ARGV[4], ARGV[5]
local alert, members = ARGV[6], ARGV[7]
local subject, mode, state, severity, kind = ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local revised, risk, rank, verdict_ttl = ARGV[13], ARGV[14], tonumber(ARGV[15]), ARGV[16]
local ranks = {info = 0, low = 1, medium = 2, high = 3, critical = 4}

if redis.call('HGET', KEYS[1], revision) == digest then return 0 end
local newest = tonumber(redis.call('HGET', KEYS[1], 'max') or '0')
redis.call('HSET', KEYS[1], revision, digest)
redis.call('EXPIRE', KEYS[1], ttl)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', maxlen, '*', 'alert_id', id, 'revision', revision, 'kind', kind,
  'subject', subject, 'severity', severity, 'state', state, 'mode', mode, 'alert', alert)
redis.call('EXPIRE', KEYS[2], ttl)
if tonumber(revision) < newest then return 1 end
redis.call('HSET', KEYS[1], 'max', revision)
redis.call('SET', KEYS[3], alert, 'EX', ttl)
if members ~= '' then redis.call('SET', KEYS[4], members, 'EX', ttl) end
if mode ~= 'alert' then return 1 end

local open = state == 'open'
if tonumber(redis.call('HGET', KEYS[6], 'revised_at') or '-1') <= tonumber(revised) then
  redis.call('HSET', KEYS[6], 'alert_id', id, 'revision', revision, 'revised_at', revised, 'kind', kind,
    'severity', severity, 'state', state, 'mode', mode)
  redis.call('EXPIRE', KEYS[6], ttl)
  if open then redis.call('ZADD', KEYS[5], risk, subject) else redis.call('ZREM', KEYS[5], subject) end
  redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -100001)
  redis.call('EXPIRE', KEYS[5], ttl)
end
local innocent = redis.call('HGET', KEYS[7], 'state') == 'false_positive'
for i = 8, #KEYS do
  local held = redis.call('GET', KEYS[i])
  local other = held and cjson.decode(held)
  if other and other.alert_id == id then other = false end
  if open and not innocent then
    if not other or (ranks[other.severity] or 0) <= rank then
      redis.call('SET', KEYS[i], ARGV[9 + i], 'EX', verdict_ttl)
    end
  elseif held and not other then
    redis.call('DEL', KEYS[i])
  end
end
return 1
""")
_BATCH = 200


class RedisSink:
    """A sink (see :mod:`monitor.alerts.sinks`): raises SinkBusy where the server can't take alerts now.

    ``verdict_ttl_s`` is the life of a verdict after its alert was last revised, so it should exceed the longest
    cooldown of the rules and the hour between two revisions.
    """

    def __init__(
        self,
        options: RedisOptions,
        *,
        prefix: str = "abm",
        stream: str = "alerts",
        maxlen: int = 1_000_000,
        ttl_s: int = 30 * 86_400,
        verdict_ttl_s: int = 6 * 3_600,
        max_accounts: int = 1_000,
    ):
        self.keys = AlertKeys(prefix, stream)
        self._client: redis.Redis = connect(options)
        self._place = options.place
        self._maxlen = maxlen
        self._ttl_s = ttl_s
        self._verdict_ttl_s = verdict_ttl_s
        self._max_accounts = max_accounts
        self._mark = self.keys.alive(secrets.token_hex(8))
        self._marked = False
        self.repeated = 0
        """Alerts that the ledger knew already."""

    def send(self, alerts: Sequence[Alert]) -> None:
        """Write what is not written yet, in order. SinkBusy where the server is down, slow, full or read-only."""
        for start in range(0, len(alerts), _BATCH):
            calls = [self._call(alert) for alert in alerts[start : start + _BATCH]]
            try:
                replies = _PUBLISH.run_many(self._client, calls)
            except (RedisError, OSError) as error:
                raise self._busy(error) from error
            self.repeated += sum(reply == 0 for reply in replies)

    def flush(self) -> None:
        """Nothing waits here: ``send`` returns after the server's answer."""

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def check(self) -> None:
        """One round trip. Raises DependencyDown with the remedy: for the start and for ``monitor doctor``."""
        try:
            self._client.ping()
        except (RedisError, OSError) as error:
            what = remedy(error)
            if what is None:
                raise
            raise DependencyDown(f"Redis at {self._place}: {what} ({type(error).__name__})") from error

    def was_flushed(self) -> bool:
        """Whether the server lost its data since the last call (FLUSHALL, an empty restart).

        True also on the first call. The owner of a partition then sends ``AlertStage.ledger`` again: what the
        server still has is dropped by its ledger, so asking for too much does no harm.
        """
        try:
            lost = not self._client.expire(self._mark, self._ttl_s) or not self._marked
            if lost:
                self._client.set(self._mark, b"1", ex=self._ttl_s)
        except (RedisError, OSError) as error:
            raise self._busy(error) from error
        self._marked = True
        return lost

    def republish(self, alerts: Sequence[Alert]) -> None:
        """Send alerts of the stage's ledger again: after a flush, and when a partition was assigned."""
        self.send(sorted(alerts, key=lambda alert: (alert.revised_at, alert.alert_id)))

    def last_said(self, alerts: Sequence[Alert]) -> dict[str, Alert]:
        """Alert id -> what is written of it; else what is written of another alert that is open on its subject."""
        found: dict[str, Alert] = {}
        try:
            for alert in alerts:
                held: Reply = self._client.get(self.keys.alert(alert.alert_id))
                other: Reply = self._client.hget(self.keys.account(alert.subject), "alert_id")
                if held is None and other is not None and alert.mode == "alert":
                    held = self._client.get(self.keys.alert(text(other)))
                last = decode_alert(held) if held is not None else None
                if last is not None and (last.alert_id == alert.alert_id or last.state == "open"):
                    found[alert.alert_id] = last
        except (RedisError, OSError) as error:
            raise self._busy(error) from error
        return found

    def _call(self, alert: Alert) -> tuple[list[str], list[str | bytes | int | float]]:
        whole = msgspec.json.encode(alert)
        short = trimmed(alert, self._max_accounts)
        keys = self.keys
        accounts = short.accounts if alert.mode == "alert" else []
        verdicts = [
            msgspec.json.encode(
                Verdict(a, VERDICTS[alert.severity], alert.severity, alert.alert_id,
                        alert.revised_at + self._verdict_ttl_s)
            )
            for a in accounts
        ]  # fmt: skip
        members = b"" if short is alert else msgspec.json.encode({"accounts": alert.accounts, "members": alert.members})
        return (
            [
                keys.ledger(alert.alert_id), keys.stream_of(alert.mode), keys.alert(alert.alert_id),
                keys.members(alert.alert_id), keys.top(), keys.account(alert.subject),
                keys.case(alert.alert_id),
                *map(keys.verdict, accounts),
            ],
            [
                alert.alert_id, alert.revision, hashlib.blake2b(whole, digest_size=16).hexdigest(),
                self._ttl_s, self._maxlen, whole if short is alert else msgspec.json.encode(short), members,
                alert.subject, alert.mode, alert.state, alert.severity, alert.kind,
                alert.revised_at, risk(alert), SEVERITIES.index(alert.severity), self._verdict_ttl_s,
                *verdicts,
            ],
        )  # fmt: skip

    def _busy(self, error: RedisError | OSError) -> SinkBusy:
        what = remedy(error)
        if what is None:
            raise error
        busy = SinkBusy(f"alerts wait for Redis at {self._place}: {what} ({type(error).__name__})", 1.0)
        busy.redis_use = "alerts"
        return busy
