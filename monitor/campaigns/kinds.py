"""What may link two accounts: each kind of link with who chooses it and which group of evidence it belongs to.

Kinds of one *group* depend on one another (a vendor's agent fixes the build, the TLS handshake and the system
prompt together), so they count once: an edge needs values of two groups. ``attested`` is what the provider knows
without the client's word; what the client chooses links accounts but makes nobody a core member by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

GROUPS = ("payment", "network", "creation", "blob", "contact", "referral", "software", "template")
"""Groups of kinds, in the order of their codes."""


@dataclass(frozen=True, slots=True)
class Kind:
    """``column`` is the event's (empty: made of the account's creation time); ``field`` the contract's; ``family`` the
    family of evidence of the alert."""

    name: str
    group: str
    column: str
    field: str
    attested: bool
    family: str = "linkage"

    @property
    def group_code(self) -> int:
        """Index of the group."""
        return GROUPS.index(self.group)


KINDS: tuple[Kind, ...] = (
    Kind("payment", "payment", "payment", "payment_fp", True),
    Kind("egress_prefix", "network", "net", "ip", True),
    Kind("egress_asn", "network", "asn", "asn", True),
    Kind("creation_cohort", "creation", "", "account_created_at", True),
    Kind("reasoning_blob", "blob", "blobs", "reasoning_blob_fp", True, "replay"),
    Kind("contact_domain", "contact", "contact", "contact_domain", False),
    Kind("referral", "referral", "referral", "referral_fp", False),
    Kind("client_build", "software", "client", "client_name", False, "client"),
    Kind("user_agent", "software", "user_agent", "user_agent", False, "client"),
    Kind("ja4", "software", "ja4", "ja4", False, "client"),
    Kind("tool_schema", "software", "tool_schema", "tool_schema_fp", False, "client"),
    Kind("system_prompt", "software", "system_skeleton", "system", False, "template"),
    Kind("template_opening", "template", "prompt_prefix", "prompt", False, "template"),
    Kind("template_closing", "template", "prompt_tail", "prompt", False, "template"),
)
"""Every kind; its code is its index."""
BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}
CODE: Mapping[str, int] = {kind.name: code for code, kind in enumerate(KINDS)}
GROUP_OF = np.array([kind.group_code for kind in KINDS], np.int64)
ATTESTED = np.array([kind.attested for kind in KINDS], np.bool_)
EXACT = np.array([kind.family == "replay" for kind in KINDS], np.bool_)
"""By code: the group of a kind; whether the provider attests it; whether one shared value is proof by itself."""
TEMPLATES = frozenset({CODE["template_opening"], CODE["template_closing"]})

COHORT_MS = 12 * 3_600_000
"""Length of a creation cohort. Two grids, half a length apart, so that no cohort is cut at its middle by a border:
accounts made within six hours always share one. Counted from the first step, never from midnight."""
