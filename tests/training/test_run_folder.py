"""A run folder says by itself whether it may be started, resumed or read."""

from pathlib import Path

import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import typed_table
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import StartedRun

_SEEN = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "q"], "role": ["train", "val"]})


def _create(folder: Path) -> RunFolder:
    return RunFolder.create(
        folder, config="a = 1\n", seen=_SEEN, started=StartedRun(name="run", seed=3)
    )


def test_run_is_complete_only_when_its_json_is_there(tmp_path):
    run = _create(tmp_path / "run")
    assert not run.is_complete
    with pytest.raises(InputError, match=r"has not ended .*again to go on"):
        RunFolder.open(run.folder)
    run.complete(best_epoch=2)
    again = RunFolder.open(run.folder)
    assert (again.info.best_epoch, again.info.seed, again.config[:6]) == (2, 3, "a = 1\n")
    pd.testing.assert_frame_equal(again.seen, typed_table(_SEEN, "seen"))


@pytest.mark.parametrize(
    ("patients", "started", "synthetic"),
    [
        (["p", "phantom-1:2"], StartedRun(name="run", synthetic=True), True),
        (["phantom-1:1", "phantom-1:2"], StartedRun(name="run", synthetic=False), False),
    ],
)
def test_run_records_training_on_synthetic_images_alone(tmp_path, patients, started, synthetic):
    seen = _SEEN.assign(patient_id=patients)
    run = RunFolder.create(tmp_path / "run", config="", seen=seen, started=started)
    assert run.synthetic is synthetic


def test_folder_without_a_run_is_refused(tmp_path):
    assert RunFolder.started_in(tmp_path) is None
    with pytest.raises(InputError, match="give a run folder that cxr train made"):
        RunFolder.open(tmp_path)


def test_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(InputError, match=r"holds 'thesis.doc', which no run has"):
        _create(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


def test_start_that_was_cut_off_may_start_again(tmp_path):
    _create(tmp_path)
    (tmp_path / "config.toml").unlink()  # it is written last
    _create(tmp_path)


def test_history_is_a_table_with_a_row_an_epoch(tmp_path):
    run = _create(tmp_path)
    run.write_history([{"epoch": 1, "auroc": 0.5}, {"epoch": 2, "auroc": float("nan")}])
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["epoch"].tolist() == [1, 2]
    assert table["auroc"].isna().tolist() == [False, True]


def test_patient_table_is_checked(tmp_path):
    with pytest.raises(InputError, match="role must be one of"):
        RunFolder.create(
            tmp_path, config="", seen=_SEEN.assign(role="x"), started=StartedRun(name="run")
        )


def test_file_instead_of_a_run_folder_is_refused_before_any_work(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        RunFolder.require_free(tmp_path / "run")
