"""``monitor ingest`` as a process to kill. Arguments: the settings file, and ``early`` to plant the classic mistake.

``early``: the answer is given before the rows are written, as a spool with a queue in memory would.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from monitor import receive, wiring
from monitor.service import Signals, configure_logging
from monitor.settings import load_settings
from monitor.source.spool import SpoolWriter


def main() -> None:
    settings = load_settings(Path(sys.argv[1]))
    configure_logging(settings.log)
    if sys.argv[2:] == ["early"]:
        real = SpoolWriter.append

        def later(self, rows):
            threading.Thread(target=lambda: (time.sleep(0.2), real(self, rows)), daemon=True).start()

        SpoolWriter.append = later  # type: ignore[method-assign]
    with Signals() as signals:
        receive.serve(settings, wiring.keyring(settings), signals)


main()
