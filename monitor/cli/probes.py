"""What ``monitor doctor`` tries beyond this process: Kafka, Redis, the rules, the classifier and its GPU.

Each probe goes through the package that holds the library, and imports it when it runs: a broken installation is
then a finding and not a traceback of the whole command.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import BadInput
from ..settings import RedisSettings, Settings
from .doctor import Finding, Probe

_NVIDIA = Path("/proc/driver/nvidia/version")


def connections(settings: Settings) -> Iterator[Probe]:
    """The probes of a run with these settings."""
    if settings.source.read == "kafka":
        yield Probe("kafka", lambda: _kafka(settings), 30.0)
    if "redis" in settings.alerts.sinks or settings.checkpoint.store == "redis":
        yield Probe("redis", lambda: _redis(settings.redis), 15.0)
    if settings.checkpoint.store == "object":
        yield Probe("checkpoints", lambda: _objects(settings), 60.0)
    yield Probe("rules", lambda: _rules(settings), 60.0)
    yield Probe("classifier", lambda: _classifier(settings), 120.0)


def _kafka(settings: Settings) -> Finding:
    from ..source.kafka_client import missing_codecs, reader

    kafka = settings.kafka
    with reader(kafka) as consumer:
        known = set(consumer.topics())
        found = {name: len(consumer.partitions_for_topic(name) or ()) for name in sorted(known)}
    if kafka.topic not in found:
        near = ", ".join(list(found)[:10]) or "none at all"
        remedy = f"create it (keyed by account_id), or set kafka.topic; this user sees: {near}"
        return Finding("failed", f"there is no topic {kafka.topic!r}", remedy)
    also = [name for name in (kafka.dead_letters, kafka.context_topic, kafka.alerts_topic) if name]
    absent = [name for name in also if name not in found]
    detail = f"{kafka.topic}: {found[kafka.topic]} partitions at {', '.join(kafka.brokers)}"
    if absent:
        return Finding("warning", f"{detail}; not there yet: {', '.join(absent)}", "create them before you run")
    codecs = missing_codecs()
    return Finding("warning", detail, "; ".join(codecs)) if codecs else Finding("ok", detail)


def _redis(settings: RedisSettings) -> Finding:
    from ..store.redis_link import RedisOptions
    from ..store.redis_sink import RedisSink

    options = RedisOptions.of(settings)
    sink = RedisSink(options, prefix=settings.key_prefix, stream=settings.stream)
    try:
        sink.check()
    finally:
        sink.close()
    return Finding("ok", f"answers at {options.place}")


def _objects(settings: Settings) -> Finding:
    from ..store import object_store

    store = object_store(settings.checkpoint, "doctor")
    try:
        store.require_conditions()
    finally:
        store.close()
    return Finding("ok", f"{settings.checkpoint.url} can be written, and honours conditions")


def _rules(settings: Settings) -> Finding:
    from ..wiring import load

    try:
        rules = load(settings)
    except BadInput as error:
        return Finding(
            "failed", f"{len(error.problems)} problems, the first: {error.problems[0]}", "`monitor rules lint`"
        )
    modes = [rule.mode for rule in rules.rules.values()]
    return Finding("ok", f"{modes.count('alert')} alert, {modes.count('shadow')} on trial (hash {rules.hash})")


def _classifier(settings: Settings) -> Finding:
    from ..features.catalogue import ACCOUNT_FEATURES
    from ..score import Scorer
    from ..wiring import VECTORS, score_options

    driver = "an NVIDIA driver is loaded" if _NVIDIA.exists() else "no NVIDIA driver is loaded"
    if settings.score.classifier.model_dir is None:
        return Finding("ok", f"inactive: no score.classifier.model_dir; {driver}")
    status = Scorer(score_options(settings), ACCOUNT_FEATURES, VECTORS).status().classifier
    if status.inactive is not None:
        return Finding(
            "failed", status.inactive, "mend the model's directory, or set score.classifier.model_dir to none"
        )
    detail = f"{status.active} on {', '.join(status.providers)}; {driver}"
    if status.fallback is not None and _NVIDIA.exists():
        remedy = "install the driver and CUDA 13 with cuDNN 9, or put cpu first in score.classifier.providers"
        return Finding("warning", f"{detail}; {status.fallback}", remedy)
    return Finding("ok", detail if status.fallback is None else f"{detail}; {status.fallback}")
