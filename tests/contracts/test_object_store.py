"""What only an object store can suffer: a member killed in each request of a save, an answer lost, no conditions."""

from __future__ import annotations

import http.client
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import obstore
import pytest
import servers

from monitor.cli.doctor import run_probes
from monitor.cli.probes import connections
from monitor.errors import BadInput, Fenced, MonitorError
from monitor.records import Checkpoint
from monitor.settings import CheckpointSettings, Settings
from monitor.store import StoreDown, object_store
from monitor.store.object_checkpoints import ObjectCheckpointStore, open_url

_names = itertools.count()

SAVE = """
import sys
from monitor.records import Checkpoint
from monitor.store.object_checkpoints import ObjectCheckpointStore, open_url
store = ObjectCheckpointStore(open_url(sys.argv[1], sys.argv[2]), "t/g")
store._tried = True
assert store.load(0).next_offset == 1
print("ready", flush=True)
sys.stdin.readline()  # the gate is set by then: without it the save could be past the request already
store.save(Checkpoint(0, 2, 1, {"a": [b"second"], "b": [b"also"]}))
"""


class Gate:
    """A way to the server on which one PUT can be stopped: before it arrives, or before its answer leaves."""

    def __init__(self, upstream: int):
        self.pattern, self.after = "", False
        self.lost = ""
        self.stopped, self.go_on = threading.Event(), threading.Event()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def forward(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                here = self.command == "PUT" and bool(gate.pattern) and gate.pattern in self.path
                if here and not gate.after:
                    gate.stopped.set()
                    gate.go_on.wait(20)
                    return
                there = http.client.HTTPConnection("127.0.0.1", upstream, timeout=20)
                there.request(self.command, self.path, body, dict(self.headers.items()))
                answer = there.getresponse()
                data = answer.read()
                there.close()
                if here:
                    gate.stopped.set()
                    gate.go_on.wait(20)
                    return
                if self.command == "PUT" and gate.lost and gate.lost in self.path:
                    gate.lost = ""
                    answer.status, data = 503, b"<Error><Code>SlowDown</Code></Error>"
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                        self.send_header(name, value)
                length = answer.getheader("content-length") if self.command == "HEAD" else str(len(data))
                self.send_header("content-length", length or "0")
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815 -- http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


@pytest.fixture
def gate(s3: servers.S3) -> Iterator[Gate]:
    made = Gate(s3.port)
    yield made
    made.close()


@pytest.fixture
def bucket(s3: servers.S3) -> str:
    return s3.bucket(f"own-{next(_names)}")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("request_of", ["/blobs/", "/manifests/", "/head"])
def test_a_member_killed_in_any_request_of_a_save_leaves_a_whole_checkpoint(
    s3: servers.S3, gate: Gate, bucket: str, request_of: str, after: bool
) -> None:
    direct = open_url(bucket, s3.url)
    first = ObjectCheckpointStore(direct, "t/g")
    first.claim(0, 1)
    first.save(Checkpoint(0, 1, 1, {"a": [b"first"]}))
    member = subprocess.Popen(
        [sys.executable, "-c", SAVE, bucket, gate.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert member.stdin is not None
    assert member.stdout is not None
    assert member.stdout.readline() == b"ready\n"
    gate.pattern, gate.after = request_of, after
    member.stdin.write(b"go\n")
    member.stdin.close()
    assert gate.stopped.wait(20), "the save came to that request"
    member.kill()
    member.wait()
    member.stdout.close()
    gate.go_on.set()
    reports: list[str] = []
    back = ObjectCheckpointStore(direct, "t/g", report=reports.append).load(0)
    assert back is not None
    written = request_of == "/head" and after
    assert (back.next_offset, back.parts) == (
        (2, {"a": [b"second"], "b": [b"also"]}) if written else (1, {"a": [b"first"]})
    )
    assert reports == []
    # What it left about is collected by the next save.
    heir = ObjectCheckpointStore(direct, "t/g")
    heir.claim(0, 2)
    assert heir.load(0) is not None
    heir.save(Checkpoint(0, 3, 2, {"a": [b"third"]}))
    blobs = [item["path"] for chunk in obstore.list(direct) for item in chunk if "/blobs/" in item["path"]]
    assert len(blobs) == (3 if written else 2), "those of the last checkpoint and of the one before"


def test_a_save_whose_answer_was_lost_is_sent_again_and_counts_once(s3: servers.S3, gate: Gate, bucket: str) -> None:
    store = ObjectCheckpointStore(open_url(bucket, gate.url), "t/g")
    store.claim(0, 1)
    gate.lost = "/head"
    store.save(Checkpoint(0, 1, 1, {"a": [b"x"]}))
    assert gate.lost == "", "an answer was lost"
    store.save(Checkpoint(0, 2, 1, {"a": [b"y"]}, {"a": 1}))
    back = ObjectCheckpointStore(open_url(bucket, s3.url), "t/g").load(0)
    assert back is not None
    assert (back.next_offset, back.parts) == (2, {"a": [b"x", b"y"]})


def test_a_claim_between_reading_and_writing_shuts_the_slow_one_out(s3: servers.S3, gate: Gate, bucket: str) -> None:
    slow = ObjectCheckpointStore(open_url(bucket, gate.url), "t/g")
    slow.claim(0, 1)
    slow.save(Checkpoint(0, 1, 1, {"a": [b"x"]}))
    direct = ObjectCheckpointStore(open_url(bucket, s3.url), "t/g")
    swap, claimed = slow._swap, []

    def late(*args):
        if not claimed:
            claimed.append(True)
            direct.claim(0, 2)  # after the fence was compared, before the head is written
        return swap(*args)

    slow._swap = late
    with pytest.raises(Fenced, match="older than 2"):
        slow.save(Checkpoint(0, 2, 1, {"a": [b"zombie"]}))
    back = direct.load(0)
    assert back is not None
    assert back.parts == {"a": [b"x"]}


def test_content_that_comes_back_does_not_make_an_old_condition_hold(bucket: str, s3: servers.S3) -> None:
    """S3's tag is a hash of the content: without a random name in the head, claim after claim would look the same."""
    objects = open_url(bucket, s3.url)
    tags = set()
    for _ in range(3):
        ObjectCheckpointStore(objects, "t/g").claim(0, 1)
        tags.add(obstore.head(objects, _head(objects))["e_tag"])
    assert len(tags) == 3


def _head(objects) -> str:
    return next(item["path"] for chunk in obstore.list(objects) for item in chunk if item["path"].endswith("/head"))


def test_a_damaged_head_is_replaced_by_what_the_manifests_say(bucket: str, s3: servers.S3) -> None:
    objects = open_url(bucket, s3.url)
    store = ObjectCheckpointStore(objects, "t/g")
    store.claim(0, 4)
    store.save(Checkpoint(0, 1, 4, {"a": [b"x"]}))
    store.save(Checkpoint(0, 2, 4, {"a": [b"y"]}))
    obstore.put(objects, _head(objects), b"half")
    reports: list[str] = []
    fresh = ObjectCheckpointStore(objects, "t/g", report=reports.append)
    with pytest.raises(Fenced):
        fresh.claim(0, 3)
    fresh.claim(0, 5)
    back = fresh.load(0)
    assert back is not None
    assert back.next_offset == 2
    assert "head is damaged" in reports[0]


def test_a_server_that_ignores_conditions_is_refused() -> None:
    with pytest.MonkeyPatch.context() as patch, servers.S3(conditions=False) as server:
        for name, value in servers.S3_ENV.items():
            patch.setenv(name, value)
        store = ObjectCheckpointStore(open_url(server.bucket("lax"), server.url), "t/g", place="s3://lax")
        with pytest.raises(MonitorError, match="s3://lax does not honour conditional writes"):
            store.claim(0, 1)


def test_doctor_tries_the_store(s3: servers.S3, bucket: str) -> None:
    def found(url: str) -> list[tuple[str, str]]:
        settings = Settings.model_validate({"checkpoint": {"store": "object", "url": url, "endpoint": s3.url}})
        return [(f.status, f.detail) for f in run_probes(p for p in connections(settings) if p.name == "checkpoints")]

    ((status, detail),) = found(bucket)
    assert (status, "honours conditions" in detail) == ("ok", True)
    ((status, detail),) = found("s3://not-there/p")
    assert status != "ok"
    assert "does not exist" in detail


def test_a_directory_by_obstore_is_refused_because_it_cannot_replace_on_a_condition(tmp_path) -> None:
    store = ObjectCheckpointStore(obstore.store.LocalStore(tmp_path), "t/g")
    with pytest.raises(MonitorError, match=r"checkpoint\.store: directory"):
        store.claim(0, 1)


def test_a_bucket_that_is_not_there_and_a_server_that_is_away_are_waited_for(s3: servers.S3) -> None:
    store = ObjectCheckpointStore(open_url("s3://absent/x", s3.url), "t/g", place="s3://absent/x")
    with pytest.raises(StoreDown, match=r"s3://absent/x: the bucket .* does not exist"):
        store.claim(0, 1)
    away = ObjectCheckpointStore(open_url("s3://b/x", "http://127.0.0.1:9"), "t/g", place="s3://b/x")
    with pytest.raises(StoreDown, match="can't be reached"):
        away.load(0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"store": "object"}, "is needed by checkpoint.store: object"),
        ({"url": "s3://b/p"}, "has no effect with checkpoint.store: directory"),
        ({"store": "object", "url": "ftp://b/p"}, "must be s3://BUCKET"),
        ({"store": "object", "url": "s3://key:secret@b/p"}, "credentials belong in the environment"),
        ({"store": "object", "url": "gs://b/p", "endpoint": "http://h:1"}, "is for s3:// only"),
        ({"store": "object", "url": "s3://b", "endpoint": "h:1"}, "must be http://HOST:PORT"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(".", r"\.")) as caught:
        CheckpointSettings.model_validate(values)
    assert "secret" not in str(caught.value).replace("input_value", "").split("[type=")[0]


def test_an_address_that_the_environment_does_not_complete_is_said_at_start(monkeypatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(BadInput, match="Account must be specified"):
        object_store(CheckpointSettings(store="object", url="az://container/p"), "t/g")
