"""YAML that a person wrote: lines, YAML 1.2 scalars, and every way it can be refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor import yamlfile
from monitor.errors import BadInput


def problems(text: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        yamlfile.parse(text, "f.yaml")
    return [str(p) for p in caught.value.problems]


def test_lines_of_keys_values_and_what_is_not_there() -> None:
    node = yamlfile.parse("a: 1\nb:\n  c:\n    - x\n    - d: 5\n")
    assert node.data == {"a": 1, "b": {"c": ["x", {"d": 5}]}}
    assert node.line_of("b") == 2
    assert node.line_of("b", "c") == 3
    assert node.line_of("b", "c", 1, "d") == 5
    assert node.line_of("b", "zzz") == 2
    assert node.line_of("b", "c", 7) == 3
    inner = node.at("b", "c", 1, "d")
    assert inner is not None
    assert (inner.value, inner.line) == (5, 5)
    assert node.at("b", 0) is None
    assert str(node.problem("is odd", "b", "c", 1)) == "<text>:5: b.c[1]: is odd"


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "[no, on, yes, True, true, false, 12:30, 2026-01-01, 0777, 1_0, 7, -3, 1.5, 1e3, .5, ~, null, '', \"1\"]"
    assert yamlfile.parse(text).data == [
        "no", "on", "yes", "True", True, False, "12:30", "2026-01-01", "0777", "1_0",
        7, -3, 1.5, 1000.0, 0.5, None, None, "", "1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: the key 'a' is written twice (first on line 1): keep one"),
        ("a:\n  1: x\n", "f.yaml:2: the key 1 is not a string: quote it"),
        ("a: !!python/object:os.system x\n", "f.yaml:1: has the tag"),
        ("a: [\n", "is not valid YAML"),
        ("a: 1\n--- \nb: 2\n", "f.yaml:2: is not valid YAML"),
        ("a: 1\nb: \x07\n", "has a character that YAML does not allow"),
        ("a: &x [*x]\n", "more than 64 levels deep"),
        ("[" * 20_000, "f.yaml"),
        ("a: " + "9" * 5_000, "f.yaml:1: is not of the type int"),
    ],
)
def test_refused_with_the_line(text: str, expected: str) -> None:
    assert expected in problems(text)[0]


def test_all_problems_of_one_file_at_once() -> None:
    assert len(problems("a: 1\na: 2\nb: !x 1\n3: 1\n")) == 3


def test_an_alias_bomb_is_stopped_by_a_cap() -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
    assert problems(bomb) == ["f.yaml:1: expands to more than 100000 values: write it without nested aliases"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="can't be read: No such file"):
        yamlfile.load(tmp_path / "absent.yaml")
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * (yamlfile.MAX_BYTES + 1))
    with pytest.raises(BadInput, match="is over 1048576 bytes"):
        yamlfile.load(big)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: 1\nb: \xe9\n".encode("latin-1"))
    with pytest.raises(BadInput, match=r"latin.yaml:2: is not UTF-8"):
        yamlfile.load(latin)
    empty = tmp_path / "empty.yaml"
    empty.write_bytes(b"")
    assert yamlfile.load(empty).data is None


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadInput):
        yamlfile.parse(text)
