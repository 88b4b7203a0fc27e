"""The RSNA reader: what counts, what is ruled out and why, and who the patients are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.rsna import DrawnWith, PhantomInfo, read_mapping
from cxr_compare.data_prep.sources.source_tables import NO_PIXELS, ReadOptions

from cxr_compare.data_prep.sources.registry import read_source
from tests.data_prep.sources.answers import edges, reader, write_files

NOTHING = ",,,,,"


read = reader("rsna")


def write_source(
    folder: Path,
    rows: list[str],
    *,
    images: str = "ab",
    classes: list[str] | None = None,
    mapping: list[str] | None = None,
) -> Path:
    """Write an RSNA folder whose images are empty files: the reader opens none."""
    (folder / "stage_2_train_images").mkdir(parents=True)
    tables = {
        "stage_2_train_labels.csv": ["patientId,x,y,width,height,Target", *rows],
        "stage_2_detailed_class_info.csv": classes and ["patientId,class", *classes],
        "rsna_to_nih.csv": mapping,
    }
    write_files(folder, {name: "\n".join([*lines, ""]) for name, lines in tables.items() if lines})
    files = [f"stage_2_train_images/{name}.dcm" for name in images]
    return write_files(folder, dict.fromkeys([*files, "stage_2_test_images/t.dcm"], ""))


def test_boxes_become_corners_and_negatives_are_fully_covered(tmp_path):
    rows = ["a,10,20,30,40,1", "a,100,200,5,5,1", "b" + NOTHING + "0"]
    tables = read(write_source(tmp_path, rows))
    assert edges(tables) == [[10, 20, 40, 60], [100, 200, 105, 205]]
    assert dict(zip(tables.findings["image_id"], tables.findings["state"], strict=True)) == {
        "a": "present",
        "b": "absent",
    }
    assert sorted(tables.box_coverage["image_id"]) == ["a", "b"]
    assert tables.excluded.empty


def test_unlabelled_test_images_are_there_but_unused(tmp_path):
    tables = read(write_source(tmp_path, ["a" + NOTHING + "0", "b" + NOTHING + "0"]))
    assert tables.split.to_dict("records") == [{"image_id": "t", "role": "unused"}]
    assert "t" in set(tables.images["image_id"])
    assert "t" not in set(tables.findings["image_id"])


@pytest.mark.parametrize(
    ("rows", "classes", "reason"),
    [
        (["a,1,1,5,5,1"], None, "no row in"),  # the folder has images a and b
        (["a,1,1,5,5,1", "b,,,,,0", "c,,,,,0"], None, "no image"),  # a label for a lost image
        (["a,1,1,0,5,1", "b,1,1,5,5,1"], None, "zero or negative size"),
        (["a,1,,5,5,1", "b,1,1,5,5,1"], None, "missing or infinite"),  # half a box
        (["a,-9,1,15,5,1", "b,1,1,5,5,1"], None, "outside the image"),
        (["a,1,1,5,5,0", "b,,,,,0"], None, "labelled absent"),
        (["a,1,1,5,5,1", "a,,,,,0", "b,,,,,0"], None, "labelled absent"),
        (["a,1,1,5,5,1", "b,,,,,0"], ["a,Normal", "b,Normal"], "labelled absent"),
        (["a,1,1,5,5,1", "b,,,,,0"], ["b,Lung Opacity", "b,Normal"], "two different rows"),
    ],
)
def test_a_label_that_cannot_be_right_excludes_its_image(tmp_path, rows, classes, reason):
    tables = read(write_source(tmp_path, rows, classes=classes))
    assert len(tables.excluded) == 1
    assert reason in tables.excluded["reason"].iloc[0]
    gone = tables.excluded["path"].iloc[0].removeprefix("stage_2_train_images/")[:1]
    for name in ("images", "findings", "boxes", "box_coverage"):
        assert gone not in set(getattr(tables, name)["image_id"]), name


def test_a_positive_without_a_box_is_kept_but_not_called_covered(tmp_path):
    tables = read(write_source(tmp_path, ["a" + NOTHING + "1", "b" + NOTHING + "0"]))
    assert set(tables.findings.loc[tables.findings["state"] == "present", "image_id"]) == {"a"}
    assert set(tables.box_coverage["image_id"]) == {"b"}


def test_repeated_rows_count_once_and_are_noted(tmp_path):
    rows = ["a,1,1,5,5,1", "a,1,1,5,5,1", "b" + NOTHING + "0"]
    tables = read(write_source(tmp_path, rows))
    assert len(tables.boxes) == 1
    assert any("1 repeated rows" in note for note in tables.notes)


def test_normal_and_not_normal_are_kept_apart(tmp_path):
    rows = ["a" + NOTHING + "0", "b" + NOTHING + "0"]
    classes = ["a,Normal", "b,No Lung Opacity / Not Normal"]
    tables = read(write_source(tmp_path, rows, classes=classes))
    kinds = tables.images.set_index("image_id")["x_class"]
    assert kinds[["a", "b"]].tolist() == ["normal", "not_normal"]


def test_without_a_mapping_each_image_is_a_patient_with_a_warning(tmp_path):
    tables = read(write_source(tmp_path, ["a" + NOTHING + "0", "b" + NOTHING + "0"]))
    people = tables.images.set_index("image_id")
    assert people.loc["a", "patient_id"] == "rsna:image-a"
    assert people.loc["a", "patient_id_source"] == "assumed_image"
    assert any(note.startswith("WARNING") and "2 images" in note for note in tables.notes)


def test_the_mapping_names_the_patient_and_doubtful_matches_are_marked(tmp_path):
    rows = ["a" + NOTHING + "0", "b" + NOTHING + "0"]
    mapping = ["patientId,nih_image,mse", "a,00019124_092.png,1.8", "b,00019124_090.png,92.3"]
    tables = read(write_source(tmp_path, rows, mapping=mapping))
    people = tables.images.set_index("image_id")
    assert people.loc[["a", "b"], "patient_id"].tolist() == ["nih:00019124"] * 2
    sources = people.loc[["a", "b"], "patient_id_source"].tolist()
    assert sources == ["mapped", "mapped_unverified"]


def test_an_nih_image_claimed_twice_is_doubtful_where_the_difference_is_unknown(tmp_path):
    path = tmp_path / "rsna_to_nih.csv"
    path.write_text("patientId,nih_image\na,1_0.png\nb,1_0.png\nc,2_0.png\n")
    sources = read_mapping(path)["patient_id_source"].tolist()
    assert sources == ["mapped_unverified", "mapped_unverified", "mapped"]


def test_patients_of_a_phantom_are_never_taken_for_nih_patients(tmp_path):
    rows = ["a" + NOTHING + "0", "b" + NOTHING + "0"]
    source = write_source(tmp_path, rows, mapping=["patientId,nih_image", "a,00000001_000.png"])
    arguments = DrawnWith(n_images=1, seed=5, size=64, prevalence=0.3)
    PhantomInfo(arguments=arguments).write(source / "synth.json")
    images = read(source).images
    assert "phantom-5:00000001" in set(images["patient_id"])
    assert set(images["source"]) == {"synthetic"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,ten,1,5,5,1"], "line 2: x='ten'"),
        (["a,1,1,5,5,1", ",1,1,5,5,1"], "line 3: patientId"),
        (["a,1,1,5,5,2", "b,,,,,0"], "line 2: .*'Target'"),
    ],
)
def test_a_malformed_label_file_names_the_line(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read(write_source(tmp_path, rows))


def test_folder_without_images_says_where_they_belong(tmp_path):
    with pytest.raises(InputError, match=r"stage_2_train_labels\.csv"):
        read(write_source(tmp_path, ["a" + NOTHING + "0"], images=""))


def test_wrong_folders_are_named_with_the_likely_one(tmp_path):
    source = write_source(tmp_path / "rsna", ["a" + NOTHING + "0"])
    with pytest.raises(InputError, match=str(source)):
        read(source / "stage_2_train_images")
    nih = tmp_path / "nih"
    nih.mkdir()
    (nih / "Data_Entry_2017.csv").touch()
    with pytest.raises(InputError, match="--format nih"):
        read_source(nih, "rsna", ReadOptions())


def write_tables_only(folder: Path, rows: list[str]) -> Path:
    source = write_source(folder, rows, images="")
    for name in ("stage_2_train_images", "stage_2_test_images"):
        for path in (source / name).iterdir():
            path.unlink()
        (source / name).rmdir()
    return source


def test_tables_without_image_folders_are_a_set_without_pixels(tmp_path):
    box = "100,100,500,500"
    rows = [f"a,{box},1", "a,600,99,50,50,1", "b" + NOTHING + "0", f"c,{box},0"]
    tables = read(write_tables_only(tmp_path, rows))
    assert tables.images["image_id"].tolist() == ["a", "b"]
    assert tables.images["path"].isna().all()
    assert tables.images["width"].tolist() == [1024, 1024]
    assert tables.excluded["path"].tolist() == ["c"]
    assert tables.split.empty
    assert NO_PIXELS in tables.notes


def test_a_lost_folder_of_training_images_is_no_set_without_pixels(tmp_path):
    source = write_source(tmp_path, ["a" + NOTHING + "0"], images="")
    (source / "stage_2_train_images").rmdir()
    with pytest.raises(InputError, match=r"stage_2_train_labels\.csv"):
        read(source)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_public_headers_give_view_sex_and_age_but_not_their_false_spacing(tmp_path, suffix):
    source = write_source(tmp_path, ["a" + NOTHING + "0", "b" + NOTHING + "0"])
    headers = pd.DataFrame(
        {
            "PatientID": ["a"],
            "PatientAge": ["155"],
            "PatientSex": ["F"],
            "ViewPosition": ["AP"],
            "PixelSpacing": ["0.143"],
        }
    )
    headers.to_csv(source / f"kaggle_stage_2_train_images_dicom_headers{suffix}")
    people = read(source).images.set_index("image_id")
    assert people.loc["a", ["view", "sex", "age_years"]].tolist() == ["AP", "F", 155.0]
    assert people.loc["b", ["view", "sex", "age_years"]].isna().all()
    assert not [c for c in people.columns if "spacing" in c]


def test_an_image_with_two_headers_that_differ_is_left_out(tmp_path):
    source = write_source(tmp_path, ["a" + NOTHING + "0", "b" + NOTHING + "0"])
    headers = "PatientID,PatientAge\na,40\nb,50\nb,51\n"
    write_files(source, {"x_dicom_headers.csv": headers})
    assert set(read(source).images["image_id"]) == {"a", "t"}


def test_the_public_tables_give_the_published_numbers(shared_data):
    """SOURCE.md: 26,684 images, 11,439 patients, 6,012 positive, 98 doubtful matches."""
    tables = read(shared_data / "reference_csv")
    images = tables.images
    patients = tables.images["patient_id"]
    assert (len(images), patients.nunique(), len(tables.excluded)) == (26_684, 11_439, 0)
    assert (tables.findings["state"] == "present").sum() == 6_012
    assert len(tables.boxes) == 9_555
    assert (images["patient_id_source"] == "mapped_unverified").sum() == 98
    # A split by image, which is what `patientId` invites to, leaks most of its test images.
    tested = np.random.default_rng(0).random(len(patients)) < 0.2
    assert patients[tested].isin(patients[~tested]).mean() == pytest.approx(0.70, abs=0.02)
    assert images["view"].value_counts().to_dict() == {"PA": 14_511, "AP": 12_173}
    assert images["age_years"].max() == 155
    assert images["field_width_mm"].median() == pytest.approx(420, abs=1)
    assert images["path"].isna().all()
