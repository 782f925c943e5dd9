"""From rules that hold to alerts, and from alerts to whoever is told.

``stage`` opens, revises and closes episodes; ``compose`` and ``evidence`` write contract 2; ``severity``
applies the policy; ``sinks`` and ``webhook`` deliver. The package knows no rule compiler, no Kafka, no Redis.
"""

from monitor.alerts.options import AlertOptions, Detection, Lookups
from monitor.alerts.sinks import FanOut, FileSink, KafkaSink, LiveOnly, MemorySink, Sink, key_of
from monitor.alerts.stage import AlertStage
from monitor.alerts.webhook import WebhookSink

__all__ = [
    "AlertOptions",
    "AlertStage",
    "Detection",
    "FanOut",
    "FileSink",
    "KafkaSink",
    "LiveOnly",
    "Lookups",
    "MemorySink",
    "Sink",
    "WebhookSink",
    "key_of",
]
