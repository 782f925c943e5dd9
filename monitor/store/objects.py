"""The way to an object store, for a process that may lack obstore: it is an extra, and 0.2 s of import."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from monitor.errors import BadInput, Problem
from monitor.settings import CheckpointSettings

if TYPE_CHECKING:
    from monitor.store.object_checkpoints import ObjectCheckpointStore


def object_store(settings: CheckpointSettings, scope: str) -> ObjectCheckpointStore:
    """The store of ``checkpoint.url``; nothing is sent yet. BadInput where it can't be had."""
    if find_spec("obstore") is None:
        remedy = "needs obstore: pip install 'api-abuse-monitor[objectstore]'"
        raise BadInput([Problem("checkpoint", 0, remedy, "store")])
    from monitor.store.object_checkpoints import ObjectCheckpointStore, open_url

    assert settings.url is not None  # checked by the settings
    return ObjectCheckpointStore(open_url(settings.url, settings.endpoint), scope, place=settings.url)
