"""Real servers for tests: Apache Kafka, the embedded broker, Redis, Valkey, Prometheus, moto's S3.

Each listens on free loopback ports, keeps its files in a directory of its own and is stopped by its own
process id; a killed pytest takes them along. What was used is noted in :data:`VERSIONS`, and the end of a
test run prints it. A server that cannot be had raises :class:`Unavailable` with the reason and the remedy.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from monitor.errors import DependencyDown
from monitor.source.embedded import (
    HOST,
    EmbeddedServer,
    ServerProcess,
    accepts,
    free_ports,
    pings,
    redis_command,
    redis_version,
)

if TYPE_CHECKING:
    from kafka import KafkaAdminClient

KAFKA_VERSION = "4.4.0"
HELM_VERSION = "3.22.0"
START_S = 240.0
"""Until a server is taken not to start: long, since how long a thing takes decides no test."""
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>kafka-for-tests</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{KAFKA_VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
<version>2.24.3</version></dependency></dependencies></project>
"""

S3_ENV = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
"""Credentials as obstore reads them; moto accepts any."""

VERSIONS: dict[str, str] = {}
"""What was started in this run: server -> its own word for its version."""


class Unavailable(Exception):
    """A server that cannot run on this machine; says what to install."""


def cache_dir() -> Path:
    """Where jars are kept between runs: ``$MONITOR_TEST_CACHE``, or a directory of the user's cache."""
    chosen = os.environ.get("MONITOR_TEST_CACHE")
    user = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    base = Path(chosen) if chosen else user / "api-abuse-monitor"
    base.mkdir(parents=True, exist_ok=True)
    return base


def kafka_jars() -> Path:
    """The folder of Apache Kafka's jars, fetched from Maven Central once and then reused."""
    for program, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            raise Unavailable(f"Apache Kafka needs {program}: apt-get install {package}")
    base = cache_dir() / f"kafka-{KAFKA_VERSION}"
    libs = base / "libs"
    base.mkdir(exist_ok=True)
    with (base / "lock").open("w") as lock:  # several test runs may start at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "complete").exists():
            (base / "pom.xml").write_text(_POM)
            command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={libs}"]
            done = subprocess.run(command, cwd=base, capture_output=True, text=True, timeout=300)
            if done.returncode:
                raise Unavailable(f"Maven could not fetch Apache Kafka {KAFKA_VERSION}:\n{done.stdout[-2000:]}")
            (base / "complete").touch()
    return libs


def helm() -> str:
    """The program Helm: as ``.ci/run`` builds it from its Go module into :func:`cache_dir`, else that of the path."""
    built = cache_dir() / f"helm-{HELM_VERSION}" / "helm"
    found = str(built) if built.exists() else shutil.which("helm")
    if found is None:
        module = f"helm.sh/helm/v3/cmd/helm@v{HELM_VERSION}"
        raise Unavailable(f"the chart's tests need helm: GOBIN={built.parent} go install {module}")
    return found


