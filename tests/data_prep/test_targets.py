"""Targets of a data set: positive if any finding is, and negative only if all are not."""

import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError
from tests.adapters.sets import prepare_tables
from tests.data_prep.test_prepare import write_image

# Two images a line: what a set says of an image, and what `lesion` (mass or nodule) is.
STATES = {
    "both-present": ({"mass": 1, "nodule": 1}, 1),
    "one-present": ({"mass": 0, "nodule": 1}, 1),
    "present-beside-uncertain": ({"mass": "uncertain", "nodule": 1}, 1),
    "both-absent": ({"mass": 0, "nodule": 0}, 0),
    "one-absent-one-unknown": ({"mass": 0}, None),
    "one-absent-one-uncertain": ({"mass": 0, "nodule": "uncertain"}, None),
    "nothing-known": ({}, None),
}


def table_set(folder, states, boxes="", name=None, **columns):
    """A data set without images, of the states of each image."""
    source = folder / "source"
    source.mkdir(parents=True)
    images = pd.DataFrame({"image_id": list(states), "patient_id": list(states)} | columns)
    images.to_csv(source / "images.csv", index=False)
    rows = [(i, f, s) for i, of_image in states.items() for f, s in of_image.items()]
    pd.DataFrame(rows, columns=["image_id", "finding", "state"]).to_csv(
        source / "labels.csv", index=False
    )
    if boxes:
        (source / "boxes.csv").write_text(f"image_id,finding,x1,y1,x2,y2\n{boxes}")
    prepare_tables(source, folder / "set", name=name or folder.name)
    return folder / "set"


def label_of(data, target):
    labels = data.labels(data.target(target))
    return {name: None if label != label else int(label) for name, label in labels.items()}


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    states = {name: of_image for name, (of_image, _) in STATES.items()}
    boxes = "both-present,mass,1,1,9,9\none-present,nodule,1,1,9,9\n"
    return table_set(tmp_path_factory.mktemp("joined") / "lesions", states, boxes)


def test_a_target_is_positive_if_any_finding_is_and_negative_only_if_all_are_not(tmp_path, lesions):
    source = lesions.parent / "source"
    data = prepare_tables(source, tmp_path / "set", target={"lesion": ["mass", "nodule"]})
    assert label_of(data, "lesion") == {name: label for name, (_, label) in STATES.items()}
    # Boxes are trusted only where every lesion of the target has one.
    target = data.target("lesion")
    assert sorted(data.boxes_trusted(target)) == ["both-absent", "one-present"]
    assert data.target_boxes(target)["image_id"].tolist() == ["one-present"]


def test_unknown_target_split_and_image_are_named(lesions):
    data = cxr_compare.DataSet.open(lesions)
    with pytest.raises(InputError, match="'tumour'"):
        data.target("tumour")
    with pytest.raises(InputError, match="mass, nodule"):
        data.target()
    with pytest.raises(InputError, match="'five'"):
        data.split("five")
    with pytest.raises(InputError, match="'both-absent'"):
        data.read_original("both-absent")
    assert not data.has_pixels


def test_a_target_of_no_finding_is_refused(tmp_path, lesions):
    with pytest.raises(InputError, match="target"):
        prepare_tables(lesions.parent / "source", tmp_path / "set", target={"any": ["tumour"]})


def test_two_sets_as_one_table_share_no_patient_and_keep_what_is_unknown(tmp_path):
    """The recipe of docs/my-data.md."""
    parts = []
    for number, (name, finding) in enumerate((("north", "mass"), ("south", "nodule"))):
        (tmp_path / "hospitals" / name).mkdir(parents=True)
        ids = [f"{n}.png" for n in range(20)]
        for n, image in enumerate(ids):
            write_image(tmp_path / "hospitals" / name / image, 100 * number + n)
        patients = [str(n // 2) for n in range(20)]
        table = pd.DataFrame({"file": ids, "patient": patients, finding: ["1", "0"] * 10})
        table["file"] = f"{name}/" + table["file"]
        table["patient"] = f"{name}:" + table["patient"]
        parts.append(table.assign(hospital=name))
    pd.concat(parts).to_csv(tmp_path / "both.csv", index=False)
    both = cxr_compare.prepare(
        tmp_path / "both.csv",
        tmp_path / "hospitals",
        tmp_path / "set",
        columns={"x_set": "hospital"},
        workers=0,
    )
    assert both.images["patient_id"].nunique() == 20
    of_set = both.images.set_index("image_id")["x_set"]
    for finding, name in (("mass", "north"), ("nodule", "south")):
        labels = both.labels(both.target(finding))
        assert set(of_set[labels[labels.notna()].index]) == {name}
