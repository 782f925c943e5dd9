"""What is kept from batch to batch does not fall into a piece for each of them: an hour has tens of thousands."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import spine

from monitor import wiring
from monitor.archive.reads import Reads
from monitor.pieces import MOST, few
from monitor.records import REQUEST_SET
from monitor.rules.hold import Held, HoldState
from monitor.settings import Settings
from monitor.sketch import Keyring
from monitor.sketch.heavy import GramCounter

POLLS = 200


def in_pieces() -> Counter[str]:
    """Columns of each frame that lives and has many pieces. Other tests of this process may have left some."""
    gc.collect()
    alive = (o for o in gc.get_objects() if type(o) is pl.DataFrame)  # asked for its class, a dead proxy would raise
    return Counter(str(f.columns) for f in alive if f.width and f.n_chunks() > 2 * MOST)


def test_no_frame_of_a_pipeline_has_a_piece_for_each_batch(tmp_path: Path) -> None:
    settings = Settings.model_validate({"archive": {"path": str(tmp_path), "reads": True}})
    pipeline = wiring.pipeline(settings, keys=Keyring.from_seed(1), rules=wiring.load(settings))
    records = spine.world()
    before = in_pieces()
    size = len(records) // POLLS
    for poll in spine.polls(records, range(size, len(records), size)):
        pipeline.process(spine.batch(poll))  # and no end, which empties most of what is kept
    assert pipeline.observe.counts.rows > POLLS, "it did something with them"
    assert not in_pieces() - before


def test_idle_polls_leave_nothing_behind() -> None:
    def alive() -> int:
        gc.collect()
        return sum(type(o) is GramCounter for o in gc.get_objects())

    pipeline, records = spine.pipeline(), spine.world()[:600]
    before = alive()
    for poll in spine.polls(records, range(20, len(records), 20)):
        pipeline.prepare(spine.batch([]))
        pipeline.process(spine.batch(poll))
    assert 0 < alive() - before <= 4 * spine.PARTITIONS


def test_no_run_of_a_rule_is_a_piece_of_its_own() -> None:
    before, state = in_pieces(), HoldState()
    for tick in range(POLLS):
        rows = pl.DataFrame({"partition": [0], "subject": [f"acct_{tick}"], "tick": [tick]}, schema_overrides=_KEYS)
        state.advance(rows, {"rule": Held(np.ones(1, np.bool_), 60_000)})
    assert len(state) == POLLS
    assert not in_pieces() - before


def test_what_waits_for_its_step_to_close_is_no_piece_for_each_batch(tmp_path: Path) -> None:
    before, reads = in_pieces(), Reads(tmp_path, 600_000, (), "layout")
    for batch in range(POLLS):
        late = {"partition": 1, "subject": f"acct_{batch}", "t_ms": 600_000 * 2 * POLLS, REQUEST_SET: b"set"}
        reads.take(pl.DataFrame([{**late, "partition": 0, "t_ms": 600_000 * (batch + 1)}, late]))
        reads.put({0: batch, 1: batch})
    assert list(tmp_path.rglob("*.parquet")), "what closed was written"
    assert not in_pieces() - before


_KEYS = {"partition": pl.Int32()}


def test_few_pieces_are_the_same_rows() -> None:
    one = pl.DataFrame({"n": [1, 2], "s": ["a", "b"]})
    many = pl.concat([one] * (MOST + 1))
    assert many.n_chunks() == MOST + 1, "or this shows nothing"
    assert few(many).n_chunks() == 1
    assert few(many).equals(many)
    assert few(one) is one
