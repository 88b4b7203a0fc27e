"""A folder in hand that is not the kind that is needed: what it is, and what to do."""

import json
from pathlib import Path

import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.folder_kinds import (
    WrongFolderError,
    data_set_of,
    kind_begun,
    kind_of,
    require_kind,
)

CONTENT = {"data_set": {"content_id": "c1"}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What an hour of work leaves: a download, a data set, two runs, predictions, a report."""
    files: dict[str, dict[str, object]] = {
        "rsna download/stage_2_train_labels.csv": {},
        "data/dataset.json": {"ids": {"content_id": "c1"}},
        "other/dataset.json": {"ids": {"content_id": "c2"}},
        "retinanet/run.json": CONTENT,
        "chexnet/run.json": CONTENT,
        "chexnet/exports/onnx-fp32/export.json": {"run": CONTENT},
        "begun/config.toml": {},
        "runs/a/run.json": {},
        "imported/predictions.json": {**CONTENT, "run": None},
        "predicted/predictions.json": {**CONTENT, "run": str(tmp_path / "chexnet")},
        "report/metrics.json": {"provenance": CONTENT},
        "report/systems/A/predictions.json": CONTENT,
        "report/systems/B/predictions.json": CONTENT,
        "xrays/synth.json": {},
        "notes.txt": {},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "wanted", "says"),
    [
        ("rsna download", "run", "is not a run folder (no run.json); give a run folder"),
        ("xrays", "data set", "is a phantom, not a data set; run: cxr prepare OUT/xrays out/data "
         "--format rsna"),
        ("retinanet", "data set", "is a run, not a data set; give its data set, OUT/data"),
        ("retinanet", "predictions", "is a run, not predictions; predict first: cxr predict "
         "OUT/retinanet --data OUT/data --out OUT/retinanet-predictions"),
        ("chexnet/exports/onnx-fp32", "predictions", "is an export, not predictions; predict "
         "first: cxr predict OUT/chexnet/exports/onnx-fp32 --data OUT/data --out"),
        ("chexnet/exports/onnx-fp32", "run", "is an export, not a run; give a run folder"),
        ("data", "run", "train first: cxr train retinanet_small --data OUT/data"),
        ("predicted", "run", "holds predictions, not a run; give its run, OUT/chexnet"),
        ("imported", "run", "holds predictions, not a run; give a run folder that cxr train made"),
        ("report", "predictions", "is a report, not predictions; give one of them, "
         "OUT/report/systems/A or OUT/report/systems/B"),
        ("begun", "run", "an unfinished run; run the same cxr train again to complete it"),
        ("begun", "data set", "an unfinished run, not a data set; give a data set folder"),
        ("", "run", "it holds the 2 runs chexnet and retinanet, the 2 data sets data and other, "
         "the predictions imported and predicted"),
        ("", "run", "give one of them, OUT/chexnet or OUT/retinanet"),
        ("runs", "predictions", "it holds the run a; give OUT/runs/a"),
        ("report/systems", "run", "it holds the predictions A and B; give a run folder"),
        ("retinanett", "run", "no such folder; did you mean OUT/retinanet?"),
        ("data/dataset.json", "data set", "is a file, not a folder; give OUT/data"),
        ("notes.txt", "run", "is a file, not a folder; give a run folder that cxr train made"),
        ("empty", "predictions", "is empty; give a run, or a folder that cxr predict or cxr import "
         "made"),
        ("begun", "predictions", "an unfinished run; run the same cxr train again to complete it"),
        ("chexnett", "predictions", "no such folder; did you mean OUT/chexnet?"),
    ],
)  # fmt: skip
def test_what_is_in_hand_is_named_with_the_way_on(out, name, wanted, says):
    with pytest.raises(InputError) as refused:
        require_kind(out / name, wanted)
    assert str(refused.value).startswith(f"{out / name}: ")
    assert says.replace("OUT", str(out)) in str(refused.value)


def test_only_a_folder_that_cxr_has_nothing_in_may_be_a_download(out):
    for name, foreign in (("rsna download", True), ("", False), ("begun", False), ("no", False)):
        with pytest.raises(WrongFolderError) as refused:
            require_kind(out / name, "data set")
        assert refused.value.foreign == foreign, name


def test_the_right_kind_passes(out):
    for name, kind in (("data", "data set"), ("retinanet", "run"), ("report", "report")):
        require_kind(out / name, kind)
        assert (found := kind_of(out / name)) is not None
        assert found.name == kind
    assert kind_begun(out / "retinanet") is None


def test_the_data_set_of_a_run_is_found_by_its_content_not_its_name(out, monkeypatch):
    for name in ("retinanet", "predicted", "report", "report/systems/A"):
        assert data_set_of(out / name) == out / "data"
    (out / "data").rename(out / "elsewhere")
    monkeypatch.chdir(out / "chexnet")
    assert data_set_of(Path()) == out / "elsewhere"
    monkeypatch.chdir(out)
    assert data_set_of(Path("chexnet")) == Path("elsewhere")
    assert data_set_of(Path("data")) is None
