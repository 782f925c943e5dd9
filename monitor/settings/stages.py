"""Settings of the pipeline's steps: what a request is, how time is cut, what is learned, what is raised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from .base import FORM, Section, Text, split

Paths = Annotated[tuple[Path, ...], BeforeValidator(split)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(split)]
HOUR_S = 3_600
DAY_S = 86_400


class RejectLimit(Section):
    """When bad records stop a partition, so that a bad deploy can't drain the log into the dead letters."""

    ratio: float = Field(
        default=0.5, gt=0, le=1, description="Share of rejects among the last window_records that stops it."
    )
    window_records: int = Field(
        default=10_000, ge=100, le=10_000_000, description="Records that the ratio is taken over."
    )
    consecutive: int = Field(default=5_000, ge=1, le=10_000_000, description="Rejects in a row that stop it.")


class SourceSettings(Section):
    """Who is scored, where requests are read, and how much that is bad may be read."""

    read: Literal["kafka", "spool"] = Field(
        default="kafka", description="Where requests come from: the topic, or what arrived by HTTP (ingest.spool)."
    )
    entity: Literal["account", "org", "project", "key", "account+end_user"] = Field(
        default="account", description="Who is scored; the topic must be keyed by the account in any case."
    )
    reject_limit: RejectLimit = Field(default=RejectLimit(), description="When bad records stop a partition.")


class DecodeSettings(Section):
    """What one record may be."""

    max_bytes: int = Field(default=1 << 20, ge=1_024, le=1 << 28, description="A longer record is rejected: oversize.")
    future_s: float = Field(
        default=300.0, ge=0, le=DAY_S, description="A request this far after its record's Kafka timestamp is rejected."
    )
    format: Text = Field(
        default="native",
        description="Format of the records: native (contract 1), a mapping's name (`monitor formats list`), or auto.",
    )
    mappings: Paths = Field(default=(), description="Directories of mappings of your own, beside those of the package.")
    account_from: Texts = Field(
        default=(),
        description="Paths to the account in a foreign format, tried before its mapping's, e.g. metadata/tenant.",
    )


class KeySettings(Section):
    """One key for sketches. Rotate by adding a key with a later ``active_from``, not by changing a secret."""

    id: Text = Field(max_length=64, pattern=r"^[A-Za-z0-9_.-]+$", description="Name of the key, written in sketches.")
    secret: SecretStr | None = Field(default=None, description="At least 32 characters of random; better in a file.")
    secret_file: Path | None = Field(default=None, description="File that holds the secret.")
    active_from: AwareDatetime | None = Field(
        default=None,
        description="Event time from which this key is the active one (RFC 3339 with a zone); null: from ever.",
    )

    def checks(self) -> Iterator[tuple[str, str]]:
        """A secret that is missing or too short to be one."""
        if self.secret is None and self.secret_file is None:
            yield "secret_file", "is needed (or secret): 32 random bytes, e.g. from `openssl rand -hex 32`"
        if self.secret is not None and len(self.secret.get_secret_value()) < 32:
            yield "secret", "is shorter than 32 characters: make one with `openssl rand -hex 32`"


class KeysSettings(Section):
    """Keys that turn text and identifiers into sketches. With no key, one is generated: not for ``monitor run``."""

    ring: tuple[KeySettings, ...] = Field(
        default=(), description="The keys; empty: a generated one (demo and backtest only)."
    )
    overlap_days: float = Field(
        default=30.0,
        ge=0,
        le=366,
        description="How long identifiers are also written under the key before; a link's life.",
    )

    def checks(self) -> Iterator[tuple[str, str]]:
        """Ids that occur twice; more than one key without a beginning."""
        ids = [key.id for key in self.ring]
        for name in sorted({i for i in ids if ids.count(i) > 1}):
            yield "ring", f"the key id {name!r} occurs twice"
        begins = [key.active_from for key in self.ring]
        if len(set(begins)) != len(begins):
            yield "ring", "two keys have the same active_from: which one is active must be clear"


