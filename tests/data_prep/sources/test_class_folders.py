"""Folders of classes, and Roboflow's table of classes in each part."""

from pathlib import Path

import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.source_tables import ReadOptions

from cxr_compare.data_prep.sources.registry import likely_format, read_source
from tests.data_prep.sources.answers import reader, reasons, states_of, write_files

FOLDERS = (
    "train/NORMAL/a.png",
    "train/PNEUMONIA/b.png",
    "train/TUBERCULOSIS/c.png",
    "test/Normal/d.png",
    "test/PNEUMONIA/e.png",
)
MASKS = ("lung masks", "Infection_Mask")
CLASSES = {
    "train/_classes.csv": "filename, Mass, No Finding\na.png, 1, 0\nb.png, 0, 1\n",
    "valid/_classes.csv": "filename, Mass, No Finding\nc.png, 0, 1\n",
    "test/_classes.csv": "filename, Mass, No Finding\nd.png, 0, 0\n",
}


def write_folders(folder: Path, names: tuple[str, ...] = FOLDERS) -> Path:
    return write_files(folder, dict.fromkeys(names, ""))


def write_parts(folder: Path, tables: dict[str, str] = CLASSES) -> Path:
    images = ("train/a.png", "train/b.png", "valid/c.png", "test/d.png")
    return write_files(folder, {**tables, **dict.fromkeys(images, "")})


def roles(tables) -> dict[str, str]:
    return dict(zip(tables.split["image_id"], tables.split["role"], strict=True))


def test_the_folder_is_the_finding_and_normal_says_that_none_is_there(tmp_path):
    assert likely_format(write_folders(tmp_path)) == "folders"
    tables = reader("folders")(tmp_path)
    assert states_of(tables, "a") == {"pneumonia": "absent", "tuberculosis": "absent"}
    assert states_of(tables, "b") == {"pneumonia": "present", "tuberculosis": "absent"}
    assert states_of(tables, "c") == {"pneumonia": "absent", "tuberculosis": "present"}
    assert set(tables.findings["origin"]) == {"folder"}
    assert roles(tables) == {"a": "train", "b": "train", "c": "train", "d": "test", "e": "test"}
    assert "view" not in tables.images  # children are Kermany's


def test_folders_without_roles_fix_no_split(tmp_path):
    names = ("Tuberculosis/x.png", "Normal/x.png", "Normal/y.png")
    tables = reader("folders")(write_folders(tmp_path, names))
    assert tables.split.empty
    assert states_of(tables, "Tuberculosis/x") == {"tuberculosis": "present"}
    assert states_of(tables, "Normal/x") == {"tuberculosis": "absent"}


def test_numbers_and_signs_of_folders_are_no_part_of_a_finding(tmp_path):
    names = ("0_Normal/a.png", "1_TB+/b.png", "2_TB-/c.png")
    tables = reader("folders")(write_folders(tmp_path, names))
    assert states_of(tables, "a") == {"tb": "absent"}
    assert states_of(tables, "b") == {"tb": "present"}
    assert states_of(tables, "c") == {"tb": "absent"}


def test_a_folder_that_may_hold_normal_images_is_asked_about(tmp_path):
    with pytest.raises(InputError, match="normal x-rays"):
        reader("folders")(write_folders(tmp_path, ("normal x-rays/a.png", "Mass/b.png")))


def test_a_folder_above_names_the_one_to_give(tmp_path):
    with pytest.raises(InputError, match="download looks like --format roboflow"):
        read_source(write_parts(tmp_path / "download").parent, None, ReadOptions())


def test_an_image_beside_the_folders_is_left_out(tmp_path):
    names = (*FOLDERS, *(f"train/NORMAL/n{n}.png" for n in range(9)), "loose.png")
    tables = reader("folders")(write_folders(tmp_path, names))
    assert list(reasons(tables)) == ["loose.png"]


def test_folders_of_masks_are_no_class(tmp_path):
    names = [f"train/{name}/images/{name}.png" for name in ("Normal", "TB")]
    names += [f"train/{name}/{kind}/{name}.png" for name in ("Normal", "TB") for kind in MASKS]
    assert likely_format(write_folders(tmp_path, tuple(names))) == "folders"
    tables = reader("folders")(tmp_path)
    assert sorted(tables.findings["state"]) == ["absent", "present"]
    assert set(tables.findings["finding"]) == {"tb"}
    assert set(reasons(tables).values()) == {"in a folder of masks"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("p001/a.png", "p002/b.png"), None),  # patients
        (("NORMAL/IM-0115-0001.jpeg", "PNEUMONIA/person1_virus_6.jpeg"), "kermany"),
        (("NORMAL/p1.jpeg", "PNEUMONIA/p2.jpeg"), "folders"),
        (("COVID/COVID-1.png", "Normal/Normal-1.png"), "covid"),
    ],
)
def test_what_folders_are_is_told_by_names_of_images_and_classes(tmp_path, names, expected):
    assert likely_format(write_folders(tmp_path, names)) == expected


def test_roboflows_parts_are_roles_and_their_classes_findings(tmp_path):
    assert likely_format(write_parts(tmp_path)) == "roboflow"
    tables = reader("roboflow")(tmp_path)
    states = {name: states_of(tables, name) for name in "abcd"}
    assert states == {
        "a": {"mass": "present"},
        "b": {"mass": "absent"},
        "c": {"mass": "absent"},
        "d": {"mass": "absent"},
    }
    assert roles(tables) == {"a": "train", "b": "train", "c": "val", "d": "test"}


def test_an_unlabeled_image_of_roboflow_is_unknown(tmp_path):
    table = "filename,Mass,Unlabeled\na.png,1,0\nb.png,0,1\n"
    source = write_parts(tmp_path, {"train/_classes.csv": table})
    assert states_of(reader("roboflow")(source), "b") == {}


def test_a_wrong_cell_of_roboflow_names_its_line(tmp_path):
    table = "filename,Mass\na.png,1\nb.png,maybe\n"
    with pytest.raises(InputError, match=r"line 3: .*'Mass'"):
        reader("roboflow")(write_parts(tmp_path, {"train/_classes.csv": table}))
