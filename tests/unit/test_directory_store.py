"""What only a directory can do wrong: disks that are full or read-only, locks that are held, leftovers."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from monitor.records import Checkpoint
from monitor.store import DirectoryStore, StoreDown


def cp(offset: int, blob: bytes, generation: int = 1) -> Checkpoint:
    return Checkpoint(0, offset, generation, {"a": [blob]})


def test_a_full_disk_is_said_and_the_old_checkpoint_stays(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.save(cp(1, b"old" * 100))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
    try:
        with pytest.raises(StoreDown, match=r"can't be written .*raise the process's file size limit.*intact"):
            store.save(cp(2, b"new" * 10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    back = DirectoryStore(tmp_path).load(0)
    assert back is not None
    assert (back.next_offset, back.parts) == (1, {"a": [b"old" * 100]})
    assert not list(tmp_path.rglob(".tmp-*")), "nothing half-written is left to fill the disk further"
    store.save(cp(3, b"new" * 10_000))
    again = DirectoryStore(tmp_path).load(0)
    assert again is not None
    assert again.next_offset == 3


READ_ONLY = """
import os, sys, json
from monitor.records import Checkpoint
from monitor.store import DirectoryStore, StoreDown
if os.getuid() == 0:
    os.setuid(65534)
store = DirectoryStore(sys.argv[1])
out = [store.load(0).next_offset]
acts = [lambda: store.save(Checkpoint(0, 2, 1, {"a": [b"new"]})), lambda: store.claim(0, 2), lambda: store.put_meta({})]
for act in acts:
    try:
        act()
        out.append("written")
    except StoreDown as error:
        out.append(str(error))
print(json.dumps(out))
"""


def test_a_directory_that_may_not_be_written_is_said_with_the_remedy() -> None:
    # not tmp_path: pytest shuts its folders to the user that root turns into
    with tempfile.TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        root = Path(above) / "state"
        before = os.umask(0o022)
        try:
            DirectoryStore(root).save(cp(1, b"old"))
        finally:
            os.umask(before)
        for path in [root, *root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        done = subprocess.run([sys.executable, "-c", READ_ONLY, str(root)], capture_output=True, text=True, check=False)
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755)
        assert done.returncode == 0, done.stderr
        offset, *errors = json.loads(done.stdout)
        assert offset == 1
        assert len(errors) == 3
        assert all("may not be written: give its ownership to the user" in error for error in errors), errors
        back = DirectoryStore(root).load(0)
        assert back is not None
        assert back.next_offset == 1


def test_a_file_where_the_directory_belongs(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreDown, match="a file is where a directory belongs"):
        DirectoryStore(tmp_path / "state").save(cp(1, b"x"))


def test_a_lock_that_is_held_too_long_is_an_error_that_names_it(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, lock_timeout_s=0.05)
    store.save(cp(1, b"x"))
    (lock,) = tmp_path.rglob("lock")
    with open(lock, "rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreDown, match=r"has been held for 0\.05 s"):
            store.save(cp(2, b"y"))
        with pytest.raises(StoreDown, match="lock"):
            store.claim(0, 2)
    store.save(cp(3, b"y"))


def test_what_a_crashed_writer_left_is_collected(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.save(cp(1, b"x"))
    (blobs,) = tmp_path.rglob("blobs")
    (blobs / ".tmp-99999-dead-0").write_bytes(b"half")
    (blobs / ("0" * 64)).write_bytes(b"orphan")
    store.save(cp(2, b"y"))
    assert len(list(blobs.iterdir())) == 2


def test_a_damaged_fence_is_reported_and_the_manifest_stands_in(tmp_path: Path) -> None:
    reports: list[str] = []
    store = DirectoryStore(tmp_path, report=reports.append)
    store.claim(0, 4)
    store.save(cp(1, b"x", generation=4))
    (fence,) = tmp_path.rglob("fence")
    fence.write_bytes(b"9")
    with pytest.raises(Exception, match="generation 3 is older than 4"):
        store.claim(0, 3)
    assert reports
    assert "fence" in reports[0]


def test_files_are_not_for_everybody(tmp_path: Path) -> None:
    """Account ids are personal data: a checkpoint must not be world-writable, whatever the umask."""
    before = os.umask(0)
    try:
        DirectoryStore(tmp_path).save(cp(1, b"x"))
    finally:
        os.umask(before)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert files
    assert [p.name for p in files if p.stat().st_mode & 0o007] == []


def test_what_is_renamed_into_place_is_on_disk_before_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill shows no missing sync, a power cut does: so the calls are watched (and still made)."""
    calls: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        calls.append(("sync", os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def watched_replace(source: Path, target: Path) -> None:
        calls.append(("rename", f"{source} {target}"))
        replace(source, target)

    store = DirectoryStore(tmp_path)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    store.claim(0, 1)
    store.save(cp(1, b"one"))
    store.save(cp(2, b"two"))
    renames = [(i, *names.split()) for i, (kind, names) in enumerate(calls) if kind == "rename"]
    targets = [Path(target).name for _, _, target in renames]
    assert (targets.count("manifest"), targets.count("previous"), targets.count("fence"), len(targets)) == (2, 1, 1, 6)
    for i, source, target in renames:
        assert ("sync", source) in calls[:i]
        folder_synced = calls.index(("sync", str(Path(target).parent)), i)
        if len(Path(target).name) == 64:
            manifest = next(j for j, _, other in renames if j > i and other.endswith("/manifest"))
            assert folder_synced < manifest, "a manifest never names a blob that a power cut could take"


def test_scopes_that_look_alike_as_file_names_differ(tmp_path: Path) -> None:
    paths = {DirectoryStore(tmp_path, scope).path for scope in ("a/b", "a-b", "a b", "../a-b", "")}
    assert len(paths) == 5
    assert all(path.parent == tmp_path for path in paths)
