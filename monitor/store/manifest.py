"""What a checkpoint store keeps: a manifest that names blobs by their hash. Knows no directory and no server.

A manifest is small and replaced whole; blobs are immutable and shared between manifests, so that a delta
writes only what is new. Both carry a SHA-256: half a write or a flipped bit is seen, never loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from monitor.errors import DependencyDown, MonitorError
from monitor.records import Checkpoint

FORMAT = 1
"""Version of the manifest. A store refuses one it does not know instead of guessing."""


_READS = 100
"""Times that a reader follows a writer who replaces manifests under it."""


class StoreDown(DependencyDown):
    """The store can't be read or written now. What was saved before is untouched."""


class Incomplete(MonitorError):
    """A delta builds on blobs that the store does not hold: write a full checkpoint (``keep`` empty)."""


class Damaged(MonitorError):
    """Neither the last checkpoint nor the one before it can be read back."""

    exit_code = 3


class BlobRef(msgspec.Struct, frozen=True, array_like=True):
    """A blob's SHA-256 (hex) and its length in bytes."""

    digest: str
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One partition's checkpoint, its blobs by reference, in the order they must be loaded."""

    format: int = FORMAT
    partition: int
    next_offset: int
    generation: int
    parts: dict[str, list[BlobRef]]
    meta: dict[str, Any]

    def refs(self) -> set[BlobRef]:
        """Every blob it stands on."""
        return {ref for refs in self.parts.values() for ref in refs}


def digest(blob: bytes) -> str:
    """Name of a blob: 64 hex digits."""
    return hashlib.sha256(blob).hexdigest()


def seal(value: object) -> bytes:
    """JSON with its own hash on the line before it."""
    body = msgspec.json.encode(value)
    return digest(body).encode() + b"\n" + body


def unseal(data: bytes) -> bytes | None:
    """The JSON that was sealed, or None where it is cut off or changed."""
    head, _, body = data.partition(b"\n")
    return body if head == digest(body).encode() else None


def read_manifest(data: bytes | None) -> Manifest | None:
    """The manifest, or None where there is none or it is damaged. Raises MonitorError on an unknown format."""
    body = unseal(data) if data is not None else None
    if body is None:
        return None
    version = msgspec.json.decode(body).get("format")
    if version != FORMAT:
        raise MonitorError(
            f"the checkpoint has format {version} and this version reads {FORMAT}: run the version that wrote it, "
            "or start with an empty checkpoint.path"
        )
    return msgspec.json.decode(body, type=Manifest)


def plan(checkpoint: Checkpoint, base: Manifest | None) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest of ``checkpoint`` on top of ``base``, and the new blobs by digest.

    Raises :class:`Incomplete` where ``keep`` asks for more blobs than ``base`` has.
    """
    parts: dict[str, list[BlobRef]] = {}
    blobs: dict[str, bytes] = {}
    for component in sorted({*checkpoint.parts, *checkpoint.keep}):
        wanted = checkpoint.keep.get(component, 0)
        held = base.parts.get(component, []) if base is not None else []
        if not 0 <= wanted <= len(held):
            raise Incomplete(
                f"partition {checkpoint.partition}: the delta of '{component}' keeps {wanted} blobs and the store "
                f"holds {len(held)}: write a full checkpoint"
            )
        refs = held[:wanted]
        for blob in checkpoint.parts.get(component, ()):
            name = digest(blob)
            blobs[name] = blob
            refs.append(BlobRef(name, len(blob)))
        parts[component] = refs
    manifest = Manifest(
        partition=checkpoint.partition,
        next_offset=checkpoint.next_offset,
        generation=checkpoint.generation,
        parts=parts,
        meta=dict(checkpoint.meta),
    )
    return manifest, blobs


def restore(
    partition: int,
    read: Callable[[], list[tuple[str, bytes]]],
    fetch: Callable[[BlobRef], bytes | None],
    report: Callable[[str], None],
) -> tuple[Checkpoint, Manifest] | None:
    """The first manifest whose blobs are all there and whole; each worse one is reported.

    ``read`` gives the sealed manifests that exist by name, the newest first; none at all gives None. Raises
    :class:`Damaged` where none can be read back. A reader beside a writer may find blobs collected under its
    hands: damage counts only where the manifests are the same afterwards.
    """
    held = read()
    for _ in range(_READS):
        found, findings = _first_whole(partition, held, fetch)
        if not findings:
            return found
        again = read()
        if again == held:
            break
        held = again
    for finding in findings:
        report(f"partition {partition}: {finding}")
    if found is None:
        raise Damaged(
            f"partition {partition}: neither the last checkpoint nor the one before it can be read back: restore "
            "the store from a backup, or remove this partition's checkpoint; the monitor then reads one window again"
        )
    return found


def _first_whole(
    partition: int, held: list[tuple[str, bytes]], fetch: Callable[[BlobRef], bytes | None]
) -> tuple[tuple[Checkpoint, Manifest] | None, list[str]]:
    findings: list[str] = []
    for name, data in held:
        manifest = read_manifest(data)
        if manifest is None:
            findings.append(f"the {name} manifest is damaged")
            continue
        parts: dict[str, list[bytes]] = {component: [] for component in manifest.parts}
        for component, ref in ((c, ref) for c, refs in manifest.parts.items() for ref in refs):
            blob = fetch(ref)
            if blob is None or len(blob) != ref.size or digest(blob) != ref.digest:
                findings.append(
                    f"blob {ref.digest[:12]} of '{component}' in the {name} checkpoint (offset "
                    f"{manifest.next_offset}) is {'missing' if blob is None else 'damaged'}"
                )
                break
            parts[component].append(blob)
        else:
            checkpoint = Checkpoint(partition, manifest.next_offset, manifest.generation, parts, meta=manifest.meta)
            return (checkpoint, manifest), findings
    return None, findings
