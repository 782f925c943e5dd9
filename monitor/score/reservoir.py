"""A bounded, deterministic sample that leans to the recent: the smallest keys of forward decay. Knows no model.

Each row gets the key ``ln(-ln u) - lambda t`` with u from its hash and t its event time; keeping the k smallest is
weighted sampling without replacement with weight exp(lambda t) (Efraimidis and Spirakis 2006; forward decay:
Cormode, Shkapenyuk, Srivastava and Xu 2009). What is kept depends on the set of rows alone: not on their order,
not on how they were cut, not on a clock, and two samples merge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.score.blob import BadBlob

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


def decay_key(hashed: U64, time_s: I64, half_life_s: float) -> F64:
    """Priority of a row, small is kept: from its hash and event time in seconds. The weight of a row halves every
    ``half_life_s``. Rounded to 1e-9, so that the last bit of a logarithm decides nothing."""
    u = (hashed.astype(np.float64) + 0.5) / 2.0**64
    u = np.clip(u, 2.0**-64, 1.0 - 2.0**-53)
    key: F64 = np.round(np.log(-np.log(u)) - time_s * (math.log(2.0) / half_life_s), 9)
    return key


class Reservoir:
    """At most ``capacity`` rows of ``width`` float32, with the 64-bit hash of each row's subject.

    ``marks`` [rows, columns] holds what the owner derives from each row and would not derive again at every
    boundary (1,024 rows in 8 models take 2 ms); it is not saved.

    The order of rows inside means nothing. A subject may hold several; :meth:`drop` takes all of them out.
    """

    def __init__(self, capacity: int, width: int, marks: int = 0):
        self.capacity, self.width = capacity, width
        self.key = np.empty(0, np.float64)
        self.subject = np.empty(0, np.uint64)
        self.rows = np.empty((0, width), np.float32)
        self.marks = np.empty((0, marks))

    def __len__(self) -> int:
        return len(self.key)

    def add(self, key: F64, subject: U64, rows: F32, marks: F64 | None = None) -> None:
        """Offer rows."""
        marks = np.empty((len(key), 0)) if marks is None else marks
        if len(self.key) >= self.capacity:  # most offers of a full reservoir are refused: ask before sorting
            wanted = key <= self.key.max()
            key, subject, rows, marks = key[wanted], subject[wanted], rows[wanted], marks[wanted]
        if not len(key):
            return
        held, over = len(self.key), max(0, len(self.key) + len(key) - self.capacity)
        if over:
            # A newcomer takes the place of what it drives out: moving 1,024 rows costs ten times as much.
            order = np.lexsort((np.concatenate((self.subject, subject)), np.concatenate((self.key, key))))
            leaving = order[len(order) - over :]
            free = np.sort(leaving[leaving < held])
            entering = np.setdiff1d(np.arange(len(key)), leaving[leaving >= held] - held)
            into = entering[: len(free)]
            self.key[free], self.subject[free] = key[into], subject[into]
            self.rows[free], self.marks[free] = rows[into], marks[into]
            rest = entering[len(free) :]
            key, subject, rows, marks = key[rest], subject[rest], rows[rest], marks[rest]
        if len(key):
            self.key, self.subject = np.concatenate((self.key, key)), np.concatenate((self.subject, subject))
            self.rows, self.marks = np.concatenate((self.rows, rows)), np.concatenate((self.marks, marks))

    def drop(self, subjects: U64) -> int:
        """Take the rows of these subjects out (sorted hashes); how many there were."""
        if not len(self.key) or not len(subjects):
            return 0
        keep = ~member(self.subject, subjects)
        gone = len(keep) - int(keep.sum())
        if gone:
            self.key, self.subject = self.key[keep], self.subject[keep]
            self.rows, self.marks = self.rows[keep], self.marks[keep]
        return gone

    def dump(self) -> dict[str, Any]:
        """Plain arrays for :func:`monitor.score.blob.pack`."""
        return {"key": self.key, "subject": self.subject, "rows": self.rows}

    def load(self, body: Mapping[str, Any]) -> None:
        """Replace the contents by what :meth:`dump` gave; marks are NaN. Raises BadBlob."""
        key, subject, rows = body.get("key"), body.get("subject"), body.get("rows")
        if (
            not isinstance(key, np.ndarray)
            or not isinstance(subject, np.ndarray)
            or not isinstance(rows, np.ndarray)
            or rows.shape != (len(key), self.width)
            or len(subject) != len(key)
        ):
            raise BadBlob("a sample of another width")
        self.key, self.subject, self.rows = key[: self.capacity], subject[: self.capacity], rows[: self.capacity]
        self.marks = np.full((len(self.key), self.marks.shape[1]), np.nan)


def member(values: U64, of: U64) -> npt.NDArray[np.bool_]:
    """Which ``values`` are in the sorted array ``of``."""
    if not len(of):
        return np.zeros(len(values), np.bool_)
    at = np.minimum(np.searchsorted(of, values), len(of) - 1)
    found: npt.NDArray[np.bool_] = of[at] == values
    return found
