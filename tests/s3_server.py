"""``python tests/s3_server.py PORT True|False``: moto's S3 on loopback, one request at a time.

moto checks a condition and writes in two steps. With a thread for each request two writers can both pass the check,
which no real S3 allows. ``False`` takes the conditions away before moto sees them.
"""

from __future__ import annotations

import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def main() -> None:
    port, conditions = int(sys.argv[1]), sys.argv[2] == "True"
    app = DomainDispatcherApplication(create_backend_app)

    def without(environ, start_response):
        for name in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"):
            environ.pop(name, None)
        return app(environ, start_response)

    run_simple("127.0.0.1", port, app if conditions else without, threaded=False)


main()
