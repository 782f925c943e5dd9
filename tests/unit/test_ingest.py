"""POST /v1/ingest: the token, the limits, what is answered when, and that no text is left in what is written."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import zlib
from urllib.parse import urlsplit

import foreign
import pytest
import zstandard
from canaries import CANARIES, found_in, search
from otlp_protobuf import as_protobuf
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from monitor.decode import DecodeOptions
from monitor.errors import BadInput, SinkBusy
from monitor.ingest import IngestServer, Intake, SpoolTarget
from monitor.ingest.intake import messages_of
from monitor.settings import IngestSettings
from monitor.sketch import Keyring, Sketcher
from monitor.source.spool import SpoolWriter
from monitor.source.spool_source import SpoolSource
from monitor.telemetry import Telemetry

TOKEN = "0123456789abcdef-token"
NOW = 1_767_262_000.0  # a few minutes after the samples' traffic


class Memory:
    """A target that keeps rows, or is busy, or waits."""

    def __init__(self):
        self.rows = []
        self.busy = False
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def put(self, rows):
        self.waiting.set()
        self.gate.wait(30)
        if self.busy:
            raise SinkBusy("the spool is full", 7.0)
        self.rows += rows

    def close(self):
        pass


def intake(target):
    options = DecodeOptions(digest_key=b"k", max_bytes=1 << 20)
    return Intake(foreign.formats(), Sketcher(Keyring.from_seed(1)), options, target)


@pytest.fixture
def served():
    made = []

    def serve(target=None, **settings):
        target = target or Memory()
        telemetry = Telemetry(CollectorRegistry())
        s = IngestSettings(port=0, token=SecretStr(TOKEN), **settings)
        server = IngestServer(s, intake(target), telemetry, clock=lambda: NOW)
        server.start()
        made.append(server)
        return server, target, telemetry

    yield serve
    for server in made:
        server.stop(1.0)


def post(server, body, format="litellm", token=TOKEN, **headers):
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
    given = {"Authorization": f"Bearer {token}"} if token is not None else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", f"/v1/ingest/{format}", body, given)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    try:
        return answer.status, json.loads(data or b"null"), dict(answer.getheaders())
    except ValueError:
        return answer.status, data, dict(answer.getheaders())


def body(sample="litellm"):
    return b"\n".join(foreign.lines(sample))


def test_what_is_posted_is_what_the_native_log_says_without_its_text(served):
    server, target, telemetry = served()
    status, said, _ = post(server, body())
    assert (status, said) == (202, {"accepted": 8, "rejected": 0, "ignored": 0})
    values = [row.value for row in target.rows]
    assert all(b"haiku" not in v and b"192.0.2.7" not in v and b"sdk/1.4" not in v for v in values)
    posted = foreign.events_of(foreign.decoded("native", values).frame)
    wanted = foreign.events_of(foreign.decoded("native", foreign.native_of("litellm")).frame)
    assert foreign.same(posted, wanted) == []
    assert [row.account for row in target.rows][:2] == ["team-a", "team-a"]
    assert {row.arrived_ms for row in target.rows} == {int(NOW * 1000)}
    assert telemetry.registry.get_sample_value("abusemon_ingest_events_total", {"outcome": "accepted"}) == 8


@pytest.mark.parametrize("sample", ["otlp", "envoy_aigw", "bedrock", "kong", "cloudflare_aig", "native"])
def test_every_format_and_auto_can_be_posted(served, sample):
    server, target, _ = served()
    name = foreign.FORMAT_OF.get(sample, sample)
    assert post(server, body(sample), name)[1]["accepted"] == 8
    assert post(server, body(sample), "auto")[1]["accepted"] == 8
    assert [r.value for r in target.rows[:8]] == [r.value for r in target.rows[8:]]


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\x80"])
def test_without_the_token_nothing_is_taken(served, token):
    server, target, telemetry = served()
    status, _, headers = post(server, body(), token=token)
    assert status == 401
    assert headers["WWW-Authenticate"] == "Bearer"
    assert target.rows == []
    assert telemetry.registry.get_sample_value("abusemon_ingest_requests_total", {"outcome": "unauthorised"}) == 1


def test_basic_authentication_with_the_token_is_not_enough(served):
    server, _, _ = served()
    assert post(server, body(), token=None, Authorization=f"Basic {TOKEN}")[0] == 401


def test_a_format_that_is_not_there_names_those_that_are(served):
    server, _, _ = served()
    status, said, _ = post(server, body(), "litelm")
    assert status == 404
    assert "litellm" in said["error"]
    assert post(server, body(), "../../etc")[0] == 404


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.ZstdCompressor().compress)],
)
def test_codings(served, coding, pack):
    server, target, _ = served(max_body_bytes=100_000)
    assert post(server, pack(body()), Content_Encoding=coding)[1]["accepted"] == 8
    bomb = pack(b" " * 20_000_000)
    assert len(bomb) < 100_000
    assert post(server, bomb, Content_Encoding=coding)[0] == 413
    assert post(server, pack(body())[:-9], Content_Encoding=coding)[0] == 400
    assert post(server, b"not packed", Content_Encoding=coding)[0] == 400
    assert len(target.rows) == 8


def test_limits(served):
    server, target, _ = served(max_body_bytes=2_000)
    assert post(server, b"x" * 2_001)[0] == 413
    assert post(server, body(), Content_Encoding="br")[0] in (413, 415)
    assert post(server, b"{}", Content_Encoding="br")[0] == 415
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
    headers = {"Authorization": f"Bearer {TOKEN}", "Transfer-Encoding": "chunked"}
    connection.request("POST", "/v1/ingest/native", iter([b"{}"]), headers, encode_chunked=True)
    assert connection.getresponse().status == 411
    assert target.rows == []


def test_part_of_a_body_may_be_bad_and_is_counted(served):
    server, target, telemetry = served()
    mixed = b"\n".join([*foreign.lines("litellm"), b'{"call_type": "acompletion"}', b"not json"])
    status, said, _ = post(server, mixed)
    assert status == 202
    assert said == {"accepted": 8, "rejected": 2, "ignored": 0, "reasons": {"missing_field": 1, "not_json": 1}}
    assert len(target.rows) == 8
    assert telemetry.registry.get_sample_value("abusemon_rejects_total", {"reason": "not_json"}) == 1
    assert post(server, b"not json at all")[0] == 400
    assert post(server, b"")[0] == 400


def test_a_busy_target_is_503_with_a_time_to_come_back(served):
    server, target, _ = served()
    target.busy = True
    status, said, headers = post(server, body())
    assert (status, headers["Retry-After"]) == (503, "7")
    assert "accepted" not in said
    target.busy = False
    assert post(server, body())[0] == 202
    assert len(target.rows) == 8


def test_too_many_at_a_time_is_429(served):
    server, target, _ = served(max_requests=1)
    target.gate.clear()
    first: list = []
    thread = threading.Thread(target=lambda: first.append(post(server, body())))
    thread.start()
    assert target.waiting.wait(20)
    status, _, headers = post(server, body())
    assert (status, headers["Retry-After"]) == (429, "1")
    target.gate.set()
    thread.join(20)
    assert first[0][0] == 202


def test_a_body_that_is_posted_again_is_the_same_requests(served):
    """Gateways retry: an id that is made is made of the body."""
    server, target, _ = served()
    record = json.loads(foreign.lines("envoy_aigw")[0])
    del record["x-request-id"]
    payload = json.dumps([record, record]).encode()
    post(server, payload, "envoy_aigw")
    post(server, payload, "envoy_aigw")
    ids = [json.loads(row.value)["request_id"] for row in target.rows]
    assert ids[0] == ids[2] != ids[1] == ids[3]
    assert ids[0].startswith("http/")


def test_an_otlp_exporter_gets_an_empty_protobuf_answer(served):
    server, target, _ = served()
    sent = as_protobuf(foreign.lines("otlp")[0])
    status, said, headers = post(server, sent, "otlp", Content_Type="application/x-protobuf")
    assert (status, said, headers["Content-Type"]) == (202, None, "application/x-protobuf")
    assert len(target.rows) == 3


def test_a_spool_holds_no_text_and_no_credential(served, tmp_path):
    writer = SpoolWriter(tmp_path / "spool", 2, 1 << 30)
    server, _, _ = served(SpoolTarget(writer))
    record = json.loads(foreign.lines("litellm")[1])
    record["messages"] = [
        {"role": "system", "content": CANARIES["system"]}, {"role": "user", "content": CANARIES["prompt"]},
    ]  # fmt: skip
    record["requester_ip_address"], record["user_agent"] = CANARIES["ip"], CANARIES["user_agent"]
    record["end_user"], record["response"] = CANARIES["end_user_id"], CANARIES["response"]
    assert post(server, json.dumps(record).encode())[1]["accepted"] == 1
    writer.close()
    assert search(tmp_path / "spool") == {}
    written = b"".join(p.read_bytes() for p in (tmp_path / "spool").rglob("*") if p.is_file())
    assert foreign.SECRET not in written
    assert found_in(json.dumps(record).encode()), "the search finds them where they are"
    source = SpoolSource(tmp_path / "spool", 2)
    (value,) = source.poll(10, 0.0).values
    assert json.loads(value)["account_id"] == record["metadata"]["user_api_key_team_id"]
    source.close()


def test_a_server_without_a_token_does_not_start():
    with pytest.raises(BadInput, match="token"):
        IngestServer(IngestSettings(), intake(Memory()), Telemetry(CollectorRegistry()))


@pytest.mark.parametrize(
    ("text", "count"),
    [(b'{"a": 1}', 1), (b'[{"a": 1}]', 1), (b'{"a": 1}\n{"a": 2}\n\n{"a": 3}', 3), (b'{\n "a": 1\n}', 1),
     (b"[\n{}\n]", 1), (b"\n\x0a\xff", 1), (b"", 1), (b'{"a": 1}\nnot json', 2)],
)  # fmt: skip
def test_what_a_body_holds(text, count):
    assert len(messages_of(text)) == count
