"""Settings to working objects: the one place where the steps meet their options. Opens no connection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from monitor import __version__, fields, memory, yamlfile
from monitor.alerts import AlertOptions, AlertStage, Lookups
from monitor.alerts.campaigns import CampaignAlerts
from monitor.archive import Archive, Reads
from monitor.campaigning import Campaigns
from monitor.campaigns import CampaignOptions, CampaignStage, LinkCollector, sums
from monitor.campaigns.calibrate import RANKED
from monitor.decode import NATIVE, DecodeOptions, Reader, expander, load_formats
from monitor.errors import BadInput, Problem
from monitor.features.aggregates import TextLayout, narrow_expressions
from monitor.features.catalogue import ACCOUNT_FEATURES, CLIENT_CLASSES
from monitor.features.engine import FeatureEngine, FeatureOptions
from monitor.features.vocabulary import CATALOGUE
from monitor.observe import Observer
from monitor.pipeline import Pipeline
from monitor.records import Expanded, RawBatch
from monitor.rules import HoldState, RuleSet, load_rules, packaged_rules
from monitor.score import AnomalyOptions, ClassifierOptions, ScoreOptions, Scorer, packaged_model
from monitor.settings import PACKAGED, Settings
from monitor.sketch import Corpora, CorpusKey, Keyring, Sketcher, load_corpora, read_generators
from monitor.sketch.heavy import HeavyStage
from monitor.sketch.vocabulary import LEXICON_FLAGS, SHAPE_NAMES
from monitor.telemetry import Telemetry
from monitor.ticks import TickOptions, TickStage
from monitor.vectors import VectorLayout

_DAY_MS = 86_400_000

CODES = {
    "batch": fields.code(fields.DELIVERIES, "batch") or 0,
    "length": fields.code(fields.FINISH_REASONS, "length") or 0,
    "json": fields.code(fields.RESPONSE_FORMATS, "json_object") or 0,
    "json_schema": fields.code(fields.RESPONSE_FORMATS, "json_schema") or 0,
    "high": fields.code(fields.REASONING_EFFORTS, "high") or 0,
}
"""Codes of the vocabulary that features look at."""

TEXT = TextLayout(SHAPE_NAMES, LEXICON_FLAGS)
"""Where the sketch keeps its scalars and flags."""

VECTORS = VectorLayout(SHAPE_NAMES, LEXICON_FLAGS)
"""Layout of the requests that the classifier reads."""


def keyring(settings: Settings, *, generated: Callable[[], Keyring] | None = None) -> Keyring:
    """The keys of the settings; where there are none, ``generated`` (a demo, a backtest) or BadInput (``run``)."""
    if settings.keys.ring:
        ring = [
            {
                "id": key.id,
                "secret": key.secret.get_secret_value() if key.secret is not None else None,
                "secret_file": key.secret_file,
                "active_from": key.active_from.timestamp() if key.active_from is not None else None,
            }
            for key in settings.keys.ring
        ]
        given = [{k: v for k, v in entry.items() if v is not None} for entry in ring]
        return Keyring.from_settings(given, settings.keys.overlap_days)
    if generated is None:
        raise BadInput([Problem("settings", 0, message, field) for field, message in settings.missing_for_run()])
    return generated()


def corpus_key(settings: Settings, keys: Keyring) -> CorpusKey:
    """What the items of known corpora are hashed under: a key that rotation of the sketch keys does not touch."""
    own = settings.corpora.secret
    return CorpusKey.of(keys, None if own is None else own.get_secret_value().encode())


def corpora(settings: Settings, keys: Keyring) -> Corpora:
    """The known corpora of the settings, or BadInput with every problem of every file."""
    return load_corpora(settings.corpora.dir, corpus_key(settings, keys))


def sketcher(settings: Settings, keys: Keyring) -> Sketcher:
    """What makes sketches, with the corpora and generator families of the settings. Raises BadInput as they do."""
    families = read_generators(settings.corpora.generators, lambda path: yamlfile.load(path).data)
    return Sketcher(keys, corpora(settings, keys), families)


def rule_paths(settings: Settings, extra: Sequence[Path] = ()) -> list[Path]:
    """Directories of rules: those given, else those of the settings, else those of the package."""
    return [*extra] or [*settings.rules.dirs] or [packaged_rules()]


def load(settings: Settings, extra: Sequence[Path] = ()) -> RuleSet:
    """The rule set, or BadInput with every problem of every file."""
    return load_rules(rule_paths(settings, extra), CATALOGUE, CLIENT_CLASSES, settings.rules.policy)


def reader(settings: Settings, format: str | None = None) -> Reader:
    """What reads the log: ``format``, else that of the settings. BadInput with every problem of every mapping."""
    name = settings.decode.format if format is None else format
    formats = load_formats(settings.decode.mappings, settings.decode.account_from)
    return formats.reader(name, "decode.format" if format is None else "--format")


def expansion(settings: Settings) -> Callable[[RawBatch], Expanded] | None:
    """What opens the records of the topic; None where they are contract 1."""
    found = reader(settings)
    return None if found.name == NATIVE else expander(found, settings.kafka.topic, settings.decode.max_bytes)


def pipeline(
    settings: Settings,
    *,
    keys: Keyring,
    rules: RuleSet,
    registry: CollectorRegistry | None = None,
    live: bool = False,
    expand: Callable[[RawBatch], Expanded] | None = None,
) -> Pipeline:
    """Every step by its settings, with nothing in it yet. ``expand`` opens the source's records (:func:`expansion`)."""
    memory.settle()
    f = settings.features
    tick_ms, epoch_ms = f.tick_s * 1000, f.epoch_s * 1000
    scorer = Scorer(score_options(settings), ACCOUNT_FEATURES, VECTORS)
    sketches = sketcher(settings, keys)
    versions = {
        "monitor": __version__,
        "rules": rules.hash,
        "model": scorer.status().classifier.active or "none",
        "config": settings.hash,
        **sketches.corpora.versions,
        **sketches.generators.versions,
    }
    observer = Observer(Telemetry(registry or CollectorRegistry()), live=live)
    observer.rules_in_force(rules)
    made: list[Pipeline] = []
    lookups = Lookups(
        exemplars=lambda p, s, ms: made[0].exemplars(p, s, ms),
        models=lambda p, s, ms: made[0].models(p, s, ms),
        quantile=lambda p, name, cls, value: None if cls is None else scorer.quantile(p, name, cls, value),
    )
    options = AlertOptions(tick_ms=tick_ms, subject_type=settings.source.entity, versions=versions)
    made.append(
        Pipeline(
            decode_options=DecodeOptions(
                digest_key=digest_key(keys),
                max_bytes=settings.decode.max_bytes,
                future_s=settings.decode.future_s,
                entity=settings.source.entity,
                expand=expand,
            ),
            sketcher=sketches,
            heavy=HeavyStage(sketches, epoch_ms),
            ticks=TickStage(
                TickOptions(
                    tick_ms=tick_ms,
                    lateness_ms=int(f.lateness_s * 1000),
                    max_jump_ms=int(f.max_jump_s * 1000),
                    dedup_ms=f.dedup_s * 1000,
                    dedup_max=f.dedup_max,
                )
            ),
            features=FeatureEngine(FeatureOptions(f.tick_s, f.idle_days), TEXT, CODES),
            scorer=scorer,
            rules=rules,
            hold=HoldState(f.tick_s),
            alerts=AlertStage(rules.policy, rules.rules, options, lookups),
            campaigns=campaigns(settings, rules, options),
            observe=observer,
            tick_ms=tick_ms,
            epoch_ms=epoch_ms,
            versions=versions,
        )
    )
    if settings.archive.path is not None:
        told = made[0].observe.archived
        step_ms = settings.campaigns.step_s * 1000
        names, layout = ACCOUNT_FEATURES.names, VECTORS.hash
        reads = Reads(settings.archive.path, step_ms, names, layout) if settings.archive.reads else None
        archive = Archive(settings.archive.path, step_ms, settings.archive.days, told, reads)
        made[0].seen, made[0].campaigns.archive = archive.scored, archive.put
    return made[0]


