"""All settings of the monitor: one frozen section a stage, units in the names, every knob with a default.

:func:`load_settings` reads one YAML file, then ``MONITOR__SECTION__KEY`` of the environment, then the files that
``*_file`` settings name, and reports all problems at once. The sections know no library they configure.
"""

from __future__ import annotations

from .base import Section
from .connections import HttpSettings, IngestSettings, KafkaSettings, LogSettings, RedisSettings
from .example import example_yaml
from .loading import ENV_PREFIX, json_schema, load_settings, masked
from .root import Settings
from .stages import (
    PACKAGED,
    AlertsSettings,
    AnomalySettings,
    CampaignsSettings,
    CheckpointSettings,
    ClassifierSettings,
    DecodeSettings,
    FeaturesSettings,
    KeySettings,
    KeysSettings,
    RejectLimit,
    RulesSettings,
    ScoreSettings,
    SourceSettings,
    WebhookSettings,
)

__all__ = [
    "ENV_PREFIX",
    "PACKAGED",
    "AlertsSettings",
    "AnomalySettings",
    "CampaignsSettings",
    "CheckpointSettings",
    "ClassifierSettings",
    "DecodeSettings",
    "FeaturesSettings",
    "HttpSettings",
    "IngestSettings",
    "KafkaSettings",
    "KeySettings",
    "KeysSettings",
    "LogSettings",
    "RedisSettings",
    "RejectLimit",
    "RulesSettings",
    "ScoreSettings",
    "Section",
    "Settings",
    "SourceSettings",
    "WebhookSettings",
    "example_yaml",
    "json_schema",
    "load_settings",
    "masked",
]
