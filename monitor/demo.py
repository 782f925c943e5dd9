"""``monitor demo``: real servers on this machine, simulated traffic, and the pipeline of ``monitor run`` on it.

Nothing is staged: the producer is another process, the traffic goes through a Kafka-protocol broker, alerts go
through Valkey, and the scrapers are found, or not, by the rules that ship.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from monitor import live, wiring
from monitor.errors import MonitorError
from monitor.precompile import precompile
from monitor.records import Alert
from monitor.runner import Runner
from monitor.service import Signals
from monitor.settings import Settings
from monitor.sketch import Keyring
from monitor.source.embedded import HOST, EmbeddedKafka, EmbeddedValkey, ServerProcess, accepts, free_ports, missing
from monitor.source.files import FileSource
from monitor.source.kafka_admin import create_topics
from monitor.source.kafka_source import KafkaSource
from monitor.source.protocol import Source

SCENARIOS = ("D1", "D2", "B1", "B3", "B8")
"""Two hidden scrapers of different kinds; an evaluation harness, a nightly batch, a launch-day surge."""
TOPIC = "requests"
HEAVY_CAP = 2_500.0
"""Most requests a day of an ordinary account: the published heavy ones alone would take the demo's whole time."""

Done = Callable[[Source], bool]
OpenSource = Callable[[Runner], Source]


@dataclass(frozen=True, slots=True)
class World:
    """What the demo plays: ordinary accounts, days of event time, seed."""

    accounts: int = 2_000
    days: float = 2.0
    seed: int = 1


@dataclass(slots=True)
class Demo:
    """A demo that is set up. ``run`` blocks; everything else may be read from another thread meanwhile.

    With ``keep`` a console is served too, at ``console`` for whoever has ``token``, and ``settled`` says whether
    everything that was produced has been judged.
    """

    world: World
    keep: bool = False
    servers: list[str] = field(default_factory=list)
    state: str = "starting"
    service: live.Service | None = None
    truth: dict[str, dict[str, str]] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    events_produced: int = 0
    seconds: float = 0.0
    console: str = ""
    token: str = ""
    settled: bool = False
    _warm: threading.Thread | None = None

    @property
    def compiling(self) -> bool:
        """Whether kernels are still being compiled, which a first run waits for, once a machine."""
        return self._warm is not None and self._warm.is_alive()

    def run(self, signals: Signals) -> None:
        """Start servers, producer and service; return when every request was scored, or at a signal with ``keep``."""
        began = time.monotonic()
        # Beside the servers' start: the service waits for what is left of it.
        self._warm = threading.Thread(
            target=precompile, args=(live.__name__,), kwargs={"here": True}, name="warm", daemon=True
        )
        self._warm.start()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="monitor-demo-")))
            if missing():
                self._without_servers(folder, signals)
            else:
                self._with_servers(stack, folder, signals)
        self.seconds = time.monotonic() - began

    def _with_servers(self, stack: ExitStack, folder: Path, signals: Signals) -> None:
        kafka = stack.enter_context(EmbeddedKafka())
        valkey = stack.enter_context(EmbeddedValkey())
        self.servers = [f"{kafka.version} on {kafka.address}", f"{valkey.version} on {valkey.address}"]
        settings = self._settings(folder, kafka.address, valkey.url)
        create_topics(settings.kafka, {TOPIC: 4, settings.kafka.dead_letters: 1})
        producer = _Producer(self.world, f"kafka://{kafka.address}/{TOPIC}", folder)
        stack.callback(producer.stop)

        def done(source: Source) -> bool:
            self.events_produced = producer.events
            self.settled = producer.finished and isinstance(source, KafkaSource) and source.caught_up()
            return self.settled and not self.keep

        if self.keep:
            self._open_console(stack, folder, valkey.url)
        self.state = "running"
        self._serve(settings, signals, done)
        self.truth = producer.truth
        self.events_produced = producer.events
        self.alerts = _newest(settings)

    def _open_console(self, stack: ExitStack, folder: Path, redis_url: str) -> None:
        """``monitor serve`` beside it, as people would run it: with a token, and a key that signs reports."""
        (port,) = free_ports(1)
        self.token = secrets.token_hex(16)
        (folder / "token").write_text(self.token)
        (folder / "signing-key").write_text(secrets.token_hex(32))
        given = {
            "redis": {"url": redis_url}, "console": {"port": port, "token_file": str(folder / "token")},
            "evidence": {"signing_key_file": str(folder / "signing-key")},
        }  # fmt: skip
        (folder / "console.yaml").write_text(json.dumps(given))  # JSON is YAML
        command = [sys.executable, "-m", "monitor", "serve", "--config", str(folder / "console.yaml")]
        server = ServerProcess("the console", command, folder / "console.log")
        stack.callback(server.stop)
        server.start()
        server.wait_until(lambda: accepts(port), 60)
        self.console = f"http://{HOST}:{port}"

    def _without_servers(self, folder: Path, signals: Signals) -> None:
        """The same pipeline with files in place of the broker, and a file in place of Valkey."""
        from monitor.alerts import MemorySink
        from monitor.dead_letters import NoDeadLetters
        from monitor.simulate.api import build, write_lines, write_ndjson
        from monitor.store import MemoryStore

        self.servers = [f"in-process source: {reason}" for reason in missing().values()]
        world = build(SCENARIOS, self.world.accounts, self.world.days, self.world.seed, heavy_cap=HEAVY_CAP)
        self.state = "making traffic"
        self.events_produced = write_ndjson(world, folder / "log.ndjson").requests
        write_lines(folder / "truth.ndjson", world.truth())
        self.truth = _truth(folder / "truth.ndjson")
        settings = self._settings(folder, "localhost:9092", "redis://localhost:6379/0")
        sink = MemorySink()
        self.state = "running"

        def files(runner: Runner) -> Source:
            return FileSource([folder / "log.ndjson"], 4, listener=runner)

        service = self._service(settings, signals, lambda source: source.finished, files)
        service.runner.sink, service.runner.dead_letters = sink, NoDeadLetters()
        service.runner.checkpoints.store = MemoryStore()
        service.run()
        self.alerts = list({a.alert_id: a for a in sink.alerts}.values())

    def _settings(self, folder: Path, broker: str, redis_url: str) -> Settings:
        return Settings.model_validate(
            {
                "kafka": {
                    "brokers": [broker], "topic": TOPIC, "group": "demo", "auto_offset_reset": "earliest",
                    "session_timeout_ms": 10_000, "heartbeat_interval_ms": 1_000, "max_poll_interval_ms": 60_000,
                    "max_poll_records": 20_000,
                },
                "redis": {"url": redis_url},
                "checkpoint": {"path": str(folder / "state"), "every_s": 3},
                "http": {"port": 0},
            }
        )  # fmt: skip

    def _service(self, settings: Settings, signals: Signals, done: Done, source: OpenSource | None) -> live.Service:
        rules = wiring.load(settings)
        return live.service(
            settings, keys=Keyring.generate(), rules=rules, rule_paths=wiring.rule_paths(settings), signals=signals,
            done=done, source=source,
        )  # fmt: skip

    def _serve(self, settings: Settings, signals: Signals, done: Done) -> None:
        self.service = self._service(settings, signals, done, None)
        self.service.run()


