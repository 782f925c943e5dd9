"""The service against Apache Kafka and Redis, its members killed from outside: nothing lost, nothing twice.

``kill_many.py`` beside this file does the same with 30 kills.
"""

from __future__ import annotations

import json

import pytest
from kills import Kills, difference
from members import PARTITIONS, SESSION_S, STEPS, groups, log, produce, undisturbed, wait_for

from monitor.offline import backtest_files
from monitor.settings import Settings

pytestmark = [pytest.mark.apache_kafka, pytest.mark.redis7, pytest.mark.slow]


@pytest.fixture
def make(apache_kafka, redis_url, tmp_path):
    with groups(apache_kafka.bootstrap, redis_url, tmp_path) as made:
        yield made


def test_an_undisturbed_run_raises_alerts_once_and_counts_every_request(make):
    found, counts = undisturbed(make)
    assert len({alert_id for alert_id, _, _ in found}) >= 5
    assert difference(found, found) == {"lost": 0, "unexpected": 0, "twice": 0}
    revisions = {}
    for alert_id, revision, _ in found:
        revisions.setdefault(alert_id, []).append(revision)
    assert all(seen == list(range(1, len(seen) + 1)) for seen in revisions.values())
    assert counts["events"] == counts["in_rows"] == len(log())


def test_killed_in_every_step_it_raises_the_same_alerts(make):
    expected, _ = undisturbed(make)
    group = make(max_poll_records=500)
    kills = Kills(seed=1, aimed_every=1)
    last = kills.run(group, log(), 5)
    print(kills.hits)
    assert difference(expected, group.alerts()) == {"lost": 0, "unexpected": 0, "twice": 0}, kills.hits
    assert set(kills.hits) <= {*STEPS}
    assert last.counts["in_rows"] == len(log())


def test_the_check_sees_offsets_that_are_written_before_the_state(make):
    expected, _ = undisturbed(make)
    group = make()
    kills = Kills(seed=1, aimed_every=1, aims=("committed",), defect="swapped")
    last = kills.run(group, log(), 2)
    assert difference(expected, group.alerts())["lost"] > 0
    assert last.counts["in_rows"] < len(log())


def test_a_backtest_with_as_many_partitions_raises_the_same_alerts(make, tmp_path):
    expected, _ = undisturbed(make)
    path = tmp_path / "log.ndjson"
    path.write_bytes(b"\n".join(value for _, value, _ in log()) + b"\n")
    settings = Settings.model_validate({"keys": {"ring": [{"id": "k1", "secret": "0123456789abcdef0123456789abcdef"}]}})
    backtest_files([path], tmp_path / "alerts.ndjson", settings=settings, partitions=PARTITIONS)
    lines = [json.loads(line) for line in (tmp_path / "alerts.ndjson").read_bytes().splitlines()]
    told = {(a["alert_id"], a["revision"]): a for a in lines}
    assert told == {(alert_id, revision): json.loads(body) for alert_id, revision, body in expected}


def test_two_replicas_share_the_work_and_one_takes_over_from_the_other(make):
    expected, _ = undisturbed(make)
    group, third = make(max_poll_records=500), len(log()) // 3
    first, second = group.start(), group.start()
    assert wait_for(lambda: sorted(group.owned().values()) == [2, 2], every_s=0.3), group.owned()
    produce(group.bootstrap, group.topic, log()[:third])
    assert wait_for(lambda: "committed" in first.steps and "committed" in second.steps)
    produce(group.bootstrap, group.topic, log()[third : 2 * third])

    second.kill()
    killed = _seconds(lambda: first.metric("abusemon_partitions_assigned") == PARTITIONS)
    print(f"takeover after SIGKILL: {killed:.1f} s (session timeout {SESSION_S:.0f} s)")
    assert killed < SESSION_S + 6

    again = group.start()
    assert wait_for(lambda: sorted(group.owned().values()) == [2, 2], every_s=0.3), group.owned()
    produce(group.bootstrap, group.topic, log()[2 * third :])
    assert first.terminate() == 0, "it drains within the grace period"
    drained = _seconds(lambda: again.metric("abusemon_partitions_assigned") == PARTITIONS)
    print(f"handed over {drained:.1f} s after SIGTERM's drain")
    assert drained < SESSION_S, "a member that leaves is not waited for"

    group.finish.touch()
    again.end()
    assert difference(expected, group.alerts()) == {"lost": 0, "unexpected": 0, "twice": 0}


def _seconds(condition):
    import time

    begun = time.monotonic()
    assert wait_for(condition, every_s=0.1)
    return time.monotonic() - begun
