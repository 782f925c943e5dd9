"""Keyed sketches of one request: text and client-chosen strings in, hashes, counts and flags out.

Importing this package needs numpy and numba only, so that a gateway can strip text before it reaches a topic::

    from monitor.sketch import Keyring, Sketcher
    sketcher = Sketcher(Keyring.from_file(Path("keys.toml")))
    stripped = sketcher.sketch_one(event)

:mod:`monitor.sketch.frame` does the same for a decoded frame (polars), :mod:`monitor.sketch.lines` for JSON lines.
An event with its text and the same event with its sketch give the same row.
"""

from .corpora import Corpora, CorporaWatch, CorpusKey, load_corpora
from .generators import Generators, read_generators
from .kernel import Texts
from .keyring import Key, Keyring
from .residual import HeavyGrams
from .sketcher import Sketcher
from .vocabulary import LEXICON_FLAGS, SCRIPTS, SHAPE_NAMES, dequantise

__all__ = [
    "LEXICON_FLAGS", "SCRIPTS", "SHAPE_NAMES", "Corpora", "CorporaWatch", "CorpusKey", "Generators", "HeavyGrams",
    "Key", "Keyring", "Sketcher", "Texts", "dequantise", "load_corpora", "read_generators",
]  # fmt: skip
