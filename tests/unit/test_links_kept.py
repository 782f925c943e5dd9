"""What a member keeps of its own blobs: enough to hand them over again to a store that lost them."""

from __future__ import annotations

import redis
import spine

from monitor.campaigning import RECENT_STEPS
from monitor.store.redis_link import RedisOptions
from monitor.store.redis_links import RedisLinkStore


def test_blobs_that_a_store_lost_are_handed_over_again_byte_for_byte(valkey_url: str) -> None:
    store = RedisLinkStore(RedisOptions(url=valkey_url), "t/kept")
    records = spine.world(20, 0.5)
    p = spine.pipeline()
    p.campaigns.store = store
    for partition in range(spine.PARTITIONS):
        p.campaigns.expect(partition)
    for poll in spine.polls(records, range(0, len(records), 500)):
        p.process(spine.batch(poll))
        p.publish_campaigns()
    marks = store.marks()
    places = [at for found in store.steps({}, max(marks.values())).values() for at in found]
    recent = [at for at in places if at[0] >= marks[at[1]] - RECENT_STEPS]
    assert len(recent) < len(places), "older ones are let go"
    before = store.read(recent)
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    assert store.read(recent) == []
    p.campaigns.republish()
    p.publish_campaigns()
    assert store.read(recent) == before
    assert store.marks() == marks
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    p.campaigns.republish()
    p.publish_campaigns()
    assert store.read(recent) == before, "and again"
