"""Checkpoints in Redis or Valkey, for where no directory is shared. Knows nothing of what is in a blob.

Keys of a partition carry one hash tag, so that its scripts touch one slot and partitions spread over a
cluster: ``abm:{cp:<scope>:<partition>}:fence|manifest|previous|blob:<sha256>``. Blobs go first, with an
hour to live; one script then compares the fence, checks that every blob is there, replaces the manifest and
gives all of it ``ttl_s``. The fence is therefore compared in the same step that writes.

Size. The server holds the last two checkpoints (blobs they share once): 1 M accounts of 4 KB are 4 GB and,
in the worst case of full blobs only, 8. ``maxmemory`` needs that and half as much again for its own snapshot;
a blob may have 256 MiB (the protocol's limit is 512). Above some 100,000 accounts a directory is the better
place. The policy must be ``noeviction``, and persistence (AOF) is what makes this survive a restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import redis
from redis.exceptions import RedisError

from monitor.errors import MonitorError
from monitor.records import Checkpoint
from monitor.store.checkpoints import Report, fenced, log_report
from monitor.store.manifest import (
    BlobRef,
    Incomplete,
    Manifest,
    StoreDown,
    digest,
    plan,
    read_manifest,
    restore,
    seal,
    unseal,
)
from monitor.store.redis_link import RedisOptions, Reply, Script, connect, remedy

MAX_BLOB = 256 << 20
"""Bytes of the largest blob that is accepted."""
_UPLOAD_TTL_S = 3_600
_CHUNK = 16 << 20

_CLAIM = Script("""
local fence = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(ARGV[1]) < fence then return {'FENCED', fence} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return {'OK'}
""")

# KEYS: fence, manifest, previous, the blobs the manifest needs, then blobs nobody needs any more
_COMMIT = Script("""
local generation, ttl, needed = ARGV[1], ARGV[2], tonumber(ARGV[5])
local fence = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(generation) < fence then return {'FENCED', fence} end
for i = 4, 3 + needed do
  if redis.call('EXISTS', KEYS[i]) == 0 then return {'MISSING', i - 4} end
