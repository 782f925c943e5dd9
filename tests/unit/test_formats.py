"""Other log formats: each golden sample gives what the native log of the same traffic gives, and no more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import foreign
import pytest
import yaml
from otlp_protobuf import as_protobuf

from monitor.decode import available_fields
from monitor.decode.documents import MappingDoc
from monitor.decode.formats import json_schema, load_formats, packaged_mappings
from monitor.decode.mapper import Mapper
from monitor.errors import BadInput
from monitor.features.vocabulary import CATALOGUE
from monitor.fields import FIELDS, REQUIRED

SAMPLES = sorted(foreign.CARRIES)


def place(name: str) -> bool:
    return name in ("partition", "offset")


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_decodes_to_the_native_log_of_the_same_traffic(sample):
    """Field by field, null where the format does not say."""
    found = foreign.decoded(foreign.FORMAT_OF[sample], foreign.lines(sample))
    wanted = foreign.decoded("native", foreign.native_of(sample))
    assert (found.rejects, found.wrong_types) == ((), {})
    assert found.ignored == foreign.IGNORED.get(sample, 0)
    assert foreign.same(found.frame, wanted.frame, place) == []
    assert available_fields(found.frame) == available_fields(wanted.frame)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_gives_the_same_features_and_the_same_ones_inactive(sample):
    found = foreign.decoded(foreign.FORMAT_OF[sample], foreign.lines(sample)).frame
    wanted = foreign.decoded("native", foreign.native_of(sample)).frame
    rows = foreign.features_of(found)
    assert len(rows) > 4
    assert foreign.same(rows, foreign.features_of(wanted)) == []
    assert CATALOGUE.inactive(available_fields(found)) == CATALOGUE.inactive(available_fields(wanted))
    full = foreign.features_of(foreign.decoded("native", foreign.lines("native")).frame)
    if sample not in ("litellm", "otlp_litellm"):  # these carry all that features are made of
        assert foreign.same(rows, full), "the whole log has more to say, or nothing was compared"


def test_every_field_of_a_mapping_is_in_a_sample_and_each_could_turn_one_red():
    """What no sample carries is compared by nobody, and a sample that stays right without a field has not tried it."""
    wanted = {s: foreign.decoded("native", foreign.native_of(s)).frame for s in SAMPLES}

    def seen(name: str, gone: str) -> bool:
        plan = foreign.formats().plans[name]
        mapper = Mapper(replace(plan, fields={k: v for k, v in plan.fields.items() if k != gone}))
        for sample in (s for s in SAMPLES if foreign.FORMAT_OF[s] == name):
            found = foreign.decoded(name, foreign.lines(sample), mapper)
            if found.rejects or foreign.same(found.frame, wanted[sample], place):
                return True
        return False

    own = {path.stem: yaml.safe_load(path.read_text()) for path in packaged_mappings().glob("*.yaml")}
    shared = own.pop("chat_body")
    users = [name for name, document in own.items() if "chat_body" in document.get("parts", ())]
    unseen = {(name, f) for name, document in own.items() for f in document["fields"] if not seen(name, f)}
    unseen |= {("chat_body", f) for f in shared["fields"] if not any(seen(name, f) for name in users)}
    assert unseen == set()


@pytest.mark.parametrize("sample", SAMPLES)
def test_auto_knows_each_sample(sample):
    by_name = foreign.decoded(foreign.FORMAT_OF[sample], foreign.lines(sample))
    by_look = foreign.decoded("auto", foreign.lines(sample))
    assert by_look.frame.equals(by_name.frame)
    assert by_look.ignored == by_name.ignored


@pytest.mark.parametrize("sample", SAMPLES)
def test_no_credential_comes_through(sample):
    reader = foreign.formats().reader(foreign.FORMAT_OF[sample])
    read = [event for line in foreign.lines(sample) for event in reader.read(line, "x").events]
    assert read
    assert not any(foreign.SECRET in event for event in read)
    assert all(json.loads(event).keys() <= FIELDS.keys() for event in read)


def test_most_samples_hold_credentials():
    held = [s for s in SAMPLES if foreign.SECRET in (foreign.HERE / f"{s}.ndjson").read_bytes()]
    assert len(held) >= 8


def test_what_is_dropped_cannot_be_read_by_another_way(tmp_path):
    """`drop` works on the record itself: a path through the body that holds it finds nothing."""
    text = MINE.replace("envoy_aigw", "litellm").replace("account_id: [x-customer]", "end_user_id: $request/api_key")
    write(tmp_path, "mine", text)
    known = load_formats([tmp_path])
    (event,) = known.reader("mine").read(foreign.lines("litellm")[1], "x").events
    assert "end_user_id" not in json.loads(event)


def test_a_raw_key_in_place_of_its_id_is_not_known():
    (record,) = [json.loads(line) for line in foreign.lines("litellm_spend")[:1]]
    record["api_key"] = "sk-live-1234567890"
    (event,) = foreign.formats().reader("litellm_spend").read(json.dumps(record).encode(), "x").events
    assert "api_key_id" not in json.loads(event)


# -------------------------------------------------------------------------------------------------------- accounting


def test_every_item_is_a_row_a_reject_or_ignored():
    trace = json.loads(foreign.lines("otlp")[0])
    spans = trace["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans[1]["attributes"] = [a for a in spans[1]["attributes"] if a["key"] != "user.id"]
    values = [json.dumps(trace).encode(), b"{}", b'{"resourceSpans": []}', b"not json", b"", None, b"\x0a\xff"]
    done = foreign.decoded("otlp", values)
    assert done.frame["offset"].to_list() == [0, 0]
    assert [(r.offset, r.index, r.reason, r.field) for r in done.rejects] == [
        (0, 1, "missing_field", "account_id"), (3, 0, "not_json", None), (4, 0, "empty", None), (5, 0, "empty", None),
        (6, 0, "not_json", None),
    ]  # fmt: skip
    assert done.ignored == 3, "the span of /health, and two messages without any span"
    assert done.partly == {(0, 0)}
    assert done.rejects[0].length == len(values[0])
    items = 4 + 6
    assert len(done.frame) + len(done.rejects) + done.ignored == items


def test_ids_that_are_made_are_the_same_in_a_replay_and_different_within_it():
    record = json.loads(foreign.lines("kong")[1])
    del record["request"]["id"]
    values = [json.dumps([record, record]).encode(), json.dumps(record).encode()]
    first, again = foreign.decoded("kong", values), foreign.decoded("kong", values)
    assert first.frame["request_id"].to_list() == ["requests/0/0/0", "requests/0/0/1", "requests/0/1/0"]
    assert again.frame.equals(first.frame)


def test_a_message_over_the_cap_is_refused_whole():
    values = [foreign.lines("litellm")[0]]
    from monitor.decode import DecodeOptions, decode, expander

    expand = expander(foreign.formats().reader("litellm"), "t", 100)
    done = decode(foreign.batch(values), DecodeOptions(digest_key=b"k", expand=expand))
    assert [(r.reason, r.length) for r in done.rejects] == [("oversize", len(values[0]))]


def test_a_prompt_or_an_answer_that_is_json_stays_text():
    record = json.loads(foreign.lines("sglang")[1])
    record["obj"]["text"], record["out"]["text"] = '{"question": 1}', '[{"label": "a"}]'
    (event,) = foreign.formats().reader("sglang").read(json.dumps(record).encode(), "x").events
    assert json.loads(event)["prompt"] == '{"question": 1}'
    assert json.loads(event)["response"] == '[{"label": "a"}]'


@pytest.mark.parametrize("text", [b'"\\ud800 x"', b'"\xff x"'])
def test_a_broken_string_hides_no_request(text):
    line = foreign.lines("litellm")[1].replace(b'"Write a haiku about wind."', text)
    assert line != foreign.lines("litellm")[1]
    assert len(foreign.decoded("litellm", [line]).frame) == 1


def test_redacted_content_is_not_known():
    record = json.loads(foreign.lines("litellm")[1])
    record["messages"] = [{"role": "user", "content": "redacted-by-litellm"}]
    record["response"] = "redacted-by-litellm"
    (event,) = foreign.formats().reader("litellm").read(json.dumps(record).encode(), "x").events
    assert not {"prompt", "response", "n_messages"} & json.loads(event).keys()


# ---------------------------------------------------------------------------------------------------------- protobuf


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.startswith("otlp")])
def test_protobuf_and_json_are_the_same(sample):
    binary = [as_protobuf(line) for line in foreign.lines(sample)]
    as_json = foreign.decoded("otlp", foreign.lines(sample))
    as_binary = foreign.decoded("otlp", binary)
    assert len(as_json.frame) == 8
    assert as_binary.frame.equals(as_json.frame)
    assert as_binary.ignored == as_json.ignored
    assert foreign.decoded("auto", binary).frame.equals(as_json.frame)


def test_protobuf_cut_anywhere_is_refused_or_read_but_never_raises():
    from monitor.decode.otlp import NotOtlp, read_protobuf

    whole = as_protobuf(foreign.lines("otlp")[0])
    refused = 0
    for end in range(1, len(whole)):
        try:
            read_protobuf(whole[:end])
        except NotOtlp:
            refused += 1
    assert refused == len(whole) - 1, "one message holds all: any cut shows"


# -------------------------------------------------------------------------------------------------- mappings as files


def write(directory: Path, name: str, text: str) -> None:
    (directory / f"{name}.yaml").write_text(text)


MINE = """\
schema: monitor.mapping/v1
id: mine
title: Our gateway
extends: envoy_aigw
fields:
  account_id: [x-customer]
