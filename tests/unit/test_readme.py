"""The front page: whatever it names exists, whatever it shows runs, and its tables say what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from monitor import fields
from monitor.__main__ import build
from monitor.alerts.webhook import SIGNATURE, sign
from monitor.features.catalogue import CLIENT_CLASSES
from monitor.features.vocabulary import CATALOGUE
from monitor.rules import load_rules, packaged_rules
from monitor.settings import Settings, load_settings
from monitor.simulate import scenario
from monitor.store.alert_keys import VERDICTS, AlertKeys
from monitor.store.redis_link import RIGHTS
from monitor.telemetry import DrillTelemetry, Telemetry

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(m[1], m[2]) for m in BLOCK.finditer(TEXT)]
PROSE = BLOCK.sub("", TEXT)
SPANS = re.findall(r"`([^`\n]+)`", PROSE)
WORDS_WITH_HYPHENS = {"idempotency-key", "systemd-analyze", "x-abuse-verdict"}
"""Code spans that look like a rule's id and are something else."""


def shown(kind: str) -> list[str]:
    return [text for language, text in BLOCKS if language == kind]


def commands() -> list[list[str]]:
    """Every call of ``monitor`` in a shell block or a code span, as words after ``monitor``."""
    lines = [line for text in shown("sh") for line in text.splitlines()] + SPANS
    calls = []
    for line in lines:
        for part in line.split("#")[0].split("&&"):
            words = part.split()
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            if words and words[0] in ("monitor", ".venv/bin/monitor") and len(words) > 1:
                calls.append(words[1:])
    return calls


def children(node: Any) -> dict[str, Any]:
    """Sub-commands by name; typer brings a click of its own, so no class of click's is asked for."""
    found: dict[str, Any] = getattr(node, "commands", {})
    return found


def rows_under(heading: str) -> list[list[str]]:
    """Cells of the first table after ``heading``."""
    table = re.search(r"(?:^\|.*\n)+", TEXT[TEXT.index(heading) :], re.MULTILINE)
    assert table, heading
    lines = table[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


# ------------------------------------------------------------------------------------------------ what it names


def test_every_link_and_every_path_exists() -> None:
    links = [target for target in re.findall(r"\]\(([^)]+)\)", PROSE) if not target.startswith("https://")]
    assert len(links) > 5
    for target in links:
        path, _, anchor = target.partition("#")
        assert (ROOT / path).exists(), target
        if not path:
            headings = [h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)]
            assert anchor in headings, target
    paths = [s for s in SPANS if re.match(r"(monitor|rules|deploy|grafana|tests|\.ci)/|[\w-]+\.(toml|md)$", s)]
    paths += re.findall(r"(?<![\w/])((?:deploy|grafana|tests|rules)/[\w./-]+\w)", "\n".join(shown("sh")))
    assert len(paths) > 15
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_layout_names_what_is_there() -> None:
    block = next(text for text in shown("") if text.startswith("monitor/"))
    for name in re.findall(r"^([\w./]+)\s", block, re.MULTILINE):
        assert (ROOT / name).exists(), name
    inside = re.findall(r"(?<![\w/.])(\w+\.(?:py|yaml)|\w+/)", block)
    assert len(inside) > 8
    for name in inside:
        assert any((ROOT / folder / name).exists() for folder in ("", "monitor", "rules")), name


