"""What outlives a process: checkpoints (directory, Redis, memory) and alerts in Redis.

The only package that imports redis. It knows no stage: alerts come as ``records.Alert``, state as blobs.
"""

from monitor.store.checkpoints import CheckpointStore, MemoryStore, require_shape
from monitor.store.directory import DirectoryStore
from monitor.store.manifest import Damaged, Incomplete, StoreDown

__all__ = [
    "CheckpointStore",
    "Damaged",
    "DirectoryStore",
    "Incomplete",
    "MemoryStore",
    "StoreDown",
    "require_shape",
]
