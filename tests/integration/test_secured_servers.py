"""Kafka over TLS with SASL or client certificates and ACLs, Redis over TLS with an ACL user: who gets in."""

from __future__ import annotations

import itertools
import json

import pytest
import redis
import secured
import servers
from members import groups, log, produce, wait_for

from monitor.errors import BadInput, DependencyDown, SinkBusy
from monitor.settings import KafkaSettings
from monitor.source import kafka_client, kafka_sender, kafka_source
from monitor.source.kafka_sender import KafkaSender
from monitor.source.kafka_source import KafkaSource
from monitor.store.redis_link import RIGHTS

pytestmark = [pytest.mark.apache_kafka, pytest.mark.redis7, pytest.mark.slow]

_names = itertools.count()


@pytest.fixture(scope="module")
def kafka():
    try:
        server = secured.SecuredKafka().start()
    except servers.Unavailable as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture
def topic(kafka):
    """A topic with five records that our user may read as a group of the same name, and its dead letters' topic."""
    name = servers.create_topic(kafka.bootstrap, f"secured-{next(_names)}", 2)
    servers.create_topic(kafka.bootstrap, f"{name}.dlq", 1)
    kafka.allow("TOPIC", name, "READ")
    kafka.allow("GROUP", name, "READ")
    kafka.allow("TOPIC", f"{name}.dlq", "WRITE")
    produce(kafka.bootstrap, name, [(b"k", b"v%d" % n, 1_700_000_000_000) for n in range(5)])
    return name


def way(kafka, mechanism, tmp_path, subject=secured.USER):
    """Settings of one way in, secrets in files as the README says."""
    made = {"ssl_cafile": kafka.files / "ca.pem"}
    if mechanism == "certificate":
        files = {"ssl_certfile": kafka.files / "client.pem", "ssl_keyfile": kafka.files / "client.key"}
        return {**made, **files, "brokers": (kafka.mutual,), "security_protocol": "SSL"}
    made |= {"brokers": (kafka.secure,), "security_protocol": "SASL_SSL", "sasl_mechanism": mechanism}
    secret = tmp_path / "secret"
    if mechanism == "OAUTHBEARER":
        secret.write_text(secured.token(subject) + "\n")
        return {**made, "oauth_token_file": secret}
    secret.write_text(secured.PASSWORD + "\n")
    return {**made, "sasl_username": subject, "sasl_password_file": secret}


@pytest.fixture
def impatient(monkeypatch):
    """A second and a half for a first contact in place of ten: kafka-python tries again until they are over."""

    def connect(settings, make, **config):
        return kafka_client.connect(settings, make, **{**config, "bootstrap_timeout_ms": 1_500})

    monkeypatch.setattr(kafka_sender, "connect", connect)
    monkeypatch.setattr(kafka_source, "connect", connect)


def kafka_settings(topic, **values):
    return KafkaSettings(topic=topic, group=topic, request_timeout_ms=5_000, fetch_max_wait_ms=100, **values)


def read(settings, wanted=5, polls=60):
    said = []
    source = KafkaSource(settings, on_state=said.append)
    values = []
    try:
        for _ in range(polls):
            batch = source.poll(100, 0.5)
            values += batch.values
            if len(values) >= wanted:
                source.commit(batch.next_offsets)
                return values
    finally:
        source.close()
    raise AssertionError(said)


def write(settings, topic):
    with KafkaSender(settings, topic) as sender:
        sender.send(b"k", b"letter")
        sender.flush(10)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER", "certificate"])
def test_each_way_in_reads_commits_and_writes_with_the_rights_of_the_readme(kafka, topic, mechanism, tmp_path):
    settings = kafka_settings(topic, **way(kafka, mechanism, tmp_path))
    assert sorted(read(settings)) == [b"v0", b"v1", b"v2", b"v3", b"v4"]
    write(settings, f"{topic}.dlq")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_a_wrong_secret_is_refused_and_not_repeated(kafka, topic, mechanism, tmp_path, impatient, caplog):
    made = way(kafka, mechanism, tmp_path)
    secret = "guess-1234" if mechanism != "OAUTHBEARER" else secured.token(secured.USER, life_s=-100)
    (tmp_path / "secret").write_text(secret)
    with pytest.raises((BadInput, DependencyDown), match=r"SASL settings|refused") as caught:
        KafkaSender(kafka_settings(topic, **made), topic)
    assert secret not in str(caught.value) + caplog.text


