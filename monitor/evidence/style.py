"""The one style sheet of reports and console. Contrast of text is at least 4.5 : 1 in both schemes; a test counts."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

CSS = files(__name__.rpartition(".")[0]).joinpath("style.css").read_text("utf-8")
"""The text of ``style.css``."""

CSS_HASH = "sha256-" + base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
"""For a policy that allows this style sheet and no other."""

REPORT_POLICY = f"default-src 'none'; style-src '{CSS_HASH}'; base-uri 'none'; form-action 'none'"
"""Content security policy of a report: nothing is fetched, nothing runs."""
