"""A pass of campaign steps beside the next batch: nothing is lost where a store is away, nor said twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import spine
from campaign_world import FIRST, Act, blob, campaign, people

from monitor.beside import Beside
from monitor.campaigning import Campaigns
from monitor.campaigns import StepBlob
from monitor.errors import SinkBusy
from monitor.known import Known
from monitor.records import Alert
from monitor.store.links import MemoryLinkStore, Place

CUTS = (500, 900, 2_000, 2_100)


class Flaky(MemoryLinkStore):
    """Away when it is asked for steps for the ``fails``-th time."""

    def __init__(self, fails: int):
        super().__init__()
        self.asked, self._fails = 0, fails

    def steps(self, taken: dict[int, int], before: int) -> dict[int, list[Place]]:  # type: ignore[override]
        self.asked += 1
        if self.asked == self._fails:
            raise SinkBusy("the store is away", 0.0)
        return super().steps(taken, before)


def fed(store: MemoryLinkStore) -> Campaigns:
    """Three steps: a crowd, a campaign that turns up, and some more of it."""
    out = spine.pipeline().campaigns
    out.store = store
    acts: list[list[Act]] = [people(400) + campaign(12), campaign(12), campaign(14)]
    made = [blob(i, some) for i, some in enumerate(acts)]
    store.put([(b.step, b.partition, b) for b in made], {0: FIRST + 3})
    return out


def test_what_was_raised_before_the_store_went_away_comes_with_the_next_call() -> None:
    rules = spine.pipeline().rules
    expected = fed(MemoryLinkStore()).work(rules, Known())
    assert expected
    flaky = fed(Flaky(3))
    with pytest.raises(SinkBusy):
        flaky.work(rules, Known())
    assert flaky.work(rules, Known()) == expected
    assert flaky.work(rules, Known()) == []


class Gated(MemoryLinkStore):
    """Says when it is first asked for steps, and answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = threading.Event(), threading.Event()

    def steps(self, taken: Mapping[int, int], before: int) -> dict[int, list[Place]]:
        self.asked.set()
        assert self.go.wait(30)
        return super().steps(taken, before)


def test_what_is_published_while_steps_are_worked_changes_nothing_that_is_said() -> None:
    rules = spine.pipeline().rules
    whole = fed(MemoryLinkStore())
    expected = whole.work(rules, Known())
    at = [blob(i, some) for i, some in enumerate((people(400) + campaign(12), campaign(12), campaign(14)))]
    split = spine.pipeline().campaigns
    split.store = store = Gated()
    store.put([(b.step, b.partition, b) for b in at[:1]], {0: FIRST + 1})
    with Beside() as beside:
        beside.begin(lambda: split.work(rules, Known()))
        assert store.asked.wait(30)
        for b in at[1:]:
            store.put([(b.step, b.partition, b)], {0: b.step + 1})
        store.go.set()
        said = [*beside.result(), *split.work(rules, Known())]
    assert said == expected
    assert split.dump(0) == whole.dump(0)


def test_how_many_steps_wait_to_be_worked() -> None:
    campaigns = fed(MemoryLinkStore())
    campaigns.expect(0)
    assert campaigns.behind == 0, "no step was worked yet: the first may be any"
    campaigns.work(spine.pipeline().rules, Known())
    campaigns.close({0: (FIRST + 5) * campaigns.step_ms})
    assert campaigns.behind == 2


def test_a_pass_that_found_the_store_away_is_made_again() -> None:
    calls: list[int] = []

    def work() -> list[Alert]:
        calls.append(threading.get_ident())
        if len(calls) == 1:
            raise SinkBusy("away", 0.0)
        return []

    with Beside() as beside:
        assert beside.result() == ()
        beside.begin(work)
        with pytest.raises(SinkBusy):
            beside.result()
        assert beside.result() == []
        assert len(calls) == 2
        assert calls[0] != threading.get_ident()
        assert beside.result() == ()


def test_a_pass_that_failed_otherwise_is_over() -> None:
    def work() -> list[Alert]:
        raise ValueError("a defect")

    with Beside() as beside:
        beside.begin(work)
        with pytest.raises(ValueError, match="defect"):
            beside.result()
        assert beside.result() == ()


def test_what_is_forgotten_is_waited_for_and_not_said() -> None:
    go, done = threading.Event(), threading.Event()

    def work() -> list[Alert]:
        go.wait(10)
        done.set()
        return []

    with Beside() as beside:
        beside.begin(work)
        go.set()
        beside.forget()
        assert done.is_set()
        assert beside.result() == ()


