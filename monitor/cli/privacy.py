"""``monitor forget|hold|inventory|readings``: what is kept of whom, what must be kept, and who has looked."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from ..errors import BadInput, Problem
from ..plain import clean
from .alerts import when
from .casework import AtOption, CaseArgument, desk, moment, reader
from .common import ConfigOption, JsonOption, guarded, out, table, write_json


@guarded
def forget(
    account: Annotated[str, typer.Argument(help="The account to forget.")],
    config: ConfigOption = None,
    by: Annotated[str | None, typer.Option("--by", help="Who asks; this system's user if not given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what is stored in Redis and the archive about an account, and say what stays elsewhere until when."""
    cases = desk(config)
    settings = cases.settings
    done = cases.forget(reader(by), account)
    stays = [
        f"checkpoints ({settings.checkpoint.store}): until {settings.features.idle_days:g} days after its last "
        "request, and the alerts open on it: a next revision writes it again, so end its traffic or forget it again",
        "links of accounts for the campaign step, in Redis: three days, and in the campaign stage's own checkpoint",
        f"ledger keys: digests under the alert's id, until {settings.redis.ttl_s / 86_400:g} days after the last write",
        "request ids among the exemplars of campaigns it was in: they do not say whose they are",
        f"the log of readings: ids of accounts whose pages were read, {settings.evidence.keep_days:g} days",
        "your own: topics, webhooks' receivers, alerts files, reports",
    ]
    if as_json:
        write_json({"removed": msgspec.to_builtins(done), "stays": stays})
        return
    out.out(
        f"removed: {done.keys} keys, {done.entries} entries of the stream, {len(done.alerts)} alerts of its own; "
        f"its name from {len(done.campaigns)} campaigns; {done.archive} daily rows of the archive",
        highlight=False,
    )
    for line in stays:
        out.out(f"stays: {line}", highlight=False)


@guarded
def hold(
    alert_id: CaseArgument,
    why: Annotated[str, typer.Option("--why", help="The duty to preserve.")] = "",
    by: Annotated[str | None, typer.Option("--by", help="Who asks; this system's user if not given.")] = None,
    at: AtOption = None,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Preserve a case: print the request ids that your log must not lose, and keep its evidence from expiring."""
    from ..store import cases as store

    if not release and not why.strip():
        raise BadInput([Problem("arguments", 0, "--why is needed: a hold says which duty it serves")])
    cases = desk(config)
    name, who = cases.find(alert_id), reader(by)
    cases.note(who, "release" if release else "hold", name)
    if release:
        was = store.release(cases.client, cases.keys, name)
        out.out("the hold has ended" if was else "there was no hold", highlight=False)
        return
    held = store.hold(cases.client, cases.keys, cases.life, name, by=who.name, why=why, at=moment(at))
    if as_json:
        write_json({k: v for k, v in msgspec.to_builtins(held).items() if k != "revisions"})
        return
    out.out(
        f"# {name}: {len(held.request_ids)} requests of {len(held.accounts)} accounts, "
        f"{when(held.start)} to {when(held.end)} UTC",
        highlight=False,
    )
    for request in held.request_ids:
        out.out(clean(request), highlight=False)


@guarded
def inventory(as_json: JsonOption = False) -> None:
    """What is kept where, under which key, for how long, and what `monitor forget` removes."""
    from dataclasses import asdict

    from ..store.inventory import ELSEWHERE, REDIS

    kept = (*REDIS, *ELSEWHERE)
    if as_json:
        write_json([asdict(k) for k in kept])
        return
    rows = ((k.where, k.key, k.what, "yes" if k.names_accounts else "no", k.life, k.forget) for k in kept)
    out.print(table("What is kept", ("where", "key", "what", "names accounts", "for how long", "forget removes"), rows))


@guarded
def readings(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Who read or moved which case, newest first (where `evidence.audit` is redis)."""
    from ..store import cases as store

    cases = desk(config)
    found = store.readings(cases.client, cases.keys, limit)
    if as_json:
        write_json([msgspec.to_builtins(r) for r in found])
        return
    rows = ((when(r.at), clean(r.by), r.action, r.case, r.via) for r in found)
    out.print(table("Readings", ("when", "by", "what", "case", "way in"), rows))
