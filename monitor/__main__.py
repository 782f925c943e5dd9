"""``monitor``: the command line. Each command imports what it needs when it is called; start-up stays short."""

from __future__ import annotations

import functools
import sys

import typer

from . import __version__

EXIT_CODES = """
Exit status: 0 done; 1 something failed or a test of yours did; 2 unusable arguments, settings or rules, each with
file and line; 3 nothing readable in the input, or a server did not answer.
"""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Finds distillation scraping in a model provider's API log, without keeping a prompt." + EXIT_CODES,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"api-abuse-monitor {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Say the version."),
) -> None:
    pass


@functools.cache
def build() -> typer.Typer:
    """The whole application. Put together once: the commands' own applications are module-wide."""
    from .cli import (
        backtest,
        casework,
        check,
        config,
        corpus,
        decisions,
        demo,
        doctor,
        evaluate,
        evidence,
        exceptions,
        features,
        formats,
        hunt,
        ingest,
        privacy,
        rescore,
        rules,
        run,
        serve,
        simulate,
        templates,
        topics,
        train,
        tuning,
    )

    app.command("demo")(demo.demo)
    app.command("run")(run.run)
    app.command("ingest")(ingest.ingest)
    app.command("check")(check.check)
    app.command("backtest")(backtest.backtest)
    app.command("simulate")(simulate.simulate)
    app.command("evaluate")(evaluate.evaluate)
    app.command("drill")(evaluate.drill)
    app.command("train")(train.train)
    app.command("rekey")(topics.rekey)
    app.command("doctor")(doctor.doctor)
    app.command("fields")(features.list_fields)
    app.command("serve")(serve.serve)
    app.command("hunt")(hunt.hunt)
    app.command("templates")(templates.templates)
    app.command("rescore")(rescore.rescore)
    app.command("explain")(tuning.explain_account)
    app.command("report")(evidence.report)
    app.command("verify")(evidence.verify)
    app.command("forget")(privacy.forget)
    app.command("hold")(privacy.hold)
    app.command("inventory")(privacy.inventory)
    app.command("readings")(privacy.readings)
    app.add_typer(casework.app, name="alerts")
    app.command("takedown")(decisions.takedown)
    app.add_typer(decisions.app, name="decisions")
    app.add_typer(exceptions.app, name="exceptions")
    rules.app.command("backtest")(tuning.backtest)
    rules.app.command("explain")(tuning.explain_rule)
    rules.app.command("shadow")(tuning.shadow)
    rules.app.command("promote")(tuning.promote)
    app.add_typer(rules.app, name="rules")
    features.app.command("export")(tuning.export)
    app.add_typer(features.app, name="features")
    app.add_typer(formats.app, name="formats")
    app.add_typer(config.app, name="config")
    app.add_typer(corpus.app, name="corpus")
    app.add_typer(topics.dlq, name="dlq")
    return app


def main() -> None:
    """Entry point."""
    try:
        build()()
    except BrokenPipeError:  # `monitor alerts list | head`
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
