"""Server fixtures, and the end of a run that says which servers were used.

With ``MONITOR_REQUIRE_SERVERS=1`` (CI) a missing server fails its tests and a run that skipped anything
fails: a green run then means that every check ran.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any, NoReturn

import browser
import pytest
import servers
from hypothesis import settings

from monitor.source.embedded import EmbeddedKafka, EmbeddedServer, EmbeddedValkey, MissingWheel, resp

# 200 ms by default, which an example takes where more run than there are processors
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

REQUIRED = os.environ.get("MONITOR_REQUIRE_SERVERS") == "1"


def has_gpu() -> bool:
    """Whether NVIDIA's driver can be loaded."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _absent(reason: object) -> NoReturn:
    if REQUIRED:
        pytest.fail(f"{reason} (MONITOR_REQUIRE_SERVERS=1)")
    pytest.skip(str(reason))


def _start(stack: ExitStack, name: str, make: Callable[[], EmbeddedServer]) -> EmbeddedServer:
    try:
        server = stack.enter_context(make())
    except (servers.Unavailable, MissingWheel) as error:
        _absent(error)
    servers.VERSIONS[name] = server.version
    return server


@pytest.fixture(scope="session")
def apache_kafka() -> Iterator[servers.ApacheKafka]:
    """One node of Apache Kafka 4 for the whole run; make topics of your own (``servers.create_topic``)."""
    try:
        kafka = servers.ApacheKafka().start()
    except servers.Unavailable as error:
        _absent(error)
    yield kafka
    kafka.stop()


@pytest.fixture(scope="session")
def embedded_kafka() -> Iterator[str]:
    """Address of the wheel's broker."""
    with ExitStack() as stack:
        yield _start(stack, "embedded broker", EmbeddedKafka).address


@pytest.fixture(scope="session")
def kafka_broker(request: pytest.FixtureRequest) -> str:
    """Bootstrap address: Apache Kafka where a JVM is, else the embedded broker; prints which."""
    try:
        servers.kafka_jars()
    except servers.Unavailable as error:
        if REQUIRED:
            _absent(error)
        address: str = request.getfixturevalue("embedded_kafka")
        print(f"kafka_broker: embedded ({error})")
        return address
    kafka: servers.ApacheKafka = request.getfixturevalue("apache_kafka")
    print(f"kafka_broker: Apache Kafka {kafka.version}")
    return kafka.bootstrap


@pytest.fixture(scope="session")
def _redis() -> Iterator[EmbeddedServer]:
    with ExitStack() as stack:
        yield _start(stack, "Redis", servers.RedisServer)


@pytest.fixture(scope="session")
def _valkey() -> Iterator[EmbeddedServer]:
    with ExitStack() as stack:
        yield _start(stack, "Valkey", EmbeddedValkey)


@pytest.fixture
def redis_url(_redis: EmbeddedServer) -> str:
    """URL of Debian's Redis 7, emptied before each test."""
    resp(_redis.port, "FLUSHALL")
    return _redis.url


@pytest.fixture
def valkey_url(_valkey: EmbeddedServer) -> str:
    """URL of Valkey 9, emptied before each test."""
    resp(_valkey.port, "FLUSHALL")
    return _valkey.url


@pytest.fixture(scope="session")
def s3() -> Iterator[servers.S3]:
    """moto's S3 for the whole run; make buckets of your own. Its credentials are in the environment."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in servers.S3_ENV.items():
            patch.setenv(name, value)
        server = _start(stack, "S3", servers.S3)
        assert isinstance(server, servers.S3)
        yield server


@pytest.fixture(params=["redis", "valkey"])
def any_redis_url(request: pytest.FixtureRequest) -> str:
    """Each test runs on Redis 7 and on Valkey 9."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def redis_server() -> Iterator[Callable[[], EmbeddedServer]]:
    """A function that starts a Redis of the test's own, to be stopped, killed or frozen."""
    with ExitStack() as stack:
        yield lambda: _start(stack, "Redis", servers.RedisServer)


@pytest.fixture
def chromium() -> Iterator[Callable[..., browser.Chromium]]:
    """A function ``(width=1280, height=900, dark=False)`` that starts a headless Chromium with one page."""
    with ExitStack() as stack:

        def start(*args: Any, **options: Any) -> browser.Chromium:
            try:
                return stack.enter_context(browser.Chromium(*args, **options))
            except servers.Unavailable as error:
                _absent(error)

        yield start


@pytest.fixture(scope="session")
def helm() -> str:
    """The program Helm 3."""
    try:
        return servers.helm()
    except servers.Unavailable as error:
        _absent(error)


@pytest.fixture
def prometheus() -> Iterator[Callable[..., servers.Prometheus]]:
    """A function ``(targets, rule_files=())`` that starts a Prometheus scraping them every second."""
    with ExitStack() as stack:

        def start(*args: Any, **options: Any) -> servers.Prometheus:
            server = _start(stack, "Prometheus", lambda: servers.Prometheus(*args, **options))
            assert isinstance(server, servers.Prometheus)
            return server

        yield start


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """``-n auto``: one more than processors, since the tests of servers and of killed processes mostly wait.

    A worker takes 1.5 GB. ``PYTEST_XDIST_AUTO_NUM_WORKERS`` says otherwise, as ever.
    """
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else len(os.sched_getaffinity(0)) + 1


def pytest_collection_finish(session: pytest.Session) -> None:
    """Workers of pytest-xdist compile kernels from either end of the list, one from each, and load what others made.

    Where the cache is empty each compiled them all, as its tests came to them: 60 s of a processor for every worker.
    Loading them takes half a second.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    jit = sys.modules.get("monitor.jit")
    if not worker or jit is None or jit.CACHE_DIR is None or len(session.items) < 1_000:
        return
    end = int(worker.removeprefix("gw")) % 2
    with (jit.CACHE_DIR / f"tests-{end}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jit.warm_all(backwards=end == 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the groups that need the extras `cluster` and `train` where they are not installed, or need it not to
    be; those that need a GPU where none is; and the chart's, where `.ci/run` found that helm can't be built (it says so
    at its end)."""
    away = ["no_cluster" if find_spec("ray") else "cluster"] + ([] if find_spec("torch") else ["train"])
    away += [] if has_gpu() else ["gpu"]
    away += ["helm"] if os.environ.get("MONITOR_WITHOUT_HELM") == "1" else []
    left = [item for item in items if any(map(item.get_closest_marker, away))]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Collect what pytest-xdist's workers used, where that plugin is there."""
    servers.VERSIONS.update(getattr(node, "workeroutput", {}).get("servers", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the versions to xdist's controller; fail a run that skipped where nothing may be skipped."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["servers"] = servers.VERSIONS
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if REQUIRED and skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each server of this run with its version, what was left out, and each skip that made the run fail."""
    if servers.VERSIONS:
        terminalreporter.section("servers")
        for name, version in sorted(servers.VERSIONS.items()):
            terminalreporter.line(f"{name}: {version}")
    for group, module in (("cluster", "ray"), ("train", "torch")):
        if find_spec(module) is None:
            terminalreporter.line(f"NOT RUN: tests marked {group}, since {module} is not installed", yellow=True)
    if not has_gpu():
        terminalreporter.line("NOT RUN: tests marked gpu, since no NVIDIA driver is here", yellow=True)
    skipped = terminalreporter.stats.get("skipped", [])
    if REQUIRED and skipped:
        terminalreporter.section("skipped, and MONITOR_REQUIRE_SERVERS=1 allows none", red=True)
        for report in skipped:
            terminalreporter.line(f"{report.nodeid}: {report.longrepr[2]}")
