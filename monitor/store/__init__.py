"""What outlives a process: checkpoints (directory, Redis, object store, memory) and alerts in Redis.

The only package that imports redis and obstore. It knows no stage: alerts come as ``records.Alert``, state as blobs.
"""

from monitor.store.checkpoints import CheckpointStore, MemoryStore, require_shape
from monitor.store.directory import DirectoryStore
from monitor.store.manifest import Damaged, Incomplete, StoreDown
from monitor.store.objects import object_store

__all__ = [
    "CheckpointStore",
    "Damaged",
    "DirectoryStore",
    "Incomplete",
    "MemoryStore",
    "StoreDown",
    "object_store",
    "require_shape",
]
