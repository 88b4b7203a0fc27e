"""The Kermany reader: labels from folders and names, children kept whole, stable ids."""

from pathlib import Path

import pytest
from cxr_compare.data_prep.contracts.errors import InputError

from tests.data_prep.sources.answers import reader, reasons, roles, write_files

USUAL = (
    "train/PNEUMONIA/person1_bacteria_1.jpeg",
    "train/PNEUMONIA/person7_virus_12.jpeg",
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg",
    "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
    "test/PNEUMONIA/person1_virus_6.jpeg",
)


read = reader("kermany")


def write_source(folder: Path, names: tuple[str, ...] = USUAL) -> Path:
    """Write empty files: the reader opens none."""
    return write_files(folder, dict.fromkeys(names, ""))


def states(tables, finding: str) -> dict[str, str]:
    rows = tables.findings[tables.findings["finding"] == finding]
    return dict(zip(rows["image_id"], rows["state"], strict=True))


def column(tables, name: str) -> dict[str, str]:
    return dict(zip(tables.images["image_id"], tables.images[name], strict=True))


def test_the_folder_is_the_label_and_the_name_tells_the_kind(tmp_path):
    tables = read(write_source(tmp_path))
    assert {i for i, s in states(tables, "pneumonia").items() if s == "present"} == {
        "person1_bacteria_1",
        "person7_virus_12",
        "person1_virus_6",
    }
    bacterial = states(tables, "bacterial_pneumonia")
    viral = states(tables, "viral_pneumonia")
    assert (bacterial["person1_bacteria_1"], viral["person1_bacteria_1"]) == ("present", "absent")
    assert (bacterial["person7_virus_12"], viral["person7_virus_12"]) == ("absent", "present")
    assert (bacterial["IM-0115-0001"], viral["IM-0115-0001"]) == ("absent", "absent")
    assert list(tables.targets) == ["pneumonia", "bacterial_pneumonia", "viral_pneumonia"]
    assert set(tables.findings["origin"]) == {"folder"}


def test_a_kind_that_the_name_does_not_say_is_unknown(tmp_path):
    names = ("PNEUMONIA/scan1.jpeg", "NORMAL/scan1.jpeg")
    tables = read(write_source(tmp_path, names))
    assert states(tables, "pneumonia")["PNEUMONIA/scan1"] == "present"
    assert states(tables, "bacterial_pneumonia") == {"NORMAL/scan1": "absent"}
    assert column(tables, "x_class")["PNEUMONIA/scan1"] == "pneumonia"


def test_patients_come_from_the_names(tmp_path):
    extra = ("train/PNEUMONIA/BACTERIA-1008087-0001.jpeg", "train/PNEUMONIA/VIRUS-1008087-02.jpeg")
    tables = read(write_source(tmp_path, USUAL + extra))
    patients = column(tables, "patient_id")
    assert patients["person1_bacteria_1"] == patients["person1_virus_6"] == "kermany:person1"
    assert patients["IM-0115-0001"] == "kermany:IM-0115"
    assert patients["NORMAL2-IM-0115-0001-0002"] == "kermany:NORMAL2-IM-0115"
    assert patients["BACTERIA-1008087-0001"] == patients["VIRUS-1008087-02"] == "kermany:1008087"
    assert set(column(tables, "patient_id_source").values()) == {"given"}


def test_names_without_a_patient_give_a_warning_and_a_pattern_helps(tmp_path):
    source = write_source(tmp_path, ("PNEUMONIA/kid7-a.png", "NORMAL/kid8-a.png"))
    tables = read(source)
    assert set(column(tables, "patient_id_source").values()) == {"assumed_image"}
    assert any(note.startswith("WARNING") and "2 images" in note for note in tables.notes)
    tables = read(source, patient_pattern=r"kid(\d+)")
    assert set(column(tables, "patient_id").values()) == {"kermany:7", "kermany:8"}


