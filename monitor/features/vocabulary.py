"""The whole vocabulary of rules: features of accounts, scores, and statistics of campaigns."""

from __future__ import annotations

from monitor.features.campaign_catalogue import CAMPAIGN
from monitor.features.catalogue import ACCOUNT_CATALOGUE, Catalogue

CATALOGUE = Catalogue((*ACCOUNT_CATALOGUE.features, *CAMPAIGN))
"""Everything that a rule may name."""