end
redis.call('SET', KEYS[2], ARGV[3], 'EX', ttl)
if ARGV[4] ~= '' then redis.call('SET', KEYS[3], ARGV[4], 'EX', ttl) end
redis.call('SET', KEYS[1], generation, 'EX', ttl)
for i = 4, 3 + needed do redis.call('EXPIRE', KEYS[i], ttl) end
for i = 4 + needed, #KEYS do redis.call('DEL', KEYS[i]) end
return {'OK'}
""")


class RedisCheckpointStore:
    """See :class:`~monitor.store.checkpoints.CheckpointStore`; ``scope`` names topic and consumer group.

    ``ttl_s`` only collects garbage: a group that is gone for so long has lost its offsets in Kafka as well.
    """

    def __init__(
        self,
        options: RedisOptions,
        scope: str = "default",
        *,
        prefix: str = "abm",
        ttl_s: int = 30 * 86_400,
        report: Report = log_report,
    ):
        self._client: redis.Redis = connect(options)
        self._place = options.place
        self._prefix = prefix
        self._scope = digest(scope.encode())[:16]
        self._ttl_s = ttl_s
        self._report = report
        self._base: dict[int, Manifest] = {}

    def claim(self, partition: int, generation: int) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained():
            self._verdict(_CLAIM.run(self._client, [self._key(partition, "fence")], [generation, self._ttl_s]),
                          partition, generation)  # fmt: skip
        self._base.pop(partition, None)

    def load(self, partition: int) -> Checkpoint | None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained():
            found = restore(
                partition,
                lambda: [
                    (name, data)
                    for name, key in (("last", "manifest"), ("previous", "previous"))
                    if (data := self._get(partition, key)) is not None
                ],
                lambda ref: self._get(partition, _blob(ref)),
                self._report,
            )
        if found is None:
            return None
        self._base[partition] = found[1]
        return found[0]

    def save(self, checkpoint: Checkpoint) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        partition = checkpoint.partition
        with self._explained():
            fence = int(self._get(partition, "fence") or -1)
            if checkpoint.generation < fence:  # a member that is out sends no blob; the script compares again
                raise fenced(partition, checkpoint.generation, fence)
            base = self._base.get(partition) or read_manifest(self._get(partition, "manifest"))
            manifest, blobs = plan(checkpoint, base)
            for name, blob in blobs.items():
                if len(blob) > MAX_BLOB:
                    raise MonitorError(
                        f"partition {partition}: a blob of {len(blob) >> 20} MiB ({name[:12]}) is too large for Redis "
                        "(256): set checkpoint.store to directory, or give the topic more partitions"
                    )
            needed = sorted(manifest.refs(), key=lambda ref: ref.digest)
            live = manifest.refs() | (base.refs() if base is not None else set[BlobRef]())
            old = read_manifest(self._get(partition, "previous"))
            gone = sorted({ref.digest for ref in (old.refs() if old is not None else ())} -
                          {ref.digest for ref in live})  # fmt: skip
            keys = [self._key(partition, name) for name in ("fence", "manifest", "previous")]
            keys += [self._key(partition, _blob(ref)) for ref in needed]
            keys += [self._key(partition, f"blob:{name}") for name in gone]
            args = [checkpoint.generation, self._ttl_s, seal(manifest), seal(base) if base else b"", len(needed)]
            for _ in range(3):
                self._upload(partition, blobs)
                reply = _COMMIT.run(self._client, keys, args)
                if reply[0] != b"MISSING":
                    break
                if needed[int(reply[1])].digest not in blobs:
                    raise Incomplete(f"partition {partition}: a kept blob is gone: write a full checkpoint")
            else:
                raise StoreDown(
                    f"Redis at {self._place} loses keys as they are written: set maxmemory-policy noeviction"
                )
            self._verdict(reply, partition, checkpoint.generation)
        self._base[partition] = manifest

    def partitions(self) -> list[int]:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        pattern = f"{self._prefix}:{{cp:{self._scope}:*}}:manifest"
        with self._explained():
            return sorted(int(key.split(b"}")[0].rsplit(b":", 1)[1]) for key in self._client.scan_iter(pattern, 1_000))

    def unfence(self, partition: int) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained():
            self._client.delete(self._key(partition, "fence"))
        self._base.pop(partition, None)

    def put_meta(self, meta: Mapping[str, Any]) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained():
            self._client.set(self._meta_key(), seal(dict(meta)), ex=self._ttl_s)

    def get_meta(self) -> dict[str, Any] | None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`; reading it extends its life."""
        with self._explained():
            data: Reply = self._client.getex(self._meta_key(), ex=self._ttl_s)
        body = unseal(data) if data is not None else None
        if data is not None and body is None:
            raise StoreDown(f"{self._meta_key()} in Redis at {self._place} is damaged: delete it")
        return msgspec.json.decode(body, type=dict[str, Any]) if body is not None else None

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _upload(self, partition: int, blobs: Mapping[str, bytes]) -> None:
        """Send what the server lacks, by some megabytes at a time. NX: never shorten the life of a blob in use."""
        names = list(blobs)
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.strlen(self._key(partition, f"blob:{name}"))
        held = pipe.execute() if names else []
        size = 0
        for name, length in zip(names, held, strict=True):
            if length and length == len(blobs[name]):
                continue
            pipe.set(self._key(partition, f"blob:{name}"), blobs[name], ex=_UPLOAD_TTL_S, nx=not length)
            size += len(blobs[name])
            if size > _CHUNK:
                pipe.execute()
                size = 0
        pipe.execute()

    def _verdict(self, reply: Reply, partition: int, generation: int) -> None:
        if reply[0] == b"FENCED":
            raise fenced(partition, generation, int(reply[1]))

    def _get(self, partition: int, name: str) -> bytes | None:
        value: Reply = self._client.get(self._key(partition, name))
        return None if value is None else bytes(value)

    def _key(self, partition: int, name: str) -> str:
        return f"{self._prefix}:{{cp:{self._scope}:{partition}}}:{name}"

    def _meta_key(self) -> str:
        return f"{self._prefix}:{{cp:{self._scope}}}:meta"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            what = remedy(error)
            if what is None:
                raise
            down = StoreDown(
                f"checkpoints in Redis at {self._place}: {what} ({type(error).__name__}). "
                "The checkpoint before it is intact"
            )
            down.redis_use = "checkpoint"
            raise down from error


def _blob(ref: BlobRef) -> str:
    return f"blob:{ref.digest}"
