"""Requests that gateways post by HTTP: translated, stripped of text, and safe before they are acknowledged.

``intake`` is what becomes of a body, ``server`` is the HTTP around it, ``targets`` where the rows go. It puts together
decode, sketch and source as the pipeline does, before a topic or a spool instead of after it.
"""

from monitor.ingest.intake import Intake, Receipt
from monitor.ingest.server import IngestServer
from monitor.ingest.targets import KafkaTarget, SpoolTarget, Target

__all__ = ["IngestServer", "Intake", "KafkaTarget", "Receipt", "SpoolTarget", "Target"]