class ApacheKafka:
    """Apache Kafka in KRaft mode: 1 combined node, or 3 with replication 3 and min.insync.replicas 2.

    ``bootstrap`` is the list of addresses. Node ids count from 1. Topics are not created by themselves.
    """

    def __init__(self, brokers: int = 1, settings: Mapping[str, str] | None = None):
        self.brokers = brokers
        self.settings = dict(settings or {})
        self.directory = Path(tempfile.mkdtemp(prefix="monitor-kafka-"))
        self.nodes: dict[int, ServerProcess] = {}
        self.ports: dict[int, int] = {}
        self.version = ""

    @property
    def bootstrap(self) -> str:
        return ",".join(f"{HOST}:{port}" for port in self.ports.values())

    def start(self) -> Self:
        libs = kafka_jars()
        ports = free_ports(2 * self.brokers)
        ids = range(1, self.brokers + 1)
        self.ports = dict(zip(ids, ports, strict=False))
        voters = ",".join(f"{i}@{HOST}:{p}" for i, p in zip(ids, ports[self.brokers :], strict=True))
        try:
            for node in ids:
                self._format(node, libs, voters, ports[self.brokers + node - 1])
            for process in self.nodes.values():
                process.start()
            for node in ids:
                self._wait(node)
            self._wait_for_cluster()
        except BaseException:
            self.stop()
            raise
        VERSIONS["Apache Kafka"] = self.version
        return self

    def _format(self, node: int, libs: Path, voters: str, controller_port: int) -> None:
        home = self.directory / f"node-{node}"
        home.mkdir()
        replicas = str(min(3, self.brokers))
        config = {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{HOST}:{self.ports[node]},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.ports[node]}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(home / "data"),
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": "2" if self.brokers == 3 else "1",
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": "8",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": "2" if self.brokers == 3 else "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "log.cleaner.backoff.ms": "200",  # 15 s by default: a test of compaction would wait for it
            **self._listeners(node, controller_port),
            **self.settings,
        }
        path = home / "server.properties"
        path.write_text("".join(f"{k}={v}\n" for k, v in config.items()))
        java = ["java", "-XX:TieredStopAtLevel=1", "-Xmx512m", "-cp", f"{libs}/*"]
        command = [*java, "kafka.tools.StorageTool", "format", "-t", "bW9uaXRvci10ZXN0cy0xMg", "-c", str(path)]
        command += self._users()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=home)
        if done.returncode:
            raise DependencyDown(f"formatting Kafka's storage failed:\n{done.stdout}{done.stderr}")
        self.nodes[node] = ServerProcess(
            f"Apache Kafka node {node}", [*java, "kafka.Kafka", str(path)], home / "server.log"
        )

    def _listeners(self, node: int, controller_port: int) -> dict[str, str]:
        """Settings of further listeners, for a cluster with TLS and users."""
        return {}

    def _users(self) -> list[str]:
        """Options of the storage tool that make SCRAM users."""
        return []

    def _wait(self, node: int) -> None:
        self.nodes[node].wait_until(lambda: accepts(self.ports[node]), START_S)

    def _wait_for_cluster(self) -> None:
        from kafka.errors import KafkaError

        end = time.monotonic() + START_S
        while True:
            try:
                with admin(self.bootstrap) as client:
                    seen = len(client.describe_cluster()["brokers"])
                    if seen >= self.brokers:
                        level = _feature_level(client.describe_features())
                        self.version = f"{KAFKA_VERSION} (ApiVersions: {level}, {seen} broker(s))"
                        return
            except KafkaError:
                seen = 0
            if time.monotonic() > end:
                raise DependencyDown(f"{seen} of {self.brokers} Kafka brokers registered within {START_S:.0f} s")
            time.sleep(0.2)

    def kill(self, node: int = 1) -> None:
        """SIGKILL one node."""
        self.nodes[node].kill()

    def stop_node(self, node: int = 1) -> None:
        """SIGTERM one node: it hands its leaderships over."""
        self.nodes[node].stop()

    def restart(self, node: int = 1) -> None:
        """Start a stopped or killed node again, on its port and data."""
        self.nodes[node].start()
        self._wait(node)

    def stop(self) -> None:
        """Stop every node and remove the data."""
        for process in self.nodes.values():
            process.kill() if self.brokers > 1 else process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _feature_level(features: Any) -> str:
    """``metadata.version`` as the broker's ApiVersions answer gives it (25 is the first of 4.0)."""
    return f"metadata.version {features['metadata.version']['finalized'][1]}"


@contextlib.contextmanager
def admin(bootstrap: str) -> Iterator[KafkaAdminClient]:
    """An admin client that is closed again. kafka is imported here: 0.4 s that unit tests need not pay."""
    from kafka import KafkaAdminClient

    client = KafkaAdminClient(
        bootstrap_servers=bootstrap.split(","), bootstrap_timeout_ms=5000, request_timeout_ms=10000
    )
    try:
        yield client
    finally:
        client.close()


