"""A folder of another kind than needed is named with what to do."""

import json
from pathlib import Path

import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.identify_folder import (
    folder_kind,
    require_kind,
    unfinished_kind,
)

CONTENT = {"data_set": {"content_id": "c1"}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with a download, data sets, runs, predictions and a report."""
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
        "report/answer.json": {"provenance": CONTENT},
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
    ("name", "required", "advice"),
    [
        ("rsna download", "run", "run.json.*cxr train"),
        ("rsna download", "data set", "cxr prepare 'OUT/rsna download' "),
        ("xrays", "data set", "a phantom.*: cxr prepare OUT/xrays "),
        ("retinanet", "data set", "a run, not a data set.*cxr prepare"),
        ("chexnet/exports/onnx-fp32", "run", "an export.*a run folder"),
        ("predicted", "run", "predictions, not a run.*cxr train"),
        ("begun", "run", "unfinished run.*cxr train"),
        ("notes.txt", "run", "is a file.*cxr train"),
        ("empty", "predictions", "cxr predict"),
    ],
)
def test_wrong_folder_is_named_with_the_folder_or_command_to_use(out, name, required, advice):
    with pytest.raises(InputError, match=advice.replace("OUT", str(out))) as raised:
        require_kind(out / name, required)
    assert str(raised.value).startswith(f"{out / name}: ")


def test_complete_folder_of_the_right_kind_is_accepted(out):
    for name, kind in (("data", "data set"), ("retinanet", "run"), ("report", "report")):
        require_kind(out / name, kind)
        complete_kind = folder_kind(out / name)
        assert complete_kind is not None
        assert complete_kind.name == kind
    assert unfinished_kind(out / "retinanet") is None
