"""A LiteLLM proxy hook that asks `monitor serve` about the team or user of a verified key, and lets pass in doubt.

A verdict is kept for ``KEEP_S``; no answer within ``WAIT_S`` counts as none. By default nothing is refused: the verdict
goes into the request's metadata, where LiteLLM's loggers write it down.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger

KEEP_S, WAIT_S, MOST = 5.0, 0.2, 50_000


class Verdicts(CustomLogger):  # type: ignore[misc]
    """LiteLLM calls :meth:`async_pre_call_hook` before each request."""

    def __init__(self) -> None:
        self._url = os.environ.get("ABUSE_URL", "http://localhost:9465")
        token = os.environ.get("ABUSE_TOKEN_FILE")
        self._token = Path(token).read_text().strip() if token else ""
        self._deny = {word.strip() for word in os.environ.get("ABUSE_DENY", "").split(",")} - {""}
        self._kept: dict[str, tuple[float, str]] = {}

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """The request, with the verdict in its metadata; raises 403 where that verdict is to be refused."""
        account = user_api_key_dict.team_id or user_api_key_dict.user_id
        if account:
            verdict = await self.verdict(str(account))
            data.setdefault("metadata", {})["abuse_verdict"] = verdict
            if verdict in self._deny:
                raise HTTPException(403, "This account is under review. Contact support.")
        return data

    async def verdict(self, account: str) -> str:
        """``none``, ``observe``, ``review``, ``restrict`` or ``block``; ``unknown`` where no answer came."""
        held = self._kept.get(account)
        if held is not None and held[0] > time.monotonic():
            return held[1]
        try:
            said = await asyncio.wait_for(asyncio.to_thread(self._ask, account), WAIT_S)
        except (TimeoutError, OSError, ValueError, KeyError):
            return "unknown"
        if len(self._kept) >= MOST:
            self._kept.clear()
        self._kept[account] = (time.monotonic() + KEEP_S, said)
        return said

    def _ask(self, account: str) -> str:
        url = f"{self._url}/v1/verdict/{urllib.parse.quote(account, safe='')}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self._token}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:  # noqa: S310 - the operator's own address
            return str(json.load(answer)["verdict"])


verdicts = Verdicts()
