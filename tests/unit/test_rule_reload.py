"""A running set is replaced by a whole, tested one or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from rule_files import CATALOGUE, CLASSES, folder

from monitor.rules import Reloader


def test_nothing_changed_nothing_said(tmp_path: Path) -> None:
    rules = folder(tmp_path)
    rules.rule()
    reloader = Reloader([tmp_path], CATALOGUE, CLASSES, current=rules.load())
    assert reloader.poll() is None
    os.utime(tmp_path / "timing/steady.yaml", (1, 1))  # the time of a file says nothing
    assert reloader.poll() is None


def test_a_change_gives_a_new_set_once(tmp_path: Path) -> None:
    rules = folder(tmp_path)
    rules.rule()
    old = rules.load()
    reloader = Reloader([tmp_path], CATALOGUE, CLASSES, current=old)
    rules.rule(title="Steadier")
    found = reloader.poll()
    assert found is not None
    assert found.successful
    assert found.rules is not None
    assert found.rules.rules["steady"].title == "Steadier"
    assert found.hash == found.rules.hash != old.hash
    assert reloader.poll() is None


def test_a_broken_set_is_told_once_and_a_repaired_one_taken(tmp_path: Path) -> None:
    rules = folder(tmp_path)
    rules.rule()
    reloader = Reloader([tmp_path], CATALOGUE, CLASSES, current=rules.load())
    rules.rule(when="regular > 1", severity="huge", params={})
    found = reloader.poll()
    assert found is not None
    assert not found.successful
    assert {p.field for p in found.problems} == {"severity"}  # a document's form comes before its meaning
    assert reloader.poll() is None
    rules.rule(when="regular > 1", params={})
    found = reloader.poll()
    assert found is not None
    assert [p.field for p in found.problems] == ["when"]
    rules.rule()
    again = reloader.poll()
    assert again is not None
    assert again.successful


def test_a_failing_in_file_test_keeps_the_old_set(tmp_path: Path) -> None:
    rules = folder(tmp_path)
    rules.rule()
    reloader = Reloader([tmp_path], CATALOGUE, CLASSES, current=rules.load())
    rules.rule(when="regular_1h >= params.level")
    found = reloader.poll()
    assert found is not None
    assert not found.successful
    assert "'level' should be false, is true" in found.problems[0].message


def test_a_swapped_link_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes replaces a mounted ConfigMap: a new hidden folder, then ``..data`` points to it."""
    mount = tmp_path / "mount"
    rules = folder(mount / "..first")
    rules.rule("steady.yaml")
    second = folder(mount / "..second")
    second.rule("steady.yaml", title="Second")
    (mount / "..data").symlink_to("..first")
    for name in ("steady.yaml", "policy.yaml"):
        (mount / name).symlink_to(f"..data/{name}")
    reloader = Reloader([mount], CATALOGUE, CLASSES)
    first = reloader.poll()
    assert first is not None
    assert first.rules is not None
    assert first.rules.rules["steady"].title == "Steady"
    (mount / "..new").symlink_to("..second")
    (mount / "..new").replace(mount / "..data")
    found = reloader.poll()
    assert found is not None
    assert found.rules is not None
    assert found.rules.rules["steady"].title == "Second"


def test_the_policy_file_is_watched_too(tmp_path: Path) -> None:
    rules = folder(tmp_path / "rules")
    rules.rule()
    own = folder(tmp_path / "own").path / "policy.yaml"
    reloader = Reloader([rules.path], CATALOGUE, CLASSES, own, current=rules.load(policy=own))
    assert reloader.poll() is None
    own.write_text(own.read_text().replace("account_cap: medium", "account_cap: low"))
    found = reloader.poll()
    assert found is not None
    assert found.rules is not None
    assert found.rules.policy.account_cap == "low"


def test_a_list_file_is_watched_too(tmp_path: Path) -> None:
    rules = folder(tmp_path)
    rules.rule()
    rules.write("lists/known.yaml", {"schema": "monitor.list/v1", "id": "known", "owner": "jk", "expires": "2027-01-01",
                                     "reason": "they told us so", "file": "known.txt"})  # fmt: skip
    rules.write("lists/known.txt", "a\n")
    reloader = Reloader([tmp_path], CATALOGUE, CLASSES, current=rules.load())
    rules.write("lists/known.txt", "a\nb\n")
    assert reloader.poll() is not None
