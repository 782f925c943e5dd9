"""The servers themselves: each starts, answers, and is the version that the other tests rely on."""

from __future__ import annotations

import os
import signal

import pytest
import servers

from monitor.source.embedded import EmbeddedValkey, accepts, resp


@pytest.mark.apache_kafka
def test_apache_kafka_is_version_4_and_creates_topics(apache_kafka):
    assert int(apache_kafka.version.split("metadata.version ")[1].split(",")[0]) >= 25  # 4.0, by the broker's own word
    name = servers.create_topic(apache_kafka.bootstrap, "servers-smoke", 3)
    with servers.admin(apache_kafka.bootstrap) as client:
        (topic,) = client.describe_topics([name])
    assert len(topic["partitions"]) == 3


@pytest.mark.kafka
def test_embedded_broker_creates_topics(embedded_kafka):
    servers.create_topic(embedded_kafka, "servers-smoke", 2)
    with servers.admin(embedded_kafka) as client:
        assert "servers-smoke" in client.list_topics()


def test_redis_is_version_7(redis_url):
    assert servers.VERSIONS["Redis"].startswith("Redis 7")
    assert redis_url.startswith("redis://127.0.0.1:")


def test_both_redis_kinds_start_empty_and_run_scripts(any_redis_url):
    port = int(any_redis_url.rsplit(":", 1)[1])
    assert resp(port, "DBSIZE") == "0"
    assert (
        resp(port, "EVAL", "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])", "1", "k", "v")
        == "v"
    )


@pytest.mark.prometheus
def test_prometheus_scrapes_and_answers(prometheus):
    server = prometheus([])
    own = prometheus([server.address])
    assert own.wait_for("up == 1")
    with pytest.raises(ValueError, match="parse error"):
        own.query("up +")


def test_a_stopped_server_is_gone_and_its_files_too():
    with EmbeddedValkey() as server:
        pid, port, directory = server.pid, server.port, server.directory
        assert accepts(port)
    assert not accepts(port)
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_killed_server_is_reported_as_ended():
    with EmbeddedValkey() as server:
        os.kill(server.pid, signal.SIGKILL)
        server.process._process.wait()
        assert server.pid is None
