"""One fault of ``chaos.py`` in CI: the whole of it is a command that takes a quarter of an hour."""

from __future__ import annotations

import random

import chaos
import pytest
from chaos import Trial
from chaos_faults import FAULTS
from chaos_stores import checkpoint_cut
from members import groups, log

pytestmark = [pytest.mark.apache_kafka, pytest.mark.redis7, pytest.mark.slow]


def test_a_checkpoint_cut_in_half_costs_no_alert(apache_kafka, redis_url, tmp_path, monkeypatch):
    assert checkpoint_cut in FAULTS
    # a day, not the day and a half of the command: 17,000 requests of 31,000
    monkeypatch.setattr(chaos, "the_log", lambda: log(60, 1.0, 7, 60.0))
    with groups(apache_kafka.bootstrap, redis_url, tmp_path) as make:
        trial = Trial("checkpoint_cut", apache_kafka, None, make, tmp_path, random.Random(1), print)
        checkpoint_cut(trial)
        result = trial.result()
    assert result.revisions > 100
    assert result.well, result