class CorporaSettings(Section):
    """Known public instruction sets and benchmarks (`monitor corpus build`): their items are told among requests."""

    dir: Path | None = Field(default=None, description="Directory of *.corpus files; null: no corpus is known.")
    secret: SecretStr | None = Field(
        default=None, description="What the files' key is derived from; null: the oldest key of keys.ring."
    )
    secret_file: Path | None = Field(default=None, description="File that holds it.")
    generators: Path | None = Field(
        default=None, description="Directory of signatures of further generator families; null: those of the package."
    )

    def checks(self) -> Iterator[tuple[str, str]]:
        """A secret that is too short to be one."""
        if self.secret is not None and len(self.secret.get_secret_value()) < 32:
            yield "secret", "is shorter than 32 characters: make one with `openssl rand -hex 32`"


class FeaturesSettings(Section):
    """How event time is cut. A change of any of these makes other features: start with fresh checkpoints."""

    tick_s: int = Field(default=10, ge=1, le=60, description="Length of a tick: accounts are scored once a tick.")
    lateness_s: float = Field(
        default=2.0, ge=0, le=600, description="How far the watermark stays behind the newest event."
    )
    epoch_s: int = Field(
        default=HOUR_S, ge=60, le=DAY_S, description="What learns or is configured is frozen for so long."
    )
    max_jump_s: float = Field(
        default=float(HOUR_S),
        ge=60,
        le=7 * DAY_S,
        description="Farthest that one account alone may move the watermark.",
    )
    idle_days: float = Field(default=7.0, ge=7, le=90, description="An account silent for so long is forgotten.")
    dedup_s: int = Field(default=HOUR_S, ge=60, le=DAY_S, description="How far back duplicates are recognised.")
    dedup_max: int = Field(
        default=5_000_000, ge=1_000, le=100_000_000, description="Most request keys a partition remembers."
    )
    partitions: int = Field(
        default=4, ge=1, le=1_024, description="Virtual partitions of a backtest; as the topic's to compare."
    )

    def checks(self) -> Iterator[tuple[str, str]]:
        """An epoch that is not a whole number of ticks, or does not divide a day."""
        if self.epoch_s % self.tick_s:
            yield "epoch_s", "must be a multiple of tick_s"
        if 60 % self.tick_s:
            yield "tick_s", "must divide a minute: windows are made of minutes"
        if DAY_S % self.epoch_s:
            yield "epoch_s", "must divide a day (86,400)"


class AnomalySettings(Section):
    """river's half-space trees on the population, one forest a client class and partition."""

    enabled: bool = Field(default=True, description="Whether to score and learn.")
    trees: int = Field(default=10, ge=1, le=100, description="Trees of a forest.")
    height: int = Field(default=6, ge=2, le=12, description="Height of a tree.")
    window: int = Field(default=256, ge=10, le=100_000, description="Rows between two pivots of the mass profile.")
    quarantine_h: float = Field(
        default=24.0, ge=0, le=168, description="How long a row waits before it is learned from."
    )
    sample_per_s: float = Field(
        default=10.0, gt=0, le=1_000, description="Most rows a second of event time that are learned from."
    )
    seed: int = Field(default=1, ge=0, le=2**31 - 1, description="Seed of the trees.")
    accept_drift_at: AwareDatetime | None = Field(
        default=None,
        description="Event time from whose epoch on the population as it is now counts as ordinary, even if it left "
        "the bounds; a time to come, with a zone. Null: never by itself.",
    )


PACKAGED = "packaged"
"""Word for the model that ships with the package, in place of its directory: a path of this machine in the settings
would give every installation a hash of its own."""


def _none(value: object) -> object:
    """The word ``none``, in any case, for null: the environment knows no null."""
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


