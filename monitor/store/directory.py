"""Checkpoints in a directory that all replicas share. Knows no Kafka and no Redis.

::

    ROOT/<topic and group>/meta.json
    ROOT/<topic and group>/p-00012/{manifest, previous, fence, lock}
    ROOT/<topic and group>/p-00012/blobs/<sha256>

Every file is written beside its place, synced, renamed, and its directory synced: a reader, and a machine
that lost power, sees the old or the new one. ``flock`` is held only while the fence is compared and the
manifest replaced, never while blobs are written, so a stopped process can hold it for milliseconds only;
a wait of more than ``lock_timeout_s`` is an error that names the file. The directory must give POSIX renames
and locks between its hosts: a local disk, NFSv4, CephFS, EFS; not SMB, not an S3 mount.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from monitor.errors import MonitorError
from monitor.records import Checkpoint
from monitor.store.checkpoints import Report, fenced, log_report
from monitor.store.manifest import (
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

_REMEDY: dict[int, str] = {
    errno.ENOSPC: "the disk is full: free space or enlarge it",
    errno.EDQUOT: "the disk quota is used up: raise it or free space",
    errno.EFBIG: "a file would exceed the allowed size: raise the process's file size limit (ulimit -f)",
    errno.EROFS: "the file system is read-only: mount it read-write",
    errno.EACCES: "the directory may not be written: give its ownership to the user that the monitor runs as",
    errno.EPERM: "the directory may not be written: give its ownership to the user that the monitor runs as",
    errno.ENOTDIR: "a file is where a directory belongs: move it away",
    errno.EIO: "the disk reports an error: check it, then start again",
    errno.ESTALE: "the network file system lost the directory: mount it again",
}
_counter = itertools.count()
_TOKEN = secrets.token_hex(4)  # process ids repeat between containers: all of them are 1


class DirectoryStore:
    """See :class:`~monitor.store.checkpoints.CheckpointStore`; ``scope`` names topic and consumer group."""

    def __init__(
        self, root: Path | str, scope: str = "default", *, report: Report = log_report, lock_timeout_s: float = 10.0
    ):
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", scope).strip(".-")[:80]
        self.path = Path(root) / f"{slug}-{digest(scope.encode())[:8]}"
        self._report = report
        self._lock_timeout_s = lock_timeout_s
        self._base: dict[int, Manifest] = {}

    def claim(self, partition: int, generation: int) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        folder = self._folder(partition)
        with self._explained("written"):
            (folder / "blobs").mkdir(parents=True, exist_ok=True)
            with self._locked(folder):
                self._check(folder, partition, generation)
                _replace(folder / "fence", seal(generation))
        self._base.pop(partition, None)

    def load(self, partition: int) -> Checkpoint | None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        folder = self._folder(partition)
        with self._explained("read"):
            found = restore(
                partition,
                lambda: [
                    (name, data)
                    for name, file in (("last", "manifest"), ("previous", "previous"))
                    if (data := _read(folder / file)) is not None
                ],
                lambda ref: _read(folder / "blobs" / ref.digest),
                self._report,
            )
        if found is None:
            return None
        self._base[partition] = found[1]
        return found[0]

    def save(self, checkpoint: Checkpoint) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        partition = checkpoint.partition
        folder = self._folder(partition)
        blobs_folder = folder / "blobs"
        with self._explained("written"):
            blobs_folder.mkdir(parents=True, exist_ok=True)
            self._check(folder, partition, checkpoint.generation)  # a member that is out writes no blob either
            base = self._base.get(partition) or read_manifest(_read(folder / "manifest"))
            manifest, blobs = plan(checkpoint, base)
            for name, blob in blobs.items():
                _put_blob(blobs_folder / name, blob)
            if blobs:
                _sync(blobs_folder)
            with self._locked(folder):
                self._check(folder, partition, checkpoint.generation)
                for ref in manifest.refs():
                    if not _has_size(blobs_folder / ref.digest, ref.size):
                        raise Incomplete(
                            f"partition {partition}: blob {ref.digest[:12]} is gone: write a full checkpoint"
                        )
                if base is not None:
                    # `base` was verified or written by us; what lies in `manifest` may be the damaged one.
                    _replace(folder / "previous", seal(base))
                _replace(folder / "manifest", seal(manifest))
                live = {ref.digest for kept in (manifest, base) if kept is not None for ref in kept.refs()}
                _collect(blobs_folder, live)
        self._base[partition] = manifest

    def partitions(self) -> list[int]:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained("read"):
            return sorted(int(path.parent.name[2:]) for path in self.path.glob("p-*/manifest"))

    def unfence(self, partition: int) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        folder = self._folder(partition)
        if not folder.is_dir():
            return
        with self._explained("written"), self._locked(folder):
            for name in ("manifest", "previous"):
                manifest = read_manifest(_read(folder / name))
                if manifest is not None:
                    _replace(folder / name, seal(msgspec.structs.replace(manifest, generation=-1)))
            (folder / "fence").unlink(missing_ok=True)
        self._base.pop(partition, None)

    def put_meta(self, meta: Mapping[str, Any]) -> None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained("written"):
            self.path.mkdir(parents=True, exist_ok=True)
            _replace(self.path / "meta.json", seal(dict(meta)))

    def get_meta(self) -> dict[str, Any] | None:
        """See :class:`~monitor.store.checkpoints.CheckpointStore`."""
        with self._explained("read"):
            data = _read(self.path / "meta.json")
        if data is None:
            return None
        body = unseal(data)
        if body is None:
            raise StoreDown(f"{self.path / 'meta.json'} is damaged: restore it from a backup or remove it")
        return msgspec.json.decode(body, type=dict[str, Any])

    def _folder(self, partition: int) -> Path:
        return self.path / f"p-{partition:05d}"

    def _check(self, folder: Path, partition: int, generation: int) -> None:
        data = _read(folder / "fence")
        body = unseal(data) if data is not None else None
        if data is not None and body is None:
            self._report(f"partition {partition}: the fence file is damaged; the manifest's generation stands in")
        fence = msgspec.json.decode(body, type=int) if body is not None else -1
        manifest = read_manifest(_read(folder / "manifest"))
        fence = max(fence, manifest.generation if manifest is not None else -1)
        if generation < fence:
            raise fenced(partition, generation, fence)

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            deadline = time.monotonic() + self._lock_timeout_s
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise StoreDown(
                            f"{folder / 'lock'} has been held for {self._lock_timeout_s:g} s: a monitor is stopped "
                            "or its disk hangs; end that process"
                        ) from None
                    time.sleep(0.01)
            yield
        finally:
            os.close(handle)  # gives the lock up as well

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            code = error.errno or 0
            remedy = _REMEDY.get(code, "check the directory and its file system")
            raise StoreDown(
                f"the checkpoint in {self.path} can't be {verb} ({os.strerror(code)}): {remedy}. "
                "The checkpoint before it is intact"
            ) from error


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: Path, data: bytes) -> None:
    """Write beside, sync, rename, sync the directory."""
    _write(path, data)
    _sync(path.parent)


def _write(path: Path, data: bytes) -> None:
    beside = path.parent / f".tmp-{os.getpid()}-{_TOKEN}-{next(_counter)}"
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)  # account ids: not for all
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _put_blob(path: Path, blob: bytes) -> None:
    """Idempotent by content; a damaged file of that name is healed. Raises MonitorError where it can't stay."""
    held = _read(path) if _has_size(path, len(blob)) else None
    if held is not None and digest(held) == path.name:
        return
    for _ in range(3):
        try:
            _write(path, blob)
            return
        except FileNotFoundError:
            continue  # the collector of another writer took the file beside: the fence will tell who is out
    raise MonitorError(f"{path.parent}: another process keeps removing files here: give each group its own directory")


def _collect(folder: Path, live: set[str]) -> None:
    """Remove blobs that no manifest names, and what crashed writers left beside them."""
    own = f".tmp-{os.getpid()}-{_TOKEN}-"
    for entry in os.scandir(folder):
        if entry.name not in live and not entry.name.startswith(own):
            Path(entry.path).unlink(missing_ok=True)
