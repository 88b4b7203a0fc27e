"""RSNA's own release: MD.ai's annotations and DICOM folders by study, in golden files by hand.

The layout is that which public loaders of the release describe; nobody here has the release.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.registry import read_source
from cxr_compare.data_prep.sources.source_tables import ReadOptions
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.scripts.commands.prepare import prepare
from tests.data_prep.sources.answers import edges, reader, reasons, roles, write_files
from tests.small_dicom import as_file, dicom_image

ANNOTATIONS = "pneumonia-challenge-annotations-adjudicated-kaggle_2018.json"
MAPPINGS = "pneumonia-challenge-dataset-mappings_2018.json"
IMAGES = "mdai_rsna_project_x9N20BZa_images_2018-07-20-153330"
OPACITY, NORMAL, NOT_NORMAL = "L_v8n", "L_o8w", "L_yd0"

read = reader("rsna")


def uids(number: int) -> tuple[str, str, str]:
    """Study, series and SOP instance UID of an image, in the form of the release."""
    stem = f"8323329.{1472 + number}.1517874291"
    ends = (("2", 74), ("3", 73), ("4", 75))
    study, series, sop = (f"1.2.276.0.7230010.3.1.{k}.{stem}.1149{n}" for k, n in ends)
    return study, series, sop


def path_of(number: int) -> str:
    study, series, sop = uids(number)
    return f"{IMAGES}/{study}/{series}/{sop}.dcm"


def annotation(number: int, label: str, box: Any = None, **changes: Any) -> dict[str, Any]:
    study, series, sop = uids(number)
    data = box
    if isinstance(box, list):
        data = dict(zip(("x", "y", "width", "height"), box, strict=True))
    row = {
        "id": f"A_{number}{label}",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "SOPInstanceUID": sop,
        "labelId": label,
        "annotationNumber": 1,
        "width": 1024,
        "height": 1024,
        "data": data,
        "note": None,
        "createdById": "U_rk3",
    } | changes
    return {key: value for key, value in row.items() if value != "absent"}


def project(annotations: list[Any]) -> dict[str, Any]:
    """The export of the MD.ai project, with its adjudicated group and one of a team of readers."""
    calculated = [
        {"id": OPACITY, "name": "Lung Opacity", "type": "local", "annotationMode": "bbox"},
        {"id": NORMAL, "name": "Normal", "type": "global"},
        {"id": NOT_NORMAL, "name": "No Lung Opacity / Not Normal", "type": "global"},
    ]
    team = [
        {"id": "L_t1o", "name": "Lung Opacity (High Prob)", "type": "local"},
        {"id": "L_t1x", "name": "Exclude", "type": "global"},
    ]
    return {
        "id": "x9N20BZa",
        "name": "ChestX-ray14 subset: Pneumonia",
        "labelGroups": [
            {"id": "G_t1", "name": "Team 1", "labels": team},
            {"id": "G_qwj", "name": "Calculated", "labels": calculated},
        ],
        "datasets": [{"id": "D_e57", "studies": [], "annotations": annotations}],
    }


GOLDEN = [
    annotation(0, OPACITY, [398.8, 242.4, 358.4, 609.6]),
    annotation(0, OPACITY, [100, 200, 50, 60]),
    annotation(1, NORMAL),
    annotation(2, NOT_NORMAL),
    annotation(3, "L_t1x"),  # a reader left it out, and it was never adjudicated
    annotation(1, "L_t1o", [1, 1, 9, 9]),  # a reader's box on an image that became normal
]


def write_release(
    folder: Path, annotations: list[Any] = GOLDEN, *, mapped: bool = True, images: int = 4
) -> Path:
    """Write a release whose images are empty files: the reader opens none."""
    files: dict[str, str | bytes] = {ANNOTATIONS: json.dumps(project(annotations))}
    files |= {path_of(number): b"" for number in range(images)}
    if mapped:
        # Images 0 and 2 are of one patient.
        names = ["00000007_000.png", "00000008_000.png", "00000007_003.png", "00000009_001.png"]
        records = [
            {
                "img_id": name,
                "subset_img_id": f"kaggle-{number}",
                "subset_group": 1,
                "orig_labels": ["No Finding"],
                "StudyInstanceUID": uids(number)[0],
                "SeriesInstanceUID": uids(number)[1],
                "SOPInstanceUID": uids(number)[2],
            }
            for number, name in enumerate(names)
        ]
        files[MAPPINGS] = json.dumps(records)
    return write_files(folder, files)


def test_labels_are_those_of_the_adjudicated_group_alone(tmp_path):
    tables = read(write_release(tmp_path))
    found = dict(zip(tables.findings["image_id"], tables.findings["state"], strict=True))
    assert found == {"kaggle-0": "present", "kaggle-1": "absent", "kaggle-2": "absent"}
    kinds = tables.images.set_index("image_id")["x_class"]
    assert kinds[["kaggle-0", "kaggle-1", "kaggle-2"]].tolist() == [
        "lung_opacity", "normal", "not_normal",
    ]  # fmt: skip
    assert tables.split.to_dict("records") == [{"image_id": "kaggle-3", "role": "unused"}]
    assert tables.excluded.empty


def test_boxes_are_corners_in_pixels_and_negatives_are_fully_covered(tmp_path):
    tables = read(write_release(tmp_path))
    assert sorted(edges(tables)) == [
        [100, 200, 150, 260],
        pytest.approx([398.8, 242.4, 757.2, 852]),
    ]
    assert set(tables.boxes["image_id"]) == {"kaggle-0"}
    assert sorted(tables.box_coverage["image_id"]) == ["kaggle-0", "kaggle-1", "kaggle-2"]


def test_the_mapping_of_rsna_names_images_as_on_kaggle_and_their_patients(tmp_path):
    images = read(write_release(tmp_path)).images.set_index("image_id")
    patients = images["patient_id"]
    assert patients["kaggle-0"] == patients["kaggle-2"] == "nih:00000007"
    assert images["patient_id_source"].eq("mapped").all()
    assert images.loc["kaggle-1", "path"] == path_of(1)


def test_without_the_mapping_each_image_is_a_patient_and_its_uid_the_id(tmp_path):
    tables = read(write_release(tmp_path, mapped=False))
    assert set(tables.images["image_id"]) == {uids(number)[2] for number in range(4)}
    assert set(tables.images["patient_id_source"]) == {"assumed_image"}
    assert any(note.startswith("WARNING") and MAPPINGS in note for note in tables.notes)


@pytest.mark.parametrize("missing", ["absent", None])
def test_a_label_of_a_study_is_that_of_its_only_image(tmp_path, missing):
    changes = {"SOPInstanceUID": missing, "SeriesInstanceUID": missing}
    tables = read(write_release(tmp_path, [annotation(1, NORMAL, **changes)]))
    assert tables.findings[["image_id", "state"]].values.tolist() == [["kaggle-1", "absent"]]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([annotation(1, NORMAL), annotation(1, NOT_NORMAL)], "two classes"),
        ([annotation(1, NORMAL, [1, 1, 5, 5])], "without lung opacity"),
        ([annotation(1, OPACITY, [1, 1, 0, 5])], "zero or negative size"),
        ([annotation(1, OPACITY, [-4, 1, 9, 5])], "outside the image"),
        ([annotation(1, OPACITY, [1, None, 9, 5])], "missing or infinite"),
        ([annotation(1, OPACITY, {"x": 1, "y": 1, "width": 4})], "missing or infinite"),
        ([annotation(9, NORMAL)], "no image file"),
    ],
)
def test_a_label_that_cannot_be_right_excludes_its_image(tmp_path, rows, reason):
    tables = read(write_release(tmp_path, [annotation(0, OPACITY, [1, 1, 5, 5]), *rows]))
    assert len(tables.excluded) == 1
    assert reason in tables.excluded["reason"].iloc[0]
    assert tables.findings["image_id"].tolist() == ["kaggle-0"]
    assert "kaggle-1" not in set(tables.images["image_id"]) or rows[0]["id"].startswith("A_9")


def test_a_positive_without_a_box_is_kept_but_not_called_covered(tmp_path):
    tables = read(write_release(tmp_path, [annotation(0, OPACITY), annotation(1, NORMAL)]))
    assert tables.findings["state"].tolist() == ["present", "absent"]
    assert tables.box_coverage["image_id"].tolist() == ["kaggle-1"]


def test_kaggles_list_of_test_images_gives_a_split_without_the_patients_of_test(tmp_path):
    """Image 2 tests; image 0 is of the same patient, so that it may not train; 3 has no label."""
    folder = write_release(tmp_path)
    (folder / "stage_2_sample_submission.csv").write_text("patientId,PredictionString\nkaggle-2,\n")
    assert roles(read(folder)) == {
        "kaggle-0": "unused", "kaggle-1": "train", "kaggle-2": "test", "kaggle-3": "unused",
    }  # fmt: skip


def test_kaggles_list_without_the_names_of_kaggle_gives_no_split_and_a_note(tmp_path):
    folder = write_release(tmp_path, mapped=False)
    (folder / "stage_2_sample_submission.csv").write_text("patientId,PredictionString\nkaggle-2,\n")
    tables = read(folder)
    assert tables.official.empty
    assert any("sample_submission" in note for note in tables.notes)


def test_annotations_without_images_are_a_set_without_pixels(tmp_path):
    tables = read(write_release(tmp_path, images=0))
    assert tables.images["path"].isna().all()
    assert set(tables.images["image_id"]) == {"kaggle-0", "kaggle-1", "kaggle-2"}
    assert tables.images["width"].tolist() == [1024] * 3


def test_the_format_is_recognised_and_kaggles_layout_keeps_precedence(tmp_path):
    assert read_source(write_release(tmp_path), None, ReadOptions()).format == "rsna"
    (tmp_path / "stage_2_train_images").mkdir()
    with pytest.raises(InputError, match="stage_2_train_labels"):
        read(tmp_path)


def test_other_folders_between_source_and_study_do_not_matter(tmp_path):
    folder = write_release(tmp_path, mapped=False, images=0)
    nested = f"pneumonia-challenge-dataset-adjudicated-kaggle_2018/{path_of(1)}"
    write_files(folder, {nested: b""})
    tables = read(folder)
    assert tables.findings["image_id"].tolist() == [uids(1)[2]]
    assert len(reasons(tables)) == 2  # labels of images that are not there


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "labelGroups"),
        ({"labelGroups": [{"name": "Team 1", "labels": []}]}, "Calculated; the adjudicated|Team 1"),
        ({**project([]), "datasets": "x"}, "datasets"),
        ({**project([]), "datasets": [{"annotations": 4}]}, "no list of annotations"),
        (project([4]), "annotation 1"),
        (project([annotation(0, OPACITY, 7)]), "annotation 1"),
        (
            project([annotation(0, NORMAL, SOPInstanceUID=None, StudyInstanceUID=None)]),
            "annotation 1",
        ),
        (project([]), "no annotation of the group Calculated"),
    ],
)
def test_annotations_of_another_layout_are_refused_in_one_line(tmp_path, content, message):
    text = content if isinstance(content, str) else json.dumps(content)
    folder = write_files(tmp_path, {ANNOTATIONS: text, path_of(0): b""})
    with pytest.raises(InputError, match=message) as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_a_class_that_nobody_knows_is_refused(tmp_path):
    content = project([annotation(0, NORMAL)])
    content["labelGroups"][1]["labels"].append({"id": "L_x", "name": "Effusion"})
    with pytest.raises(InputError, match="Effusion"):
        read(write_files(tmp_path, {ANNOTATIONS: json.dumps(content), path_of(0): b""}))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({}, "no list"),
        ([{"subset_img_id": "a", "img_id": "b"}], "record 1 has no SOPInstanceUID"),
        ([{"subset_img_id": "a", "img_id": "b", "SOPInstanceUID": "1"}] * 2, "mapped twice"),
    ],
)
def test_a_mapping_of_another_layout_is_refused(tmp_path, records, message):
    folder = write_release(tmp_path, mapped=False)
    (folder / MAPPINGS).write_text(json.dumps(records))
    with pytest.raises(InputError, match=message):
        read(folder)


def test_two_files_of_annotations_are_refused(tmp_path):
    folder = write_release(tmp_path)
    (folder / ANNOTATIONS.replace("kaggle", "other")).write_text("{}")
    with pytest.raises(InputError, match="keep one"):
        read(folder)


def test_prepare_reads_the_release_from_images_to_a_data_set(tmp_path):
    """Four real DICOM files of 64 x 64 px, whose boxes lie inside."""
    rows = [annotation(0, OPACITY, [10, 20, 30, 40.5]), annotation(1, NORMAL), *GOLDEN[3:4]]
    folder = write_release(tmp_path / "release", rows)
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (64, 64), dtype=np.uint8)
        _, _, sop = uids(number)
        header = {"SOPInstanceUID": sop, "ViewPosition": "AP", "PatientSex": "F", "Modality": "CR"}
        write_files(folder, {path_of(number): as_file(dicom_image(pixels, **header))})
    prepare(folder, tmp_path / "data", format="rsna", size=[64], workers=0)
    dataset = DataSet.open(tmp_path / "data")
    assert set(dataset.images["image_id"]) == {f"kaggle-{number}" for number in range(4)}
    boxes = dataset.target_boxes(dataset.target())
    assert boxes[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [[10, 20, 40, 60.5]]
    labels = dataset.labels(dataset.target()).dropna()
    assert labels.to_dict() == {"kaggle-0": 1.0, "kaggle-1": 0.0, "kaggle-2": 0.0}
