"""Accounts that belong together: links, the graph, pooled statistics and their calibration.

``LinkCollector`` makes one blob a partition and step; ``CampaignStage`` takes the blobs of all partitions and gives
the candidates of a step. Knows no rule, no alert, no server, and reads no clock.
"""

from monitor.campaigns.blob import StepBlob, many_of_bytes, many_to_bytes
from monitor.campaigns.collect import LinkCollector
from monitor.campaigns.options import CampaignOptions, Facts, NoFacts
from monitor.campaigns.stage import COLUMNS, CampaignStage, Candidates

__all__ = [
    "COLUMNS", "CampaignOptions", "CampaignStage", "Candidates", "Facts", "LinkCollector", "NoFacts", "StepBlob",
    "many_of_bytes", "many_to_bytes",
]  # fmt: skip
