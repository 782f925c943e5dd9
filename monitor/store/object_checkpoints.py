"""Checkpoints in an object store: S3 and what speaks like it, Google Cloud Storage, Azure. Imports obstore.

::

    PREFIX/<topic and group>/meta.json
    PREFIX/<topic and group>/p-00012/head                     fence, names of the last manifest and of the one before
    PREFIX/<topic and group>/p-00012/manifests/<name>
    PREFIX/<topic and group>/p-00012/blobs/<sha256>/<name>

Such a store has no lock, no rename and no transaction, but it writes one object on the condition that nobody wrote it
since it was read (``If-Match``; ``If-None-Match`` where there was none). So one object decides: ``head``. A save reads
it, uploads blobs and manifest under names that nobody used before, and replaces ``head`` on that condition. Where a
newer member has claimed meanwhile, the store refuses, whatever the older one believes and however long it slept. Killed
before that write, the last checkpoint is in force and some objects lie about; the next save collects them.

Each name is random, also the one in ``head``: an S3 tag is a hash of the content, and content that came back would let
an old condition hold again. And what a stopped process still wants to delete can't be what another wrote since.

A save is 10 requests in five rounds: some 100 ms a partition where a request takes 20 ms. ``every_s`` of minutes
suits it better than one of seconds. A store that ignores the conditions would fence nobody: the first claim tries.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from monitor.errors import BadInput, MonitorError, Problem
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

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode, UpdateVersion
    from obstore.store import ObjectStore

_ATTEMPTS = 10
_UPLOADS = 8
_TIMEOUT_S = 30
"""Seconds for one request; a blob over 5 MiB is several."""
_RETRY_S = 5
"""Seconds in which a failed request is sent again: the loop that calls us must go on polling."""


class _Head(msgspec.Struct, frozen=True):
    fence: int = -1
    last: str | None = None
    previous: str | None = None
    nonce: str = ""


def open_url(url: str, endpoint: str | None = None) -> ObjectStore:
    """A client for ``s3://``, ``gs://`` or ``az://``; ``endpoint`` is the address of another S3-compatible server.

    Credentials, region and the like come from the environment (``AWS_*``, ``GOOGLE_*``, ``AZURE_*``) or from the host's
    role. Nothing is sent yet. BadInput where the URL or the environment will not do.
    """
    extra: dict[str, Any] = {"endpoint": endpoint} if endpoint is not None else {}
    plain = endpoint is not None and endpoint.startswith("http://")
    try:
        return from_url(
            url,
            client_options={"timeout": timedelta(seconds=_TIMEOUT_S), "allow_http": plain},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=_RETRY_S)},
            **extra,
        )
    except (BaseError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise BadInput([Problem("checkpoint", 0, f"{url}: {said}", "url")]) from error


class ObjectCheckpointStore:
    """See :class:`~monitor.store.checkpoints.CheckpointStore`; ``scope`` names topic and consumer group."""

    def __init__(self, objects: ObjectStore, scope: str = "default", *, place: str = "", report: Report = log_report):
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", scope).strip(".-")[:80]
        self._root = f"{slug}-{digest(scope.encode())[:8]}"
        self._objects = objects
        self._place = place or "the object store"
        self._report = report
        self._base: dict[int, tuple[str, Manifest]] = {}
        self._token = secrets.token_hex(8)
        self._count = itertools.count()
        self._pool = ThreadPoolExecutor(_UPLOADS, thread_name_prefix="objects")
        self._tried = False

    def claim(self, partition: int, generation: int) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained():
            if not self._tried:
                self.require_conditions()
            self._refence(partition, generation, check=True)
        self._base.pop(partition, None)

    def load(self, partition: int) -> Checkpoint | None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        names: dict[bytes, str] = {}
        copies: dict[str, dict[str, int]] = {}

        def read() -> list[tuple[str, bytes]]:
            head, _ = self._head(partition)
            copies.clear()
            copies.update(_copies(self._list(partition)))
            found = []
            for label, name in (("last", head.last), ("previous", head.previous)):
                if name is not None:
                    data = self._get(name) or b""
                    names[data] = name
                    found.append((label, data))
            return found

        def fetch(ref: BlobRef) -> bytes | None:
            data = None
            for name in copies.get(ref.digest, ()):
                data = self._get(name)
                if data is not None and digest(data) == ref.digest:
                    break
            return data

        with self._explained():
            found = restore(partition, read, fetch, self._report)
        if found is None:
            return None
        name = next(name for data, name in names.items() if read_manifest(data) == found[1])
        self._base[partition] = name, found[1]
        return found[0]

    def save(self, checkpoint: Checkpoint) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained():
            for _ in range(_ATTEMPTS):
                if self._save(checkpoint):
                    return
        raise self._contended(checkpoint.partition)

    def _save(self, checkpoint: Checkpoint) -> bool:
        """One attempt; False where somebody else wrote ``head`` meanwhile."""
        partition = checkpoint.partition
        head, version = self._head(partition)
        if checkpoint.generation < head.fence:  # a member that is out uploads nothing either
            raise fenced(partition, checkpoint.generation, head.fence)
        listed = self._list(partition)  # before `head` is written: nothing of a later owner is in it
        copies = _copies(listed)
        base = self._base.get(partition) or self._named(head.last)
        manifest, blobs = plan(checkpoint, base[1] if base is not None else None)
        kept = base[1].refs() if base is not None else set[BlobRef]()
        there = {ref.digest for ref in kept if ref.size in copies.get(ref.digest, {}).values()}
        for ref in manifest.refs():
            if ref.digest not in blobs and ref.digest not in there:
                raise Incomplete(f"partition {partition}: blob {ref.digest[:12]} is gone: write a full checkpoint")
        new = {name: blob for name, blob in blobs.items() if name not in there}
        folder, own = self._folder(partition), self._name()
        manifest_name = f"{folder}/manifests/{own}"
        uploads = {f"{folder}/blobs/{name}/{own}": blob for name, blob in new.items()}
        uploads[manifest_name] = seal(manifest)
        self._upload(uploads)
        following = _Head(checkpoint.generation, manifest_name, base[0] if base is not None else None, own)
        if not self._swap(partition, following, version):
            return False
        self._base[partition] = manifest_name, manifest
        live = {ref.digest for ref in manifest.refs() | kept} - set(new)
        self._collect(
            name
            for name in listed
            if ("/manifests/" in name and name != following.previous)
            or ("/blobs/" in name and _digest_of(name) not in live)
        )
        return True

    def partitions(self) -> list[int]:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained():
            found = obstore.list_with_delimiter(self._objects, f"{self._root}/")
            numbers = [int(prefix.rstrip("/").rsplit("p-", 1)[1]) for prefix in found["common_prefixes"]]
            return sorted(p for p in numbers if self._head(p)[0].last is not None)

    def unfence(self, partition: int) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained():
            if self._head(partition)[1] is not None:
                self._refence(partition, -1, check=False)
        self._base.pop(partition, None)

    def put_meta(self, meta: Mapping[str, Any]) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained():
            obstore.put(self._objects, f"{self._root}/meta.json", seal(dict(meta)))

    def get_meta(self) -> dict[str, Any] | None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained():
            data = self._get(f"{self._root}/meta.json")
        if data is None:
            return None
        body = unseal(data)
        if body is None:
            raise StoreDown(f"meta.json under {self._root} in {self._place} is damaged: restore or remove it")
        return msgspec.json.decode(body, type=dict[str, Any])

    def require_conditions(self) -> None:
        """Raises MonitorError where the store writes although a condition does not hold; five requests, once."""
        path = f"{self._root}/probe-{self._name()}"
        with self._explained():
            obstore.put(self._objects, path, b"1", mode="create")
            try:
                stale = _condition(obstore.head(self._objects, path))
                obstore.put(self._objects, path, b"2", use_multipart=False)
                for mode in ("create", stale):
                    with contextlib.suppress(AlreadyExistsError, PreconditionError):
                        obstore.put(self._objects, path, b"3", mode=mode, use_multipart=False)
                        raise _no_conditions(self._place)
            finally:
                obstore.delete(self._objects, [path])
        self._tried = True

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True)

    # ------------------------------------------------------------------------------------------------- inside

    def _refence(self, partition: int, fence: int, *, check: bool) -> None:
        for _ in range(_ATTEMPTS):
            head, version = self._head(partition)
            if check and fence < head.fence:
                raise fenced(partition, fence, head.fence)
            following = msgspec.structs.replace(head, fence=fence, nonce=self._name())
            if self._swap(partition, following, version):
                return
        raise self._contended(partition)

    def _head(self, partition: int) -> tuple[_Head, UpdateVersion | None]:
        """What is in force, and the condition for replacing it; None: there is none yet."""
        try:
            got = obstore.get(self._objects, f"{self._folder(partition)}/head")
        except FileNotFoundError:
            return _Head(), None
        version = _condition(got.meta)
        body = unseal(bytes(got.bytes()))
        if body is not None:
            return msgspec.json.decode(body, type=_Head), version
        self._report(f"partition {partition}: the head is damaged; the manifests that are there stand in for it")
        found = [held for name in self._list(partition) if "/manifests/" in name and (held := self._named(name))]
        found.sort(key=lambda held: (held[1].generation, held[1].next_offset), reverse=True)
        names = [name for name, _ in found]
        fence = found[0][1].generation if found else -1
        return _Head(fence, names[0] if names else None, names[1] if names[1:] else None), version

    def _swap(self, partition: int, head: _Head, version: UpdateVersion | None) -> bool:
        """Replace the head on the condition that it is still the one that was read."""
        mode: PutMode = version if version is not None else "create"
        try:
            obstore.put(
                self._objects, f"{self._folder(partition)}/head", seal(head), mode=mode, use_multipart=False
            )  # fmt: skip
        except (AlreadyExistsError, PreconditionError):
            # Or our own write stands in the way: obstore sends again what was not answered. Doing all of it once more
            # gives the same.
            return False
        return True

    def _upload(self, objects: Mapping[str, bytes]) -> None:
        work = [self._pool.submit(obstore.put, self._objects, name, data) for name, data in objects.items()]
        for done in work:
            done.result()

    def _collect(self, names: Iterable[str]) -> None:
        """Delete what nobody needs. Failing at it harms nobody: the next save finds the same again."""
        gone = list(names)
        if gone:
            with contextlib.suppress(BaseError, OSError):
                obstore.delete(self._objects, gone)

    def _named(self, name: str | None) -> tuple[str, Manifest] | None:
        manifest = read_manifest(self._get(name)) if name is not None else None
        return (name, manifest) if name is not None and manifest is not None else None

    def _get(self, name: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._objects, name).bytes())
        except FileNotFoundError:
            return None

    def _list(self, partition: int) -> dict[str, int]:
        """Name -> size of every object of the partition."""
        found = obstore.list(self._objects, f"{self._folder(partition)}/", chunk_size=1_000)
        return {item["path"]: item["size"] for chunk in found for item in chunk}

    def _folder(self, partition: int) -> str:
        return f"{self._root}/p-{partition:05d}"

    def _name(self) -> str:
        return f"{self._token}-{next(self._count)}"

    def _contended(self, partition: int) -> StoreDown:
        return StoreDown(
            f"partition {partition}: its head in {self._place} changed {_ATTEMPTS} times while it was being written: "
            "do two groups share this prefix?"
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (NotSupportedError, NotImplementedError) as error:
            raise _no_conditions(self._place) from error
        except (BaseError, OSError) as error:
            # The text of the error may quote the request; a signature or a key id is no business of a log.
            raise StoreDown(
                f"checkpoints in {self._place}: {_remedy(error)} ({type(error).__name__}). "
                "The checkpoint before it is intact"
            ) from None


def _condition(meta: ObjectMeta) -> UpdateVersion:
    """What to demand of the object when it is replaced: S3 and Azure go by the tag, Google by the version."""
    condition: UpdateVersion = {}
    if meta["e_tag"] is not None:
        condition["e_tag"] = meta["e_tag"]
    if meta["version"] is not None:
        condition["version"] = meta["version"]
    return condition


def _copies(listed: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Digest -> the objects that hold that blob, with their sizes."""
    found: dict[str, dict[str, int]] = {}
    for name, size in listed.items():
        if "/blobs/" in name:
            found.setdefault(_digest_of(name), {})[name] = size
    return found


def _digest_of(name: str) -> str:
    return name.rsplit("/", 2)[1]


def _no_conditions(place: str) -> MonitorError:
    return MonitorError(
        f"{place} does not honour conditional writes (If-Match, If-None-Match), so two members could write one "
        "partition: use a store that does (S3, GCS, Azure, a recent MinIO or Ceph), or checkpoint.store: directory"
    )


def _remedy(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "the bucket or container does not exist: create it, or correct checkpoint.url"
    if isinstance(error, (PermissionDeniedError, PermissionError)):
        return "access is denied: give this role get, put, list and delete below the prefix of checkpoint.url"
    if isinstance(error, UnauthenticatedError):
        return "it refuses our credentials: set those of the environment (AWS_*, GOOGLE_*, AZURE_*) or the host's role"
    return "it can't be reached or fails: check the address, the region and the credentials in the environment"
