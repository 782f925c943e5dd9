"""Memory does not grow with the length of a run."""

import subprocess
import sys

CODE = """
import resource, sys
from monitor.simulate import Simulator
world = Simulator(["S4", "B3"], accounts=500, days=float(sys.argv[1]), seed=1, heavy_cap=300)
for chunk in world:
    pass
print(world.requests, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _run(days: float) -> tuple[int, int]:
    out = subprocess.run([sys.executable, "-c", CODE, str(days)], check=True, capture_output=True, text=True,
                         env={"PYTHONPATH": ":".join(sys.path), "POLARS_MAX_THREADS": "1"}).stdout.split()  # fmt: skip
    return int(out[0]), int(out[1])


def test_resident_memory_over_three_lengths():
    runs = [_run(days) for days in (1, 4, 12)]
    requests, peak_kb = zip(*runs, strict=True)
    assert requests[2] > 8 * requests[0]
    # a stored request takes over 1 kB: 150,000 more of them would be 150 MB
    assert peak_kb[2] - peak_kb[0] < 70_000
    assert peak_kb[2] - peak_kb[1] < 45_000