"""


def test_a_users_mapping_extends_one_of_ours(tmp_path):
    write(tmp_path, "mine", MINE)
    known = load_formats([tmp_path])
    assert "mine" in known.names
    line = json.dumps(json.loads(foreign.lines("envoy_aigw")[0]) | {"x-customer": "acme"}).encode()
    assert foreign.decoded("mine", [line], known).frame["account_id"].to_list() == ["acme"]
    assert foreign.decoded("envoy_aigw", [line], known).frame["account_id"].to_list() == ["team-a"]


def test_the_account_can_be_named_without_a_mapping():
    known = load_formats(account=["metadata/tenant", "user-agent"])
    frame = foreign.decoded("envoy_aigw", foreign.lines("envoy_aigw")[:1], known).frame
    assert frame["account_id"].to_list() == ["sdk/1.4 python/3.12"]
    with pytest.raises(BadInput, match=r"decode\.account_from.*empty step"):
        load_formats(account=["a//b"])


def test_every_mistake_in_every_mapping_is_said_at_once_with_its_line(tmp_path):
    write(tmp_path, "bad", """\
schema: monitor.mapping/v1
id: bad
title: Bad
drop: [headers/authorization]
requets:
  any: [x]
fields:
  ts: {from: [when], unit: minutes}
  acount_id: user
  account_id: headers/authorization
  model: a//b
  status: {form: [code]}
