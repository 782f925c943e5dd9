"""Deterministic choice by hash: which rows are sampled, which subjects calibrate. No random numbers, no order.

A choice by hash does not depend on how the stream was cut, on the order of rows, or on which process sees them.
Subjects are ids that the provider gave; they are kept here as 64-bit hashes only.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from monitor.jit import njit, warmup

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_EPOCH = 0x9E3779B97F4A7C15
_TICK = 0xC2B2AE3D27D4EB4F
_SIDE = 0x165667B19E3779F9


@njit(inline="always")
def _mix(x: np.uint64) -> np.uint64:
    """Finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection, so distinct keys stay distinct."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit
def _hash_bytes(offsets: I64, body: npt.NDArray[np.uint8], seed: np.uint64, out: U64) -> None:
    """FNV-1a over each value, seeded and finalised; 20 ns for an id of 16 bytes."""
    for i in range(out.shape[0]):
        h = np.uint64(0xCBF29CE484222325) ^ seed
        for j in range(offsets[i], offsets[i + 1]):
            h = (h ^ np.uint64(body[j])) * np.uint64(0x100000001B3)
        out[i] = _mix(h)


@njit
def _row_keys(subject: U64, tick: I64, epoch: I64, by_epoch: U64, by_tick: U64) -> None:
    for i in range(subject.shape[0]):
        by_epoch[i] = _mix(subject[i] ^ (np.uint64(epoch[i]) * np.uint64(_EPOCH)))
        by_tick[i] = _mix(subject[i] ^ (np.uint64(tick[i]) * np.uint64(_TICK)))


def subject_keys(subjects: pl.Series | Collection[str], seed: int) -> U64:
    """A 64-bit hash of each subject (null hashes as the empty string). The same in every version and process."""
    series = subjects if isinstance(subjects, pl.Series) else pl.Series("subject", list(subjects), dtype=pl.String)
    out = np.zeros(len(series), np.uint64)
    if not len(series):
        return out
    arrow = series.fill_null("").rechunk().to_arrow().cast(pa.large_binary())
    _, offsets, body = arrow.buffers()
    starts = np.frombuffer(offsets, np.int64)[arrow.offset : arrow.offset + len(series) + 1]
    content = np.zeros(1, np.uint8) if body is None or not body.size else np.frombuffer(body, np.uint8)
    _hash_bytes(starts, content, np.uint64(seed), out)
    return out


def row_keys(subject: U64, tick: I64, epoch: I64) -> tuple[U64, U64]:
    """Two sampling keys a row: of the subject in its epoch (which subjects are kept: the smallest, whatever they
    send), and of the subject at its tick (which of a subject's rows stands for it)."""
    by_epoch, by_tick = np.empty_like(subject), np.empty_like(subject)
    _row_keys(subject, tick, epoch, by_epoch, by_tick)
    return by_epoch, by_tick


def calibrates(subject: U64) -> npt.NDArray[np.bool_]:
    """True for the third of all subjects that calibrate and never train: an account's rows are alike, so a row of
    a trained-on account would make a calibration set too tame."""
    with np.errstate(over="ignore"):
        chosen: npt.NDArray[np.bool_] = ((subject * np.uint64(_SIDE)) >> np.uint64(33)) % np.uint64(3) == 0
    return chosen


@warmup
def _warm() -> None:
    key = subject_keys(["a"], 1)
    row_keys(key, np.zeros(1, np.int64), np.zeros(1, np.int64))