def create_topic(bootstrap: str, name: str, partitions: int, configs: Mapping[str, str] | None = None) -> str:
    """Create a topic (replication: the cluster's default) and wait for its leaders; returns its name.

    Nothing is deleted by age unless ``configs`` says so: retention goes by the records' own timestamps, so a
    topic of simulated traffic of last year would be emptied within a minute.
    """
    from kafka.errors import KafkaError

    with admin(bootstrap) as client:
        options: dict[str, Any] = {"num_partitions": partitions, "configs": {"retention.ms": "-1", **(configs or {})}}
        options["replication_factor"] = 1 if len(bootstrap.split(",")) == 1 else 3
        client.create_topics({name: options})
        with contextlib.suppress(KafkaError):  # the embedded broker has no such wait; its topics are there at once
            client.wait_for_topics([name], timeout_ms=15000)
    return name


class RedisServer(EmbeddedServer):
    """Debian's ``redis-server``, version 7, keeping nothing on disk."""

    scheme = "redis"

    def _command(self) -> list[str]:
        binary = shutil.which("redis-server")
        if binary is None:
            raise Unavailable("Redis 7 needs redis-server: apt-get install redis-server")
        return redis_command(binary, self.port, self.directory)

    def _ready(self) -> bool:
        return pings(self.port)

    def _version(self) -> str:
        return redis_version(self.port)


class S3(EmbeddedServer):
    """moto's S3 server, one request at a time: between two, its check of a condition and its write are one thing.

    ``conditions=False`` drops the conditions of writes, as some S3-compatible servers do.
    """

    scheme = "http"

    def __init__(self, conditions: bool = True):
        super().__init__()
        self.conditions = conditions

    def _command(self) -> list[str]:
        if importlib.util.find_spec("moto") is None:
            raise Unavailable("S3 needs moto: pip install 'moto[s3]' flask flask-cors")
        return [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(self.port), str(self.conditions)]

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _version(self) -> str:
        return f"moto {importlib.metadata.version('moto')}"

    def bucket(self, name: str) -> str:
        """Make a bucket; its URL."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=10):
            return f"s3://{name}/checkpoints"


class Prometheus(EmbeddedServer):
    """Debian's Prometheus with a scrape configuration: ``targets`` (host:port), rule files, 1 s interval."""

    scheme = "http"

    def __init__(self, targets: Sequence[str], rule_files: Sequence[Path] = (), interval_s: int = 1):
        super().__init__()
        self.targets = list(targets)
        self.rule_files = [str(Path(p).resolve()) for p in rule_files]
        self.interval_s = interval_s

    def _command(self) -> list[str]:
        binary = shutil.which("prometheus")
        if binary is None:
            raise Unavailable("the dashboards' tests need prometheus: apt-get install prometheus")
        config = {  # JSON is YAML
            "global": {"scrape_interval": f"{self.interval_s}s", "evaluation_interval": f"{self.interval_s}s"},
            "rule_files": self.rule_files,
            "scrape_configs": [{"job_name": "monitor", "static_configs": [{"targets": self.targets}]}],
        }
        path = self.directory / "prometheus.yml"
        path.write_text(json.dumps(config))
        return [
            binary, f"--config.file={path}", f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={self.address}", "--log.level=warn",
        ]  # fmt: skip

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _version(self) -> str:
        binary = shutil.which("prometheus") or "prometheus"
        out = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
        return (out.stdout or out.stderr).splitlines()[0].removeprefix("prometheus, version ").split(" (")[0]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query; the result vector as Prometheus' API gives it. ValueError on a bad expression."""
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{expression}: {error.read().decode()}") from error
        return list(body["data"]["result"])

    def wait_for(self, expression: str, timeout_s: float = 120.0) -> list[dict[str, Any]]:
        """Repeat a query until it returns something."""
        end = time.monotonic() + timeout_s
        while not (found := self.query(expression)) and time.monotonic() < end:
            time.sleep(0.25)
        return found