""")  # fmt: skip
    write(tmp_path, "lost", "schema: monitor.mapping/v1\nid: lost\ntitle: L\nextends: nowhere\n")
    write(tmp_path, "half", "schema: monitor.mapping/v1\nid: half\ntitle: H\nfields:\n  ts: t\n")
    write(tmp_path, "named", "schema: monitor.mapping/v1\nid: other\ntitle: N\nfields: {}\n")
    write(tmp_path, "leak", MINE.replace("id: mine", "id: leak").replace("[x-customer]", "authorization"))
    with pytest.raises(BadInput) as caught:
        load_formats([tmp_path])
    told = [(Path(p.file).name, p.line, str(p)) for p in caught.value.problems]
    for file, line, *words in [
        ("bad.yaml", 5, "requets", "did you mean 'requests'"),
        ("bad.yaml", 8, "unit"),
        ("bad.yaml", 9, "acount_id", "did you mean 'account_id'"),
        ("bad.yaml", 11, "empty step"),
        ("bad.yaml", 12, "form", "did you mean 'from'"),
        ("half.yaml", 4, "account_id, model, input_tokens, output_tokens, status"),
        ("leak.yaml", 6, "credential"),
        ("lost.yaml", 4, "nowhere"),
        ("named.yaml", 2, "other"),
    ]:
        assert any(f == file and n == line and all(w in text for w in words) for f, n, text in told), (file, line, told)


def test_an_unknown_format_names_the_known_ones():
    with pytest.raises(BadInput, match=r"litelm.*native, auto, bedrock"):
        foreign.formats().reader("litelm")


def test_the_packaged_mappings_fit_their_schema_and_say_where_they_come_from():
    import jsonschema

    committed = json.loads((packaged_mappings().parent / "mapping.schema.json").read_text())
    assert committed == json.loads(json.dumps(json_schema())), "run: monitor formats schema --write"
    for path in sorted(packaged_mappings().glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        jsonschema.validate(document, committed)
        if document["schema"] == "monitor.mapping/v1":
            doc = MappingDoc.model_validate(document)
            assert doc.references, path
            assert doc.help, path
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema": "monitor.mapping/v1", "id": "x"}, committed)


def test_each_packaged_mapping_can_give_what_the_contract_requires():
    for name, plan in foreign.formats().plans.items():
        assert set(REQUIRED) - {"request_id"} <= (plan.fields or {}).keys(), name