def test_every_command_and_option_exists() -> None:
    tree = typer.main.get_command(build())
    calls = commands()
    assert {"demo", "run", "backtest", "doctor", "rekey", "fields", "simulate", "evaluate"} <= {c[0] for c in calls}
    for words in calls:
        node, rest = tree, list(words)
        while children(node):
            assert rest, words
            assert rest[0] in children(node), words
            node = children(node)[rest.pop(0)]
        known = {name for parameter in node.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for option in (w.split("=")[0] for w in rest if w.startswith("-")):
            assert option in known | {"--help"}, words


def test_options_in_running_text_belong_to_some_command() -> None:
    known: set[str] = {"--help"}

    def collect(node: Any) -> None:
        known.update(name for p in node.params for name in p.opts)
        for child in children(node).values():
            collect(child)

    collect(typer.main.get_command(build()))
    for span in SPANS:
        if span.startswith("--"):
            assert span.split()[0] in known, span


def test_every_setting_exists() -> None:
    sections = set(Settings.model_fields)
    named = [s.split(":")[0] for s in SPANS if s.split(".")[0] in sections and re.match(r"\w+\.[a-z_.]+(:|$)", s)]
    assert len(set(named)) > 25
    for name in named:
        model: object = Settings()
        for part in name.split("."):
            assert hasattr(model, part), name
            model = getattr(model, part)
    for name in re.findall(r"MONITOR__(\w+?)__(\w+?)=", TEXT):
        assert name[1].lower() in type(getattr(Settings(), name[0].lower())).model_fields, name


def test_every_metric_rule_feature_and_scenario_exists() -> None:
    registry = CollectorRegistry()
    Telemetry(registry)
    DrillTelemetry(registry)
    names = {family.name for family in registry.collect()}
    metrics = set(re.findall(r"\babusemon_[a-z_]+", TEXT))
    assert len(metrics) > 5
    for metric in metrics:
        assert metric in names or metric.removesuffix("_total") in names, metric
    rules = load_rules([packaged_rules()], CATALOGUE, CLIENT_CLASSES, tests=False).rules
    mentioned = {s for s in SPANS if re.fullmatch(r"[a-z]+(-[a-z0-9]+)+", s)} - WORDS_WITH_HYPHENS
    assert mentioned
    assert mentioned <= set(rules)
    features = {s for s in SPANS if re.fullmatch(r"[a-z_]+_(1m|1h|24h|7d)", s)}
    assert features <= {f.name for f in CATALOGUE}
    called = {w for text in commands() if text[0] == "simulate" for w in text if re.fullmatch(r"[A-Z]\d+", w)}
    scenarios = {s for s in SPANS if re.fullmatch(r"[SBDPG]\d+", s)} | called
    assert scenarios
    assert scenarios <= set(scenario.shipped())


# -------------------------------------------------------------------------------------------- what its tables say


def test_the_request_log_s_table_is_the_contract() -> None:
    table = {row[0]: row[1] for row in rows_under("**The request log.**")}
    assert list(table) == list(fields.GROUPS)
    for group in fields.GROUPS:
        wanted = [f"`{f.name}` {f.kind.value}" for f in fields.FIELDS.values() if f.group == group]
        assert table[group] == ", ".join(wanted)


def test_every_reject_reason_is_listed_with_its_meaning() -> None:
    table = {row[0].strip("`"): row[1] for row in rows_under("**A record is rejected for**")}
    assert table == {reason: known.help for reason, known in fields.REJECT_REASONS.items()}


def test_verdicts_exit_codes_and_states_are_those_of_the_code() -> None:
    found = {}
    for severities, verdict in rows_under("monitor blocks nobody."):
        found.update(dict.fromkeys(re.findall(r"\w+", severities), verdict.strip("`")))
    assert found == VERDICTS
    assert [row[0] for row in rows_under("**Exit status**")] == ["0", "1", "2", "3"]
    alert = TEXT[TEXT.index("**An alert** has") :].split("\n\n")[0]
    assert re.findall(r"`(\w+)`", alert[alert.index("a state (") : alert.index("), subject")]) == [*fields.ALERT_STATES]


def test_the_rights_and_the_keys_of_redis_are_those_of_the_code() -> None:
    acl = next(text for text in shown("") if "ACL SETUSER" in text)
    given = re.findall(r"\+\S+", acl.splitlines()[0])
    assert sorted(given) == sorted(RIGHTS)
    keys = AlertKeys()
    for key in (keys.stream_of("alert"), keys.stream_of("shadow"), keys.alert("<alert id>"), keys.top(),
                keys.account("<account>"), keys.verdict("<account>"), keys.ledger("<alert id>"),
                keys.members("<alert id>"), keys.case("<alert id>"), keys.cases(), keys.incident("<incident id>"),
                keys.hold("<alert id>"), keys.holds(), keys.audit(), keys.decision("<id>"), keys.decisions(),
                keys.enforce("<account>")):  # fmt: skip
        assert f"`{key}`" in TEXT, key
    assert keys.verdict("ACCOUNT") in "\n".join(shown("sh"))


def test_each_measured_figure_has_its_command() -> None:
    rows = rows_under("## Measured figures")
    assert rows
    for row in rows:
        spans = re.findall(r"`([^`]+)`", row[-1])
        assert spans, row
        for path in re.findall(r"tests/[\w/]+\.py", " ".join(spans)):
            assert (ROOT / path).exists(), path


# ------------------------------------------------------------------------------------------------- what it shows


def test_the_two_commands_stand_where_ci_looks_for_them() -> None:
    both = re.findall(r"<!-- (main|test) command -->\n```sh\n(.*?)\n```", TEXT, re.DOTALL)
    assert [name for name, _ in both] == ["main", "test"]
    for name, command in both:
        assert "\n" not in command
        constraints = re.search(r"-r (\S+)", command)
        assert constraints
        assert "--hash=sha256:" in (ROOT / constraints[1]).read_text()
        assert command.rpartition(" && ")[2].startswith(
            ".venv/bin/monitor demo" if name == "main" else ".venv/bin/python -m pytest"
        )


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "monitor-key").write_text("ab" * 32 + "\n")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    assert len(shown("python")) == 2
    for text in shown("python"):
        exec(compile(text, "README.md", "exec"), names)
    genuine = names["genuine"]
    assert callable(genuine)
    header = sign(b"secret", b"{}", 1_000)
    assert f"`{SIGNATURE}`" in TEXT
    assert genuine(b"secret", b"{}", header, 1_200)
    assert not genuine(b"secret", b"{}", header, 1_400), "too old"
    assert not genuine(b"secret", b"{ }", header, 1_000), "another body"
    assert not genuine(b"other", b"{}", header, 1_000), "another key"
    assert not genuine(b"secret", b"{}", "nonsense", 1_000)


