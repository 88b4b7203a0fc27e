"""Targets and labels: unknown is not negative, partly boxed is not boxed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import write_json
from data_prep.contracts.tables import write_table
from data_prep.store.dataset import DataSet, dataset_ids

FINDINGS = pd.DataFrame(
    [
        ("both_absent", "opacity", "absent"),
        ("both_absent", "mass", "absent"),
        ("one_present", "opacity", "present"),
        ("one_present", "mass", "absent"),
        ("one_unknown", "opacity", "absent"),
        ("uncertain", "opacity", "uncertain"),
        ("uncertain", "mass", "absent"),
        ("part_boxed", "opacity", "present"),
        ("part_boxed", "mass", "absent"),
    ],
    columns=["image_id", "finding", "state"],
).assign(reader="reference", origin="consensus")
IDS = [*FINDINGS["image_id"].unique(), "no_row"]


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    images = pd.DataFrame(
        {"image_id": IDS, "patient_id": [f"t:{i}" for i in IDS], "patient_id_source": "given",
         "source": "test", "path": None, "file_sha256": None, "height": 10, "width": 10}
    )  # fmt: skip
    second_reader = FINDINGS.head(1).assign(reader="X", state="present")
    boxes = pd.DataFrame(
        {"image_id": ["one_present", "part_boxed"], "finding": "opacity", "x1": 1.0, "y1": 1.0,
         "x2": 5.0, "y2": 5.0, "reader": "reference"}
    )  # fmt: skip
    coverage = boxes[["image_id", "finding", "reader"]].assign(coverage=["all", "some"])
    split = pd.DataFrame({"image_id": IDS, "role": ["test", *["train"] * 5], "fold": 0})
    (tmp_path / "splits").mkdir()
    write_table(images, tmp_path / "images.parquet", "images")
    write_table(pd.concat([FINDINGS, second_reader]), tmp_path / "findings.parquet", "findings")
    write_table(boxes, tmp_path / "boxes.parquet", "boxes")
    write_table(coverage, tmp_path / "box_coverage.parquet", "box_coverage")
    write_table(split, tmp_path / "splits" / "default.parquet", "split")
    info = {
        "name": "tiny",
        "source_root": str(tmp_path),
        "targets": {"any": {"any_of": ["opacity", "mass"], "display_name": "Any"}},
        "ids": dataset_ids(images, FINDINGS, boxes, coverage),
    }
    write_json(tmp_path / "dataset.json", "dataset", info)
    return DataSet.open(tmp_path)


def test_label_is_positive_if_any_negative_only_if_all_else_unknown(dataset):
    labels = dataset.labels(dataset.target())
    assert labels.fillna(-1).to_dict() == {
        "both_absent": 0,
        "one_present": 1,
        "one_unknown": -1,
        "uncertain": -1,
        "part_boxed": 1,
        "no_row": -1,
    }


def test_partly_boxed_image_is_not_trusted_for_boxes(dataset):
    target = dataset.target("any")
    assert sorted(dataset.boxes_trusted(target)) == ["both_absent", "one_present"]
    assert dataset.target_boxes(target)["image_id"].tolist() == ["one_present"]


def test_image_ids_follow_the_role_sorted(dataset):
    assert dataset.image_ids("test").tolist() == ["both_absent"]
    assert dataset.image_ids("train").tolist() == sorted(IDS[1:])


def test_unknown_target_split_and_image_are_named(dataset):
    with pytest.raises(InputError, match="no target 'mass'; it has any"):
        dataset.target("mass")
    with pytest.raises(InputError, match="no split 'five'; it has default"):
        dataset.split("five")
    with pytest.raises(InputError, match="'no_row' has no file"):
        dataset.image_path("no_row")
    assert not dataset.has_pixels


def test_want_of_a_target_names_the_option_of_the_command_that_runs(dataset):
    two = replace(dataset, targets={**dataset.targets, "b": dataset.targets["any"]})
    with pytest.raises(InputError, match=r"has targets any, b; choose one with --target NAME$"):
        two.target()
    with pytest.raises(InputError, match=r"choose one with --set data.target=NAME$"):
        two.target(option="--set data.target=NAME")


def test_corrected_label_changes_the_labels_id_only(dataset):
    tables = (dataset.boxes, dataset.box_coverage)
    before = dataset_ids(dataset.images, dataset.findings, *tables)
    corrected = dataset.findings.assign(state="absent")
    after = dataset_ids(dataset.images, corrected, *tables)
    assert before["content_id"] == after["content_id"]
    assert before["labels_id"] != after["labels_id"]
