"""Ingest by HTTP put together from settings: for ``monitor ingest``, and for ``monitor run`` where it listens too."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry

from monitor import wiring
from monitor.decode import DecodeOptions, load_formats
from monitor.ingest import IngestServer, Intake, KafkaTarget, SpoolTarget, Target
from monitor.service import Health, HttpService, Signals, Systemd, fields, process_registry
from monitor.settings import Settings
from monitor.sketch import Keyring, Sketcher
from monitor.source.kafka_sender import LazySender
from monitor.source.spool import SpoolWriter
from monitor.telemetry import Telemetry

_LOG = logging.getLogger(__name__)
_TURN_S = 1.0


class Receiver:
    """A server and its target, ready to start."""

    def __init__(self, settings: Settings, keys: Keyring, telemetry: Telemetry):
        i = settings.ingest
        formats = load_formats(settings.decode.mappings, settings.decode.account_from)
        options = DecodeOptions(
            digest_key=wiring.digest_key(keys), max_bytes=i.max_body_bytes, future_s=settings.decode.future_s
        )
        self.target: Target = (
            SpoolTarget(SpoolWriter(i.spool, i.partitions, i.max_spool_bytes))
            if i.to == "spool"
            else KafkaTarget(LazySender(settings.kafka, settings.kafka.topic))
        )
        self.server = IngestServer(i, Intake(formats, Sketcher(keys), options, self.target), telemetry)

    def start(self) -> None:
        """Listen."""
        self.server.start()
        _LOG.info("ingest listens", extra=fields(url=self.server.url))

    def stop(self) -> None:
        """Answer what is in work, then let the target go."""
        self.server.stop()
        self.target.close()


def serve(settings: Settings, keys: Keyring, signals: Signals, registry: CollectorRegistry | None = None) -> None:
    """Run until a signal. Health and metrics are on the port of ``http`` as for ``run``."""
    registry = registry or process_registry()
    telemetry = Telemetry(registry)
    health = Health(("ingest",), on_change=lambda ready: telemetry.ready.set(ready))
    receiver = Receiver(settings, keys, telemetry)
    http = HttpService(settings.http, health, registry) if settings.http.enabled else None
    systemd = Systemd()
    try:
        if http is not None:
            http.start()
        receiver.start()
        health.set("ingest", True)
        systemd.ready()
        while not signals.wait(_TURN_S):
            health.beat()
            systemd.watchdog()
    finally:
        systemd.stopping()
        receiver.stop()
        if http is not None:
            http.stop()
