"""Splits read from a file."""

import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.splits.split_file import read_split_file


def make_images(patients: list[int]) -> pd.DataFrame:
    ids = [f"i{n:04d}" for n in range(len(patients))]
    return pd.DataFrame(
        {
            "image_id": ids,
            "patient_id": [f"nih:{patient:03d}" for patient in patients],
            "patient_id_source": "given",
        }
    )


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_by_image_is_followed_whatever_the_words_for_roles(tmp_path):
    images = make_images([0, 1, 2, 3, 4])
    file = write(
        tmp_path / "s.csv",
        "image_id,role,fold\ni0001,Valid,1\ni0000,TRAIN,0\ni0003,dev,\ni0002,test,\ni0004,unused,\n",
    )
    split, how = read_split_file(file, images)
    assert split["role"].tolist() == ["train", "val", "test", "val", "unused"]
    assert split["fold"].tolist()[:2] == [0, 1]
    assert split["fold"].isna().sum() == 3
    assert how.notes == ()


def test_a_file_by_patient_reaches_all_images_of_the_patient(tmp_path):
    images = make_images([5, 6, 5])
    file = write(tmp_path / "s.csv", "patient_id,role\nnih:005,test\nnih:006,train\n")
    split, how = read_split_file(file, images)
    assert split["role"].tolist() == ["test", "train", "test"]
    assert how.by == "patient_id"


@pytest.mark.parametrize("header", ["image_id,split", "role", "image_id,fold"])
def test_a_file_without_its_columns_is_told_what_role_must_hold(tmp_path, header):
    file = write(tmp_path / "s.csv", f"{header}\n{header}\n")
    with pytest.raises(InputError, match=r"role.*train, val, test or unused"):
        read_split_file(file, make_images([0]))
    with pytest.raises(InputError, match=r"no such file.*train, val, test or unused"):
        read_split_file(tmp_path / "none.csv", make_images([0]))


def test_what_file_and_set_do_not_share_is_counted(tmp_path):
    images = make_images([0, 1, 2])
    file = write(tmp_path / "s.csv", "image_id,role\ni0000,train\nelsewhere,test\n")
    split, how = read_split_file(file, images)
    assert split["role"].tolist() == ["train", "unused", "unused"]
    assert (how.n_images_without_role, how.n_ids_unknown) == (2, 1)
    assert len(how.notes) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,role\ni0000,trian\n", "line 2: role='trian'"),
        (
            "image_id,role\ni0000,train\ni0000,train\n",
            "line 3: image_id 'i0000'",
        ),
        ("patient_id,role\n000,train\n", r"'000' is not in the data set \(1 such lines\); .* nih:"),
        ("image_id,role\ni0000,train\ni0001,test\n", "'nih:000'.*train.*test"),
        ("image_id,role,fold\ni0000,train,0\ni0001,train,1\n", "fold 0"),
        ("image_id,role,fold\ni0002,test,1\n", "line 2: fold='1'"),
        ("image_id,role\ni0002,train\ni0003,test\n", "image 'i0002' = 'i0003' is in train and"),
    ],
)
def test_a_wrong_file_is_refused_with_the_position(tmp_path, text, message):
    images = make_images([0, 0, 1, 2])
    linked = pd.Series({"i0002": "image", "i0003": "image"})
    with pytest.raises(InputError, match=message):
        read_split_file(write(tmp_path / "s.csv", text), images, linked)


def test_unused_images_of_a_patient_or_image_overlap_with_nothing(tmp_path):
    images = make_images([0, 0, 1])
    file = write(tmp_path / "s.csv", "image_id,role\ni0000,unused\ni0001,test\ni0002,train\n")
    linked = pd.Series({"i0000": "image", "i0002": "image"})
    split, _ = read_split_file(file, images, linked)
    assert split["role"].tolist() == ["unused", "test", "train"]
