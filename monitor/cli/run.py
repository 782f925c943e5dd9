"""``monitor run``: the service."""

from __future__ import annotations

from .common import ConfigOption, guarded


@guarded
def run(config: ConfigOption = None) -> None:
    """Read the topic, score accounts, raise alerts, until SIGTERM (which drains) or a second one (which does not)."""
    from .. import live, wiring
    from ..errors import BadInput, Problem
    from ..service import Signals, configure_logging
    from ..settings import load_settings

    settings = load_settings(config)
    missing = [Problem(str(config or "settings"), 0, message, field) for field, message in settings.missing_for_run()]
    if missing:
        raise BadInput(missing)
    configure_logging(settings.log)
    rules = wiring.load(settings)
    with Signals() as signals:
        live.service(
            settings,
            keys=wiring.keyring(settings),
            rules=rules,
            rule_paths=wiring.rule_paths(settings),
            signals=signals,
        ).run()
