"""``monitor rekey`` and ``monitor dlq show``: topics beside the one that is scored."""

from __future__ import annotations

from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from .common import ConfigOption, JsonOption, err, guarded, out, table, write_json

dlq = typer.Typer(no_args_is_help=True, help="Records that were no request.")


@guarded
def rekey(
    source: Annotated[str, typer.Option("--from", help="Topic to read.")],
    target: Annotated[str, typer.Option("--to", help="Topic to write; it must exist.")],
    config: ConfigOption = None,
    by: Annotated[str, typer.Option("--by", help="Field to key by.")] = "account_id",
    sketch: Annotated[bool, typer.Option("--sketch", help="Strip text and client strings to keyed sketches.")] = False,
    format: Annotated[
        str | None, typer.Option(help="Format of the topic's records; each event in them becomes a native record.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop when caught up.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a topic into one that is keyed by the account, at least once, with event time as record time."""
    from .. import wiring
    from ..decode import NATIVE, expander
    from ..service import Signals
    from ..settings import load_settings
    from ..sketch import Sketcher
    from ..sketch.lines import sketch_json_lines
    from ..source.rekey import rekey as copy

    settings = load_settings(config)
    extra: dict[str, Any] = {}
    reader = wiring.reader(settings, format)
    foreign = reader.name != NATIVE
    if sketch or foreign:
        keys = wiring.keyring(settings)
        sketcher, key = Sketcher(keys), wiring.digest_key(keys)
        extra["digest"] = lambda value: blake2b(value, digest_size=16, key=key).hexdigest()
        if sketch:
            extra["sketch"] = lambda values: sketch_json_lines(values, sketcher)
        if foreign:
            extra["expand"] = expander(reader, source, settings.decode.max_bytes)
    with Signals() as signals:
        done = copy(
            settings.kafka, source, target, field=by, once=once, stop=lambda: signals.stopping,
            on_state=lambda state: err.print(state, markup=False), **extra,
        )  # fmt: skip
    if as_json:
        write_json(asdict(done))
    else:
        out.print(table("Rekeyed", ("", "records"), asdict(done).items()))


@dlq.command("show")
@guarded
def show(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    origin: Annotated[
        Path | None, typer.Option(help="Read each record in its topic again and write it here: it may hold text.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The newest dead letters; with --origin what they were, read from the topic itself."""
    from ..settings import load_settings
    from ..source.dead_letters import dlq_show

    found = list(dlq_show(load_settings(config).kafka, limit=limit, reason=reason, with_origin=origin is not None))
    if origin is not None:
        origin.write_bytes(b"".join((shown.origin or b"") + b"\n" for shown in found))
    if as_json:
        write_json([msgspec.to_builtins(shown.letter) for shown in found])
        return
    rows = [
        (s.letter.reason, s.letter.field or "", s.letter.topic, s.letter.partition, s.letter.offset, s.letter.length)
        for s in found
    ]
    out.print(table("Dead letters", ("reason", "field", "topic", "partition", "offset", "bytes"), rows))
