"""The commands of ``monitor``, one module a group. Data goes to stdout, everything else to stderr.

Exit codes: 0 done, 1 findings, 2 unusable arguments, settings or rules, 3 a server or the input is not there.
"""

import os

# Before any command imports Polars, which reads it then: on batches of 10,000 rows its threads take turns with those of
# the service. On two cores one thread made 19,583 records a second, two made 18,079 (bench_pipeline.py --hours 4).
os.environ.setdefault("POLARS_MAX_THREADS", "1")