class ClassifierSettings(Section):
    """The ONNX classifier. Without a model it is inactive and says so."""

    model_dir: Annotated[Path | None, BeforeValidator(_none)] = Field(
        default=Path(PACKAGED),
        description="Directory with model.onnx and manifest.json, or with versions and CURRENT; packaged: the model "
        "that ships; none: inactive.",
    )
    providers: Annotated[tuple[Literal["tensorrt", "cuda", "cpu"], ...], BeforeValidator(split)] = Field(
        default=("cuda", "cpu"), min_length=1, description="Execution providers in order of preference."
    )
    require_gpu: bool = Field(
        default=False, description="Refuse to be ready on a CPU, instead of falling back and saying so."
    )
    buckets: Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], BeforeValidator(split)] = Field(
        default=(8, 64, 256, 1_024, 4_096, 16_384),
        min_length=1,
        description="Sizes that an inference is padded to, rising; a CPU uses those up to 64.",
    )
    gpu_from: int = Field(
        default=32,
        ge=1,
        le=65_536,
        description="Fewer rows at once go to the CPU also where a GPU is; not with require_gpu.",
    )
    threads: int = Field(
        default=1, ge=1, le=256, description="Threads of one inference on a CPU; more fight with Polars."
    )

    def checks(self) -> Iterator[tuple[str, str]]:
        """A GPU demanded without a provider for one; sizes that do not rise."""
        if sorted(set(self.buckets)) != list(self.buckets):
            yield "buckets", "must rise"
        if self.require_gpu and not {"cuda", "tensorrt"} & set(self.providers):
            yield "require_gpu", "needs cuda or tensorrt among the providers"


class ScoreSettings(Section):
    """Detectors that give a number."""

    anomaly: AnomalySettings = Field(
        default=AnomalySettings(), description="Models on the population and on each account's change."
    )
    classifier: ClassifierSettings = Field(default=ClassifierSettings(), description="The ONNX model.")


class CampaignsSettings(Section):
    """Accounts that belong together. A change of step_s or margin_bits makes other campaigns: start afresh."""

    enabled: bool = Field(default=True, description="Whether accounts are linked.")
    step_s: int = Field(default=600, ge=10, le=DAY_S, description="Length of a campaign step: a multiple of a tick.")
    rebuild_s: int = Field(
        default=3_600, ge=60, le=DAY_S, description="Longest time between two rebuilds of the graph; new links bring "
        "one forward."
    )  # fmt: skip
    link_days: float = Field(default=30.0, ge=1, le=366, description="How long a link lives after it was last seen.")
    margin_bits: float = Field(
        default=8.0, ge=0, le=64, description="Surprise of an edge beyond the number of pairs looked at: 8 bits are "
        "one edge by chance in 256 rebuilds."
    )  # fmt: skip
    leave_out_of_learning: bool = Field(
        default=False,
        description="Whether models learn nothing from accounts that are suspected of a campaign, from the next epoch "
        "on. Amid a backlog a restart then makes other alerts: for a service that keeps up.",
    )
    least_tenants: int = Field(default=3, ge=2, le=1_000, description="Unrelated tenants that make a candidate.")
    shipped_calibration: bool = Field(
        default=True, description="Groups of simulated honest traffic stand in until the log has 300 of its own; "
        "each alert says how many. Off: medium at most until there are 100."
    )  # fmt: skip
    idle_s: float = Field(
        default=60.0, ge=1, le=DAY_S, description="A partition with nothing to read for so long holds no step back."
    )


class ArchiveSettings(Section):
    """Daily rows of every account, for `monitor hunt`: sums, keyed hashes, ids; no text. Off without a path."""

    path: Path | None = Field(
        default=None,
        description="Folder that all replicas share, one a topic; null: nothing is kept. Needs campaigns.enabled.",
    )
    days: int = Field(default=90, ge=1, le=3_660, description="How long a day is kept, in event time.")
    reads: bool = Field(
        default=False,
        description="Keep of each account and day also what the classifier read last, for `monitor rescore`.",
    )


class RulesSettings(Section):
    """Where detections are read from."""

    dirs: Paths = Field(default=(), description="Directories of rules, later ones add; empty: those of the package.")
    policy: Path | None = Field(
        default=None, description="The conditions of HIGH and the caps; null: those of the package."
    )
    reload_s: float = Field(
        default=30.0, ge=0, le=DAY_S, description="How often the files are looked at; 0: on SIGHUP alone."
    )


