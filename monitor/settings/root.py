"""The whole tree of settings, and what follows from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from pydantic import Field

from .base import Section
from .connections import HttpSettings, IngestSettings, KafkaSettings, LogSettings, RedisSettings
from .people import ConsoleSettings, EvidenceSettings
from .stages import (
    AlertsSettings,
    ArchiveSettings,
    CampaignsSettings,
    CheckpointSettings,
    CorporaSettings,
    DecodeSettings,
    FeaturesSettings,
    KeysSettings,
    RulesSettings,
    ScoreSettings,
    SourceSettings,
)


class Settings(Section):
    """Everything that can be set. ``Settings()`` is the defaults, which suit a broker and a Redis on this host."""

    kafka: KafkaSettings = Field(default=KafkaSettings(), description="Where requests come from.")
    redis: RedisSettings = Field(default=RedisSettings(), description="Where alerts and verdicts go.")
    source: SourceSettings = Field(default=SourceSettings(), description="Who is scored; when bad records stop it.")
    decode: DecodeSettings = Field(default=DecodeSettings(), description="What one record may be.")
    keys: KeysSettings = Field(default=KeysSettings(), description="Keys of the sketches.")
    corpora: CorporaSettings = Field(default=CorporaSettings(), description="Which public texts are known.")
    features: FeaturesSettings = Field(default=FeaturesSettings(), description="How event time is cut.")
    score: ScoreSettings = Field(default=ScoreSettings(), description="Detectors that give a number.")
    campaigns: CampaignsSettings = Field(
        default=CampaignsSettings(), description="How accounts are found to belong together."
    )
    archive: ArchiveSettings = Field(default=ArchiveSettings(), description="What is kept for a hunt, and how long.")
    rules: RulesSettings = Field(default=RulesSettings(), description="Where detections are read from.")
    alerts: AlertsSettings = Field(default=AlertsSettings(), description="Where alerts go; the budget of false ones.")
    checkpoint: CheckpointSettings = Field(default=CheckpointSettings(), description="Where state is kept.")
    ingest: IngestSettings = Field(default=IngestSettings(), description="Requests that gateways post by HTTP.")
    evidence: EvidenceSettings = Field(
        default=EvidenceSettings(), description="Reports on a case, and who has read them."
    )
    console: ConsoleSettings = Field(
        default=ConsoleSettings(), description="Verdicts for gateways, the JSON API and the pages of `monitor serve`."
    )
    http: HttpSettings = Field(default=HttpSettings(), description="Health, readiness and metrics.")
    log: LogSettings = Field(default=LogSettings(), description="What is said on stderr.")

    def checks(self) -> Iterator[tuple[str, str]]:
        """What two sections mean together."""
        if self.campaigns.step_s % self.features.tick_s:
            yield "campaigns.step_s", "must be a multiple of features.tick_s"
        if self.archive.path is not None and not self.campaigns.enabled:
            yield "archive.path", "has no effect with campaigns.enabled: false, whose steps fill it"
        if self.archive.reads and self.archive.path is None:
            yield "archive.reads", "has no effect without archive.path"
        if "kafka" in self.alerts.sinks and self.kafka.alerts_topic is None:
            yield "kafka.alerts_topic", "is needed by the sink `kafka` of alerts.sinks"
        if self.kafka.alerts_topic is not None and "kafka" not in self.alerts.sinks:
            yield "kafka.alerts_topic", "has no effect: add `kafka` to alerts.sinks"
        if self.source.read == "spool" and self.decode.format != "native":
            yield "decode.format", "must be native with source.read: spool, whose rows were translated on arrival"
        if self.ingest.enabled and self.ingest.to == "spool" and self.source.read != "spool":
            yield "source.read", "must be spool where ingest.to is spool, or nobody reads what arrives"
        if (
            self.ingest.enabled
            and self.ingest.to == "kafka"
            and (self.source.read, self.decode.format)
            != (
                "kafka",
                "native",
            )
        ):
            yield "ingest.to", "writes native records to kafka.topic: needs source.read kafka, decode.format native"

    def missing_for_run(self) -> Iterator[tuple[str, str]]:
        """``(field, message)`` of what a demo or a backtest may leave open and ``monitor run`` may not.

        A generated key would make other sketches in each replica and after each restart: no link would hold.
        """
        if not self.keys.ring:
            yield "keys.ring", "is empty: give a key, the same in every replica (`openssl rand -hex 32` makes a secret)"

    @property
    def hash(self) -> str:
        """16 hex digits that change with every setting that can change an alert: ``versions.config`` of contract 2.

        Connections, ports, logs, secrets and paths are left out: two replicas of one configuration agree.
        """
        parts = {
            "entity": self.source.entity,
            "decode": self.decode.model_dump(mode="json", exclude={"mappings"}),
            "features": self.features.model_dump(mode="json", exclude={"partitions"}),
            "anomaly": self.score.anomaly.model_dump(mode="json"),
            "campaigns": self.campaigns.model_dump(mode="json", exclude={"idle_s"}),
            "keys": [key.id for key in self.keys.ring],
            "overlap_days": self.keys.overlap_days,
        }
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
