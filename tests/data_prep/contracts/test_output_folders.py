"""Output folders appear whole, and are never mixed with those of another command."""

import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.output_folders import (
    atomic_folder,
    require_only_files,
    require_same_settings,
)


def test_only_temporary_folders_of_ended_processes_are_removed(tmp_path):
    of_killed_process = tmp_path / ".out.1.tmp"
    of_running_process = tmp_path / ".out.2.tmp"
    of_killed_process.mkdir()
    (of_killed_process / "model.onnx").touch()
    with folder_lock(of_running_process):
        (of_running_process / "model.onnx").touch()
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "model.onnx").write_text("new")
        assert (of_running_process / "model.onnx").exists()
    assert not of_killed_process.exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]


def test_folder_that_another_command_made_meanwhile_stays_as_it_is(tmp_path):
    out = tmp_path / "export"

    def make_after_the_other() -> None:
        with atomic_folder(out):
            out.mkdir()
            (out / "model").write_text("the other's")

    with pytest.raises(InputError, match=f"^{out}: "):
        make_after_the_other()
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert (out / "model").read_text() == "the other's"


def test_foreign_file_in_an_output_folder_is_named(tmp_path):
    for name in ("answer.json", ".lock"):
        (tmp_path / name).touch()
    require_only_files(tmp_path, {"answer.json"}, "report")
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(InputError, match=r"thesis\.docx"):
        require_only_files(tmp_path, {"answer.json"}, "report")


def test_folder_made_with_other_settings_is_refused_with_both_values(tmp_path):
    stored = {"seed": 1, "size": 8}
    require_same_settings(tmp_path, stored, dict(stored), "choose another")
    with pytest.raises(InputError, match=r"seed=1.*seed=2.*choose another"):
        require_same_settings(tmp_path, stored, {"seed": 2, "size": 8}, "choose another")
    with pytest.raises(InputError, match=r"size=8.*size=None"):
        require_same_settings(tmp_path, stored, {"seed": 1}, "choose another")
    with pytest.raises(InputError, match="another key of the ids"):
        require_same_settings(tmp_path, {}, {"id_key": "0a"}, "choose another")