def test_the_settings_file_loads_and_suffices_for_a_run(tmp_path: Path) -> None:
    text = next(text for text in shown("yaml") if text.startswith("kafka:"))
    (tmp_path / "monitor.yaml").write_text(text)
    settings = load_settings(tmp_path / "monitor.yaml", {}, read_secrets=False)
    assert list(settings.missing_for_run()) == []
    assert len(settings.kafka.brokers) == 2


def test_the_installation_on_one_host_needs_neither_kafka_nor_redis(tmp_path: Path) -> None:
    (tmp_path / "monitor.yaml").write_text(next(text for text in shown("yaml") if text.startswith("keys:")))
    settings = load_settings(tmp_path / "monitor.yaml", {}, read_secrets=False)
    assert list(settings.missing_for_run()) == []
    assert (settings.source.read, settings.ingest.to, settings.ingest.enabled) == ("spool", "spool", True)
    assert settings.alerts.sinks == ("file",)
    assert settings.checkpoint.store == "directory"
    assert settings.ingest.port not in (settings.console.port, settings.http.port)


def test_the_rule_of_ones_own_compiles_and_passes_its_examples(tmp_path: Path) -> None:
    text = next(text for text in shown("yaml") if "monitor.rule/v1" in text)
    place = re.search(r"`site/(template/[\w-]+\.yaml)`", PROSE)
    assert place
    (tmp_path / "template").mkdir()
    (tmp_path / place[1]).write_text(text)
    result = CliRunner().invoke(build(), ["rules", "test", str(packaged_rules()), str(tmp_path)])
    assert result.exit_code == 0, result.output
    (tmp_path / place[1]).write_text(text.replace("value: 300", "value: 600"))
    assert CliRunner().invoke(build(), ["rules", "test", str(packaged_rules()), str(tmp_path)]).exit_code == 1


def test_the_worked_example_of_tuning_fails_and_passes_as_it_is_told(tmp_path: Path) -> None:
    text = next(text for text in shown("yaml") if "monitor.override/v1" in text)
    assert yaml.safe_load(text)["params"] == {"elicitation": 0.5}
    folder = tmp_path / "site" / "overrides"
    folder.mkdir(parents=True)
    example = [str(packaged_rules()), str(tmp_path / "site")]
    (folder / "trace-harvest.yaml").write_text(text)
    result = CliRunner().invoke(build(), ["rules", "test", *example])
    assert result.exit_code == 1, result.output
    quoted = re.search(r"\*('.+?')? ?(.*?)\*", TEXT[TEXT.index("and exits 1:") :], re.DOTALL)
    assert quoted
    assert " ".join(quoted[0].strip("*").split()) in result.output
    weaker = re.search(r"`elicitation: (0\.\d+)` all examples hold", " ".join(TEXT.split()))
    assert weaker
    (folder / "trace-harvest.yaml").write_text(text.replace("0.5", weaker[1]))
    result = CliRunner().invoke(build(), ["rules", "test", *example])
    assert result.exit_code == 0, result.output


def test_it_names_no_machine_and_no_registry() -> None:
    for banned in ("/work/", "/tmp/", "/root/", "index-url", "@FIELDS@", "@FIGURES@", "TODO"):
        assert banned not in TEXT, banned


def test_the_picture_is_well_formed_and_fetches_nothing() -> None:
    from xml.etree import ElementTree

    picture = ROOT / "deploy/images/demo.svg"
    body = picture.read_text("utf-8")
    assert ElementTree.fromstring(body).tag.endswith("svg")
    assert not re.findall(r"url\((?!#)", body)
    assert "<script" not in body
    assert len(body) < 60_000


@pytest.mark.parametrize("name", ["alerts.png", "console.png", "report.png", "panels.svg"])
def test_the_recorded_pictures_are_shown_and_small(name: str) -> None:
    picture = ROOT / "deploy/images" / name
    assert f"](deploy/images/{name})" in TEXT
    assert picture.stat().st_size < 150_000
    if name.endswith(".svg"):
        assert not re.findall(r"url\((?!#)|<script|href=", picture.read_text("utf-8"))
