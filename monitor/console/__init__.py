"""`monitor serve`: verdicts for gateways, a JSON API, and pages for people. Its own process, beside no decode loop.

A small HTTP/1.1 server on asyncio (``http``), who may do what (``access``), the API (``api``), the pages (``pages``,
``site``), all of it put together in ``app``. It reads Redis and the rule files; it writes decisions and readings.
"""

from __future__ import annotations

from .app import Console

__all__ = ["Console"]
