"""Full disks and folders that cannot be made are input errors that name the path."""

import errno
from contextlib import chdir
from pathlib import Path

import pytest
from cxr_compare.data_prep.contracts import disk_space
from cxr_compare.data_prep.contracts.disk_space import disk_errors, make_folder, require_free_space
from cxr_compare.data_prep.contracts.errors import InputError


def _full_disk(source: str | None, target: str | None = None) -> OSError:
    return OSError(errno.ENOSPC, "No space left on device", source, None, target)


@pytest.mark.parametrize(
    ("paths", "error", "named"),
    [
        (["table"], _full_disk(None), "table"),
        (["table"], _full_disk("x/.table.1.tmp"), "table"),  # one path: what the caller calls it
        (["out", "home"], _full_disk(None), "out"),  # neither is full any more: the output
        (["out", "home"], _full_disk("home/cache"), "home/cache"),
        (["out", "home"], _full_disk("in/a.png", "out/a.png"), "out/a.png"),  # target of a copy
    ],
)
def test_full_disk_names_the_path_and_the_free_space(tmp_path, paths, error, named):
    with (
        chdir(tmp_path),
        pytest.raises(InputError, match=rf"^{named}: .*iB free\)") as raised,
        disk_errors(*map(Path, paths)),
    ):
        raise error
    assert raised.value.full_disk


def test_the_full_one_of_several_disks_is_named(tmp_path, monkeypatch):
    free = {"out": 1 << 30, "home": 4096}
    monkeypatch.setattr(disk_space, "free_bytes", lambda path: free[path.name])
    with (
        pytest.raises(InputError, match=r"home: .*4 KiB"),
        disk_errors(tmp_path / "out", tmp_path / "home"),
    ):
        raise _full_disk(None)


def test_work_that_cannot_fit_is_refused_before_it_starts(tmp_path, monkeypatch):
    require_free_space(tmp_path / "not" / "yet", 1)
    monkeypatch.setattr(disk_space, "free_bytes", lambda path: 12_800)
    with pytest.raises(InputError, match=r"13 KiB.*12\.5 KiB.*512 bytes"):
        require_free_space(tmp_path, 13 << 10)


def test_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match=f"^{tmp_path / 'out' / 'inner'}: "):
        make_folder(tmp_path / "out" / "inner")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="this machine has no /proc")
def test_path_where_no_folder_can_be_made_is_named():
    with pytest.raises(InputError, match=r"^/proc/cxr: "):
        make_folder(Path("/proc/cxr"))