@pytest.mark.parametrize("above", ["", "chest_xray/"])
def test_every_published_level_gives_the_same_set(tmp_path, above):
    source = write_source(tmp_path, tuple(above + name for name in USUAL))
    tables = read(source)
    assert len(tables.images) == len(USUAL)
    assert (
        column(tables, "path")["person1_virus_6"] == f"{above}test/PNEUMONIA/person1_virus_6.jpeg"
    )
    assert tables.excluded.empty


def test_the_second_copy_and_the_litter_of_the_archive_are_ignored(tmp_path):
    litter = (
        "chest_xray/train/NORMAL/IM-0115-0001.jpeg",
        "__MACOSX/train/NORMAL/._IM-0115-0001.jpeg",
        "train/NORMAL/.DS_Store",
    )
    tables = read(write_source(tmp_path, USUAL + litter))
    assert len(tables.images) == len(USUAL)
    assert tables.excluded.empty
    assert any("1 image below a second chest_xray" in note for note in tables.notes)


def test_a_strange_folder_or_a_name_against_its_folder_is_left_out_with_the_reason(tmp_path):
    names = (
        "train/COVID19/a.jpeg",
        "train/NORMAL/person3_virus_1.jpeg",
        "train/PNEUMONIA/NORMAL2-IM-0001-0001.jpeg",
    )
    tables = read(write_source(tmp_path, USUAL + names))
    assert len(tables.images) == len(USUAL)
    assert reasons(tables) == {
        names[0]: "not in the folder of a class",
        names[1]: "in NORMAL, but named as a pneumonia",
        names[2]: "in PNEUMONIA, but named as normal",
    }


def test_an_added_file_changes_no_other_id(tmp_path):
    names = ("train/NORMAL/scan.jpeg", "train/PNEUMONIA/person1_virus_1.jpeg")
    before = column(read(write_source(tmp_path, names)), "path")
    added = ("train/PNEUMONIA/scan.jpeg", "test/NORMAL/scan.jpeg", "val/NORMAL/IM-0001-0001.jpeg")
    after = column(read(write_source(tmp_path, added)), "path")
    assert len(after) == 5
    assert before.items() <= after.items()


def test_two_images_of_one_published_name_are_refused(tmp_path):
    names = (*USUAL, "test/NORMAL/IM-0115-0001.jpeg")
    with pytest.raises(InputError, match=r"test/NORMAL/.*train/NORMAL/"):
        read(write_source(tmp_path, names))


def test_folders_are_the_official_split_and_what_is_wrong_with_it_is_counted(tmp_path):
    tables = read(write_source(tmp_path))
    published = roles(tables)
    assert published["person1_virus_6"] == "test"
    assert published["NORMAL2-IM-1427-0001"] == "val"
    assert sorted(published.values()) == ["test", "train", "train", "train", "train", "val"]
    warning = next(note for note in tables.notes if note.startswith("WARNING"))
    assert "1 of 5 patients are in both" in warning
    assert "train (1 of 4 images) and test (1 of 1 images)" in warning


def test_without_roles_there_is_no_official_split(tmp_path):
    names = ("PNEUMONIA/person1_virus_1.jpeg", "NORMAL/IM-0001-0001.jpeg")
    assert read(write_source(tmp_path, names)).official.empty


def test_empty_folders_are_refused(tmp_path):
    (tmp_path / "train" / "PNEUMONIA").mkdir(parents=True)
    with pytest.raises(InputError, match="hold no image"):
        read(tmp_path)


def test_real_images_give_the_known_numbers(shared_data):
    tables = read(shared_data / "kermany_224")
    assert (len(tables.images), tables.images["patient_id"].nunique()) == (4_358, 2_355)
    assert tables.images["x_class"].value_counts().to_dict() == {
        "bacterial": 2_045,
        "normal": 1_202,
        "viral": 1_111,
    }
    assert tables.official["role"].value_counts().to_dict() == {"train": 3_883, "test": 475}
    warning = next(note for note in tables.notes if note.startswith("WARNING"))
    assert "125 of 2355 patients" in warning
    assert "test (235 of 475 images)" in warning
    assert len(read(shared_data / "kermany_full").images) == 24