def test_a_user_without_rights_reads_and_writes_nothing(kafka, topic, tmp_path):
    settings = kafka_settings(topic, **way(kafka, "OAUTHBEARER", tmp_path, subject=secured.OTHER))
    with pytest.raises((BadInput, AssertionError)) as caught:
        read(settings, polls=6)
    assert isinstance(caught.value, BadInput) or "connected" not in str(caught.value)
    with pytest.raises((BadInput, SinkBusy)):
        write(settings, f"{topic}.dlq")
    ours = kafka_settings(topic, **way(kafka, "PLAIN", tmp_path))
    with pytest.raises((BadInput, SinkBusy)):
        write(ours, topic)  # it may read requests, not write them
    assert len(read(ours)) == 5


def test_another_authority_and_a_name_that_is_not_the_brokers_are_refused(kafka, topic, tmp_path, impatient):
    elsewhere = secured.certificates(tmp_path / "other")
    made = way(kafka, "PLAIN", tmp_path) | {"ssl_cafile": elsewhere / "ca.pem"}
    with pytest.raises(DependencyDown, match="TLS"), KafkaSender(kafka_settings(topic, **made), topic):
        pass
    # The certificate names 127.0.0.1; localhost is the same broker under a name that it does not carry.
    port = kafka.secure.rsplit(":", 1)[1]
    made = way(kafka, "PLAIN", tmp_path) | {"brokers": (f"localhost:{port}",)}
    with pytest.raises(DependencyDown, match="TLS"), KafkaSender(kafka_settings(topic, **made), topic):
        pass


def test_a_client_without_tls_or_without_a_certificate_is_refused(kafka, topic, tmp_path, impatient):
    plain = kafka_settings(topic, brokers=(kafka.secure,))
    with pytest.raises(DependencyDown), KafkaSender(plain, topic):
        pass
    bare = kafka_settings(topic, brokers=(kafka.mutual,), security_protocol="SSL", ssl_cafile=kafka.files / "ca.pem")
    with pytest.raises(DependencyDown), KafkaSender(bare, topic):
        pass


def test_the_service_runs_on_secured_servers_and_raises_its_alerts(kafka, tmp_path):
    with secured.SecuredRedis(" ".join(RIGHTS)) as server:
        with groups(kafka.bootstrap, "", tmp_path) as make:
            group = make()
            for kind, name, operations in (
                ("TOPIC", group.topic, ["READ"]), ("GROUP", group.name, ["READ"]),
                ("TOPIC", f"{group.topic}.dlq", ["WRITE"]),
            ):  # fmt: skip
                kafka.allow(kind, name, *operations)
            made = way(kafka, "SCRAM-SHA-512", tmp_path)
            group.settings = {
                "kafka": {k: str(v) if not isinstance(v, tuple) else list(v) for k, v in made.items()},
                "redis": {
                    "url": server.url, "username": secured.USER, "password": secured.PASSWORD.replace(" ", "-"),
                    "key_prefix": "abm", "ssl_cafile": str(server.directory / "certificates" / "ca.pem"),
                },
            }  # fmt: skip
            records = log()[:12_000]
            produce(kafka.bootstrap, group.topic, [*records, (b"a", b"{", log()[0][2])])
            member = group.start()
            assert wait_for(lambda: member.alive() and member.ready())
            group.finish.touch()
            member.end()
            assert member.counts["in_rows"] == len(records)
        with redis.Redis.from_url(
            server.url, username="root", password="root", ssl_ca_certs=str(server.directory / "certificates/ca.pem")
        ) as root:
            entries = root.xrange("abm:{abm}:alerts")
        assert len({entry[b"alert_id"] for _, entry in entries}) >= 1
        letters = read(kafka_settings(f"{group.topic}.dlq", brokers=(kafka.bootstrap,)), wanted=1)
        assert json.loads(letters[0])["reason"] == "not_json"