class WebhookSettings(Section):
    """An HTTP endpoint that gets each alert, signed, at least once."""

    url: SecretStr | None = Field(default=None, description="http(s) URL; often a secret itself. Null: no webhook.")
    url_file: Path | None = Field(default=None, description="File that holds the URL.")
    secret: SecretStr | None = Field(default=None, description="Key of the signature (HMAC-SHA256); better in a file.")
    secret_file: Path | None = Field(default=None, description="File that holds the key.")
    timeout_s: float = Field(default=5.0, gt=0, le=120, description="Longest wait for one answer.")
    retries: int = Field(default=5, ge=0, le=100, description="Tries after the first before consumption pauses.")
    backoff_max_s: float = Field(default=30.0, gt=0, le=3_600, description="Longest wait between two tries.")

    def checks(self) -> Iterator[tuple[str, str]]:
        """A URL that is not one, without quoting it."""
        if self.url is not None and not self.url.get_secret_value().startswith(("http://", "https://")):
            yield "url", "must begin with http:// or https://"


class AlertsSettings(Section):
    """Where alerts go, and the budget of false ones."""

    budget_per_week: float = Field(
        default=1.0,
        gt=0,
        le=100_000,
        description="False HIGH alerts a week that you accept; what people find false is held against it "
        "(/v1/quality). No threshold follows from it yet.",
    )
    sinks: Annotated[tuple[Literal["redis", "kafka", "webhook", "file"], ...], BeforeValidator(split)] = Field(
        default=("redis",), description="Where alerts are written. Only redis is exactly once."
    )
    file: Path | None = Field(default=None, description="NDJSON file of the sink `file`.")
    webhook: WebhookSettings = Field(default=WebhookSettings(), description="The sink `webhook`.")
    max_accounts: int = Field(
        default=1_000, ge=1, le=100_000, description="Most members written out to Redis, Kafka and webhooks."
    )
    busy_retry_s: float = Field(
        default=1.0, gt=0, le=300, description="Wait before a busy sink is tried again; reading pauses."
    )

    def checks(self) -> Iterator[tuple[str, str]]:
        """A sink without what it needs."""
        if "file" in self.sinks and self.file is None:
            yield "file", "is needed by the sink `file`"
        if "webhook" in self.sinks and self.webhook.url is None and self.webhook.url_file is None:
            yield "webhook", "needs a url or url_file for the sink `webhook`"


def _object_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"s3", "gs", "az"} or not parts.hostname:
        raise PydanticCustomError(FORM, "must be s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX")
    if parts.username is not None or parts.query or parts.fragment:
        raise PydanticCustomError(FORM, "holds more than bucket and prefix: credentials belong in the environment")
    return value


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise PydanticCustomError(FORM, "must be http://HOST:PORT or https://HOST, without a user")
    return value


class CheckpointSettings(Section):
    """Where state and offsets are written together."""

    store: Literal["directory", "redis", "object"] = Field(
        default="directory", description="A directory that all replicas share, Redis, or an object store."
    )
    path: Path = Field(default=Path("state"), description="The directory.")
    url: Annotated[Text, AfterValidator(_object_url)] | None = Field(
        default=None,
        description="The object store: s3://BUCKET/PREFIX, gs:// or az://; credentials come from the environment.",
    )
    endpoint: Annotated[Text, AfterValidator(_endpoint)] | None = Field(
        default=None, description="Address of another S3-compatible server; null: the provider's own."
    )
    every_s: float = Field(
        default=30.0, gt=0, le=3_600, description="Time between two checkpoints; a restart repeats as much."
    )
    drain_s: float = Field(
        default=20.0, gt=0, le=600, description="Longest time that SIGTERM may take; under the grace period."
    )

    def checks(self) -> Iterator[tuple[str, str]]:
        """An object store without its address, or an address without an object store."""
        if self.store == "object" and self.url is None:
            yield "url", "is needed by checkpoint.store: object"
        if self.store != "object" and self.url is not None:
            yield "url", f"has no effect with checkpoint.store: {self.store}"
        if self.endpoint is not None and (self.url is None or not self.url.startswith("s3://")):
            yield "endpoint", "is for s3:// only"
