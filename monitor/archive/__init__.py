"""What every account did on each day, in a row without text: for a hunt weeks later. Off unless a folder is named."""

from .read import days_of, forget, scan
from .reads import LAYOUT, Reads, layout_of
from .rows import SCHEMA, SCORES, combined, key_of, kind_of
from .write import Archive

__all__ = [
    "LAYOUT", "SCHEMA", "SCORES", "Archive", "Reads", "combined", "days_of", "forget", "key_of", "kind_of", "layout_of",
    "scan",
]  # fmt: skip