def campaigns(settings: Settings, rules: RuleSet, options: AlertOptions) -> Campaigns:
    """The campaign stage, with its blobs in memory."""
    c, step_ms = settings.campaigns, settings.campaigns.step_s * 1000
    added = sums.expressions(narrow_expressions(TEXT, CODES), TEXT.flag, TEXT.scalar)
    stage = CampaignStage(
        CampaignOptions(
            step_s=c.step_s, rebuild_s=c.rebuild_s, link_days=c.link_days, margin_bits=c.margin_bits,
            least_tenants=c.least_tenants, shipped_calibration=c.shipped_calibration,
        )
    )  # fmt: skip
    return Campaigns(
        collector=LinkCollector(settings.features.tick_s * 1000, step_ms, added),
        stage=stage,
        alerts=CampaignAlerts(rules.policy, rules.rules, options, step_ms, {r: s for r, (s, _) in RANKED.items()}),
        step_ms=step_ms,
        enabled=c.enabled,
        leaves_out=c.leave_out_of_learning,
    )


def score_options(settings: Settings) -> ScoreOptions:
    """The score stage's options."""
    a, c = settings.score.anomaly, settings.score.classifier
    return ScoreOptions(
        tick_s=settings.features.tick_s,
        epoch_s=settings.features.epoch_s,
        client_classes=CLIENT_CLASSES,
        anomaly=AnomalyOptions(
            enabled=a.enabled,
            trees=a.trees,
            height=a.height,
            window=a.window,
            quarantine_h=a.quarantine_h,
            sample_per_s=a.sample_per_s,
            seed=a.seed,
            accept_drift_epoch=None
            if a.accept_drift_at is None
            else math.ceil(a.accept_drift_at.timestamp() / settings.features.epoch_s),
        ),
        classifier=ClassifierOptions(
            model_dir=packaged_model() if c.model_dir == Path(PACKAGED) else c.model_dir,
            providers=c.providers,
            require_gpu=c.require_gpu,
            buckets=c.buckets,
            threads=c.threads,
            gpu_from=c.gpu_from,
        ),
    )


def digest_key(keys: Keyring) -> bytes:
    """The key of a reject's digest, derived from the newest sketch key."""
    return keys.keys[-1].derive("reject-digest", 32)
