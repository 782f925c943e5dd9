"""From the first record to the last, by the clock and by processor time; as JSON for who started the process."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def peak_rss_mb() -> int:
    """Largest resident memory in 10^6 bytes: VmHWM, since ru_maxrss counts the parent's at the time of the fork."""
    return round(int(Path("/proc/self/status").read_text("ascii").split("VmHWM:")[1].split()[0]) * 1024 / 1e6)


class Stopwatch:
    """``tick`` once a record (or with how many); ``write`` at the end."""

    def __init__(self) -> None:
        self.records = 0
        self._first = self._last = self._cpu0 = self._cpu1 = 0.0

    def tick(self, records: int = 1) -> None:
        """Records were taken."""
        if not self.records:
            self._first, self._cpu0 = time.perf_counter(), time.process_time()
        self.records += records
        # reading the processor time of every record would cost more than some of them
        if self.records % 1000 < records:
            self.mark()

    def mark(self) -> None:
        """What was taken until now is done."""
        self._last, self._cpu1 = time.perf_counter(), time.process_time()

    def write(self, path: str, versions: dict[str, str], settings: dict[str, Any]) -> None:
        """Rates as JSON into ``path``."""
        seconds, cpu = self._last - self._first, self._cpu1 - self._cpu0
        made = {
            "records": self.records, "seconds": round(seconds, 2), "per_s": round(self.records / seconds),
            "cpu_us_a_record": round(cpu / self.records * 1e6, 1),
            "peak_rss_mb": peak_rss_mb(),
            "versions": {"python": sys.version.split()[0], **versions}, "settings": settings,
        }  # fmt: skip
        Path(path).write_text(json.dumps(made))