def closing(campaigns: Campaigns, threads: ThreadPoolExecutor, passed: int) -> Callable[[], Future[None]]:
    return lambda: threads.submit(campaigns.close, {0: (FIRST + passed) * campaigns.step_ms})


def test_what_closes_later_is_published_once_it_was_begun_and_is_no_part_of_the_state_before() -> None:
    campaigns = spine.pipeline().campaigns
    campaigns.store = store = MemoryLinkStore()
    with ThreadPoolExecutor(1) as threads:
        campaigns.close_later(closing(campaigns, threads, 1))
        campaigns.publish_closed()
        assert store.marks() == {}, "nothing has closed yet"
        campaigns.begin_close()
        campaigns.publish_closed()
        assert store.marks() == {0: FIRST + 1}
        campaigns.close_later(closing(campaigns, threads, 2))
        campaigns.close_later(closing(campaigns, threads, 3))
        campaigns.publish_closed()
        assert store.marks() == {0: FIRST + 2}, "the first was made to begin by the second"
        again = spine.pipeline().campaigns
        again.load(0, campaigns.dump(0))
        again.publish()
        assert again.store.marks() == {0: FIRST + 2}, "nor does a checkpoint wait for it"
        campaigns.settle()
        again.load(0, campaigns.dump(0))
        again.publish()
        assert again.store.marks() == {0: FIRST + 3}
        campaigns.close_later(closing(campaigns, threads, 4))
        campaigns.publish()
        assert store.marks() == {0: FIRST + 4}


def test_publishing_waits_for_a_close_that_has_begun() -> None:
    campaigns = spine.pipeline().campaigns
    campaigns.store = store = MemoryLinkStore()
    go = threading.Event()

    def slowly() -> None:
        assert go.wait(30)
        campaigns.close({0: (FIRST + 1) * campaigns.step_ms})

    with ThreadPoolExecutor(1) as threads:
        campaigns.close_later(lambda: threads.submit(slowly))
        campaigns.begin_close()
        threading.Timer(0.1, go.set).start()
        campaigns.publish_closed()
        assert store.marks() == {0: FIRST + 1}


def test_steps_that_had_ended_and_not_closed_close_after_a_restart() -> None:
    """The state is written while the steps of the last batch wait to close: whoever takes it over makes their blobs."""
    records = spine.world()
    before, after, whole = (spine.pipeline() for _ in range(3))
    made: dict[int, list[StepBlob]] = {0: [], 1: [], 2: []}
    for i, p in enumerate((before, after, whole)):
        p.campaigns.archive = made[i].extend
    for i, poll in enumerate(spine.polls(records, CUTS)):
        whole.take(whole.prepare(spine.batch(poll)))
        if i == 3:
            partitions = {r.partition for r in records}
            before.publish_campaigns(closed=True)
            dumps = {name: {p: c.dump(p) for p in partitions} for name, c in before.components.items()}
            for name, of in dumps.items():
                for partition, dump in of.items():
                    after.components[name].load(partition, dump)
        p = before if i < 3 else after
        p.take(p.prepare(spine.batch(poll)))
    for p in (after, whole):
        p.finish()
        p.publish_campaigns()
    at = {(b.step, b.partition): b.encode() for b in made[2]}
    first, second = ({(b.step, b.partition): b.encode() for b in made[i]} for i in (0, 1))
    assert first, "some steps had closed before"
    assert second
    assert not first.keys() & second.keys()
    assert first | second == at


def test_a_close_that_fails_fails_whoever_needs_it() -> None:
    campaigns = spine.pipeline().campaigns

    def broken() -> None:
        raise ZeroDivisionError

    with ThreadPoolExecutor(1) as threads:
        campaigns.close_later(lambda: threads.submit(broken))
        with pytest.raises(ZeroDivisionError):
            campaigns.publish()
        campaigns.close_later(closing(campaigns, threads, 1))
        campaigns.settle()


def test_batches_close_in_their_order_whoever_publishes() -> None:
    """A batch after the other without publishing, or with it after each as the service does: the same blobs."""
    made: list[list[tuple[int, int, bytes]]] = []
    for publishes in (True, False):
        p = spine.pipeline()
        kept: list[StepBlob] = []
        p.campaigns.archive = kept.extend
        for records in spine.polls(spine.world(), CUTS):
            p.take(p.prepare(spine.batch(records)))
            if publishes:
                p.publish_campaigns(closed=True)
        p.finish()
        p.publish_campaigns()
        made.append([(b.step, b.partition, b.encode()) for b in kept])
    assert len(made[0]) > 2
    assert made[0] == made[1]