class _Producer:
    """The simulator in a process of its own, so that it takes none of the pipeline's time."""

    def __init__(self, world: World, url: str, folder: Path):
        self._truth = folder / "truth.ndjson"
        self._count = folder / "produced"
        self._log = (folder / "producer.log").open("w+b")
        command = [sys.executable, "-m", "monitor.demo", url, str(world.accounts), str(world.days), str(world.seed)]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [*command, str(self._truth), str(self._count)], stdout=self._log, stderr=subprocess.STDOUT
        )

    @property
    def finished(self) -> bool:
        """Whether all was produced. Raises MonitorError where the producer failed."""
        code = self._process.poll()
        if code:
            self._log.seek(0)
            raise MonitorError(f"the producer failed: {self._log.read().decode('utf-8', 'replace')[-2000:]}")
        return code == 0

    @property
    def events(self) -> int:
        """Requests produced so far."""
        try:
            return int(self._count.read_text() or 0)
        except (OSError, ValueError):
            return 0

    @property
    def truth(self) -> dict[str, dict[str, str]]:
        """Account -> its line of the truth."""
        return _truth(self._truth) if self._truth.exists() else {}

    def stop(self) -> None:
        """End the process if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)
        self._log.close()


def _truth(path: Path) -> dict[str, dict[str, str]]:
    return {line["account_id"]: line for line in map(json.loads, path.read_text("utf-8").splitlines())}


def _newest(settings: Settings) -> list[Alert]:
    """The newest revision of every alert in the stream."""
    from monitor.store.alert_keys import AlertKeys
    from monitor.store.readers import list_alerts
    from monitor.store.redis_link import RedisOptions, connect

    client = connect(RedisOptions.of(settings.redis))
    keys = AlertKeys(settings.redis.key_prefix, settings.redis.stream)
    try:
        return list_alerts(client, keys, limit=1_000)
    finally:
        client.close()


def _produce(url: str, accounts: int, days: float, seed: int, truth: Path, count: Path) -> None:
    """The child process."""

    def note(share: float, requests: int) -> None:
        count.write_text(str(requests))

    done = live.produce_simulation(
        SCENARIOS, url, accounts=accounts, days=days, seed=seed, speed=None, heavy_cap=HEAVY_CAP, truth=truth,
        progress=note,
    )  # fmt: skip
    count.write_text(str(done.requests))


if __name__ == "__main__":
    _produce(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]), Path(sys.argv[6]))
