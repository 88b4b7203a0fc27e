"""A Dataset of the user's own becomes a prepared data set; what is none is refused by its item."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.scripts.commands.prepare import prepare


class Drawn(torch.utils.data.Dataset[Any]):
    """Twenty images, every second of which is positive."""

    def __init__(self, classes: list[str] | None = None, **changes: Any) -> None:
        self.classes = ["normal", "spot"] if classes is None else classes
        self.changes = changes

    def __len__(self) -> int:
        return 20

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        pixels = np.random.default_rng(row).integers(0, 255, (128, 140)).astype(np.uint8)
        target = self.changes.get("target", lambda row: row % 2)
        return self.changes.get("image", torch.from_numpy)(pixels), target(row)


def boxed(row: int) -> dict[str, Any]:
    boxes = torch.tensor([[10.0, 20.0, 50.0, 60.0]] * (row % 2)).reshape(-1, 4)
    labels = torch.ones(row % 2, dtype=torch.int64)
    return {"boxes": boxes, "labels": labels, "image_id": f"i{row}", "patient_id": row // 2}


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> DataSet:
    monkeypatch.setattr(sys.modules[__name__], "made", Drawn(**arguments), raising=False)
    return prepare(f"{__name__}:made", folder / "set", workers=0)


def test_images_boxes_and_patients_are_those_of_the_dataset(tmp_path, monkeypatch):
    data = prepared(tmp_path, monkeypatch, target=boxed)
    assert len(data.images) == 20
    assert data.images["patient_id"].nunique() == 10
    assert (data.images["patient_id_source"] == "given").all()
    assert data.boxes["image_id"].nunique() == 10
    assert (data.boxes[["x1", "y1", "x2", "y2"]].to_numpy() == [10, 20, 50, 60]).all()
    labels = data.labels(data.target(None))
    assert labels["i1"] == 1
    assert labels["i2"] == 0
    original = Drawn(target=boxed)[3][0].numpy()
    assert np.array_equal(data.read_original("i3"), original)


def test_labels_without_patients_are_prepared_and_said_so(tmp_path, monkeypatch):
    data = prepared(tmp_path, monkeypatch)
    assert list(data.targets) == ["spot"]
    assert (data.labels(data.target(None)) == 1).sum() == 10
    assert any("is not known" in note for note in data.summary.notes)


def test_a_second_call_goes_on_and_a_changed_dataset_is_refused(tmp_path, monkeypatch):
    prepared(tmp_path, monkeypatch)
    assert prepared(tmp_path, monkeypatch).summary.already_complete
    with pytest.raises(InputError, match="list of images or labels"):
        prepared(tmp_path, monkeypatch, target=lambda row: row % 3 == 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": []}, "item 0: class 0 has no name"),
        ({"classes": ["normal"]}, "item 1: there is no class 1"),
        ({"target": lambda row: [1, 0]}, "item 0: its label"),
        ({"target": lambda row: {"mask": 1}}, "item 0: its target"),
        ({"target": lambda row: {"boxes": [[9, 9, 9, 20]], "labels": [1]}}, "item 0: .*size"),
        ({"target": lambda row: {"boxes": [[9, 9, 20, 20]], "labels": [0]}}, "class 'normal'"),
        ({"target": lambda row: {"label": 0, "image_id": "a/b"}}, "item 0: its image_id"),
        ({"target": lambda row: {"label": 0, "image_id": "a"}}, "image_id 'a'"),
        ({"target": lambda row: {}[row]}, "item 0: KeyError"),
        ({"image": lambda pixels: pixels / 255}, "item 0: its image is float64"),
        ({"image": lambda pixels: np.random.default_rng().permuted(pixels)}, "each time"),
    ],
)
def test_what_is_no_item_is_refused_by_its_number(tmp_path, monkeypatch, arguments, message):
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, monkeypatch, **arguments)


def test_a_module_that_cannot_be_imported_is_one_line(tmp_path):
    with pytest.raises(InputError, match="nowhere cannot be imported"):
        prepare("nowhere:Spots", tmp_path / "set")
