"""``monitor ingest``: what gateways post, into the topic or a spool, as a process of its own."""

from __future__ import annotations

from .common import ConfigOption, guarded


@guarded
def ingest(config: ConfigOption = None) -> None:
    """Take requests that gateways post (POST /v1/ingest/{format}) into Kafka or a spool, until SIGTERM."""
    from .. import receive, wiring
    from ..errors import BadInput, Problem
    from ..service import Signals, configure_logging
    from ..settings import load_settings

    settings = load_settings(config)
    missing = [Problem(str(config or "settings"), 0, message, field) for field, message in settings.missing_for_run()]
    if settings.ingest.token is None:
        message = "is needed: a file with a token, e.g. from `openssl rand -hex 32`"
        missing.append(Problem(str(config or "settings"), 0, message, "ingest.token_file"))
    if missing:
        raise BadInput(missing)
    configure_logging(settings.log)
    with Signals() as signals:
        receive.serve(settings, wiring.keyring(settings), signals)
