"""``monitor serve``: verdicts for gateways, the JSON API, the console."""

from __future__ import annotations

import asyncio
import signal

from .common import ConfigOption, err, guarded


@guarded
def serve(config: ConfigOption = None) -> None:
    """Serve verdicts, the JSON API and the console until SIGTERM. A process of its own, beside `monitor run`."""
    from ..console import Console
    from ..service import configure_logging
    from ..settings import load_settings

    settings = load_settings(config)
    configure_logging(settings.log)

    async def run() -> None:
        console = Console(settings)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        url = await console.start()
        err.print(f"serving on {url}", soft_wrap=True)
        try:
            await stop.wait()
        finally:
            await console.stop()

    asyncio.run(run())
