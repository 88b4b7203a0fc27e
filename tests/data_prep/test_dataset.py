"""Targets and labels of a data set: unknown is not negative, partly boxed is not boxed."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.store.dataset_info import SplitInfo, SplitOrigin
from PIL import Image

from cxr_compare.data_prep.dataset import DataSet, ImageFile
from tests.plain_info import data_set_info
from tests.stored_json import bind_tables

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
    how = SplitOrigin(method="by hand")
    record = SplitInfo(name="default", split_id="x", how=how, n_images={}, files={})
    record.write(tmp_path / "splits" / "default.json")
    info = data_set_info(
        name="tiny",
        source_root=str(tmp_path),
        targets={"any": Target("any", ("opacity", "mass"), "Any")},
        ids=DataSet.digests(images, FINDINGS, boxes, coverage),
    )
    info.write(tmp_path / "dataset.json")
    bind_tables(tmp_path)
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
    with pytest.raises(InputError, match="'mass'"):
        dataset.target("mass")
    with pytest.raises(InputError, match=r"'five'.*default"):
        dataset.split("five")
    with pytest.raises(InputError, match="'no_row'"):
        dataset.image_path("no_row")
    assert not dataset.has_pixels


def test_missing_target_names_the_option_of_the_running_command(dataset):
    targets = {**dataset.targets, "b": dataset.targets["any"]}
    two = replace(dataset, info=dataset.info.with_values(targets=targets))
    with pytest.raises(InputError, match=r"any, b.* --target NAME$"):
        two.target()
    with pytest.raises(InputError, match=r"--set data.target=NAME$"):
        two.target(option="--set data.target=NAME")


def test_corrected_label_changes_the_labels_id_only(dataset):
    tables = (dataset.boxes, dataset.box_coverage)
    before = DataSet.digests(dataset.images, dataset.findings, *tables)
    corrected = dataset.findings.assign(state="absent")
    after = DataSet.digests(dataset.images, corrected, *tables)
    assert before.content_id == after.content_id
    assert before.labels_id != after.labels_id


@pytest.mark.parametrize("digest", ["0" * 64, "nan"], ids=["another", "none recorded"])
def test_link_to_a_file_of_another_content_is_not_read(tmp_path, digest):
    Image.new("L", (8, 8)).save(tmp_path / "private.png")
    (tmp_path / "a.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(InputError, match=r"a\.png: "):
        ImageFile(tmp_path / "a.png", digest).read()


def test_table_may_not_be_a_link_out_of_the_folder_but_pixels_may(dataset, tmp_path):
    (dataset.folder / "splits" / "same.parquet").symlink_to(dataset.folder / "images.parquet")
    (tmp_path / "large_disk").mkdir()
    (dataset.folder / "pixels").symlink_to(tmp_path / "large_disk")
    DataSet.open(dataset.folder)
    (dataset.folder / "boxes2.parquet").symlink_to(tmp_path.parent / "private.parquet")
    with pytest.raises(InputError, match=r"boxes2\.parquet: "):
        DataSet.open(dataset.folder)
