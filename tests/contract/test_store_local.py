"""What the local store promises beyond the contract: disk, permissions, temporary files."""

import errno
import os
import time
from pathlib import Path

import pytest

from tickhouse.bronze.local import STALE_S, TEMPORARY, LocalStore
from tickhouse.errors import ConfigError, ObjectExistsError, RefusedError, TransientError

KEY = "bronze/v1/trades/t~e/p=00000/00000000000000000000.jsonl.gz"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "lake"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


class Disk:
    """Records what is flushed and linked, in order; fails on demand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.fail: dict[str, int] = {}
        self._calls = {name: getattr(os, name) for name in ("write", "fsync", "link")}
        for name in self._calls:
            monkeypatch.setattr(os, name, lambda *args, name=name: self._call(name, *args))

    def _call(self, name: str, *arguments: object) -> object:
        path = str(arguments[-1])
        if name == "fsync":
            path = str(Path(f"/proc/self/fd/{arguments[0]}").readlink())
        self.events.append(f"{name} {Path(path).name if name != 'write' else ''}".strip())
        if name in self.fail:
            code = self.fail[name]
            raise OSError(code, os.strerror(code))
        return self._calls[name](*arguments)


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", "a b", "ä", ".tmp/x", "a/.x"],
)
def test_what_is_not_a_key_is_refused(store: LocalStore, key: str) -> None:
    for call in (
        store.get,
        store.secure,
        store.last,
        store.folders,
        lambda k: list(store.list_objects(k)),
    ):
        with pytest.raises(ConfigError, match="not a key"):
            call(key)
    with pytest.raises(ConfigError, match="not a key"):
        store.put_if_absent(key, b"", {})


def test_an_object_is_flushed_before_it_gets_its_name_and_its_folder_after(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_if_absent(KEY, b"first", {})
    disk = Disk(monkeypatch)

    store.put_if_absent(KEY.replace("0.jsonl", "5.jsonl"), b"second", {})

    assert [event.split()[0] for event in disk.events] == ["write", "fsync", "link", "fsync"]
    assert disk.events[-1] == "fsync p=00000"


def test_new_folders_are_flushed_up_to_where_the_lake_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)

    store = LocalStore(tmp_path / "data" / "lake")
    made = set(disk.events)
    disk.events.clear()
    store.put_if_absent(KEY, b"", {})

    assert {f"fsync {tmp_path.name}", "fsync data", "fsync lake"} <= made
    flushed = disk.events[: disk.events.index("fsync bronze") + 1]
    assert flushed == [f"fsync {name}" for name in ("p=00000", "t~e", "trades", "v1", "bronze")]


def test_whoever_adopts_or_loads_a_local_object_first_fsyncs_its_folder_and_new_folders_their_parents(  # noqa: E501
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_if_absent(KEY, b"", {})
    reader = LocalStore(root)
    disk = Disk(monkeypatch)

    reader.secure(KEY)
    first = set(disk.events)
    disk.events.clear()
    reader.secure(KEY)

    assert {f"fsync {n}" for n in ("p=00000", "t~e", "trades", "v1", "bronze", "lake")} <= first
    assert disk.events == ["fsync p=00000"]


@pytest.mark.parametrize(
    ("step", "code", "expected"),
    [
        ("write", errno.ENOSPC, RefusedError),
        ("write", errno.EDQUOT, RefusedError),
        ("write", errno.EFBIG, RefusedError),
        ("fsync", errno.ENOSPC, RefusedError),
        ("link", errno.EACCES, RefusedError),
        ("link", errno.EROFS, RefusedError),
        ("write", errno.EIO, TransientError),
        ("fsync", errno.EIO, TransientError),
        ("link", errno.EIO, TransientError),
    ],
)
def test_a_disk_that_refuses_is_told_from_one_that_falters(
    store: LocalStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    code: int,
    expected: type[Exception],
) -> None:
    store.put_if_absent(KEY, b"there", {})
    disk = Disk(monkeypatch)
    disk.fail[step] = code
    other = KEY.replace("0.jsonl", "1.jsonl")

    with pytest.raises(expected, match="00001"):
        store.put_if_absent(other, b"x", {})

    disk.fail.clear()
    assert [found.key for found in store.list_objects("bronze")] == [KEY]
    assert list((root / TEMPORARY).iterdir()) == []
    store.put_if_absent(other, b"x", {})
    assert store.get(other) == b"x"


def test_a_name_given_but_not_flushed_is_an_unknown_outcome_and_found_by_the_next_attempt(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_if_absent(KEY, b"there", {})
    other = KEY.replace("0.jsonl", "1.jsonl")
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        real_link = os.link

        def link_then_fail(source: Path, target: Path) -> None:
            real_link(source, target)
            disk.fail["fsync"] = errno.EIO

        patch.setattr(os, "link", link_then_fail)
        with pytest.raises(TransientError):
            store.put_if_absent(other, b"x", {})

    with pytest.raises(ObjectExistsError):
        store.put_if_absent(other, b"x", {})
    assert store.get(other) == b"x"


def test_a_write_that_takes_only_a_part_is_gone_on_with(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:3]))

    store.put_if_absent(KEY, b"0123456789", {})

    assert store.get(KEY) == b"0123456789"


def test_a_torn_temp_file_is_ignored(store: LocalStore, root: Path) -> None:
    torn = root / TEMPORARY / "77-dead"
    torn.write_bytes(b"half an obj")

    store.put_if_absent(KEY, b"whole", {})

    assert [found.key for found in store.list_objects("bronze")] == [KEY]
    assert LocalStore(root).folders("bronze") == ["v1"]
    assert torn.exists(), "it is young: somebody may still be writing it"


def test_temp_files_of_killed_writers_are_removed_at_start_by_age(
    store: LocalStore, root: Path
) -> None:
    young, old = (root / TEMPORARY / name for name in ("1-young", "1-old"))
    young.write_bytes(b"")
    old.write_bytes(b"")
    long_ago = time.time() - STALE_S - 1
    os.utime(old, (long_ago, long_ago))

    LocalStore(root)

    assert young.exists()
    assert not old.exists()


def test_files_that_are_not_objects_are_not_shown(store: LocalStore, root: Path) -> None:
    store.put_if_absent(KEY, b"", {})
    for name in (".DS_Store", "name with blanks", ".nfs000"):
        (root / KEY).with_name(name).write_bytes(b"")

    assert [found.key for found in store.list_objects("bronze")] == [KEY]
    assert store.last(KEY.rpartition("/")[0]) == KEY


def test_a_file_where_a_folder_should_be_is_not_taken_for_the_object(
    store: LocalStore, root: Path
) -> None:
    (root / "bronze").write_bytes(b"")

    with pytest.raises(TransientError):
        store.put_if_absent(KEY, b"", {})
    with pytest.raises(TransientError):
        store.folders("bronze")


def test_a_folder_that_was_removed_is_made_again(store: LocalStore, root: Path) -> None:
    store.put_if_absent(KEY, b"", {})
    (root / KEY).unlink()
    (root / KEY).parent.rmdir()

    with pytest.raises(TransientError):
        store.put_if_absent(KEY, b"", {})
    store.put_if_absent(KEY, b"again", {})

    assert store.get(KEY) == b"again"


def test_a_lake_that_cannot_be_made_is_refused_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(ConfigError, match="file/lake"):
        LocalStore(tmp_path / "file" / "lake")


def test_a_relative_lake_stays_where_it_is_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStore(Path("lake"))
    monkeypatch.chdir("/")

    store.put_if_absent(KEY, b"x", {})

    assert (tmp_path / "lake" / KEY).read_bytes() == b"x"
