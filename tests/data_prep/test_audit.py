"""The audit finds what was planted, and nothing in a clean set."""

import numpy as np
import pandas as pd
import pytest

from data_prep.audit import Audit, Problem, audit, check_boxes, find_duplicates, find_leaks
from data_prep.audit_images import check_duplicates, check_people, check_roles
from data_prep.audit_shortcuts import check_shortcuts, predictive_auroc
from data_prep.dataset import DataSet
from data_prep.prepare import prepare
from data_prep.synth import write_phantom


def as_images(patients: str) -> pd.DataFrame:
    """Images 0, 1, ... of the named patients."""
    return pd.DataFrame(
        {"image_id": [str(n) for n in range(len(patients))], "patient_id": list(patients)}
    )


def as_split(*roles: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": [str(n) for n in range(len(roles))], "role": roles})


def test_a_patient_in_train_and_test_leaks():
    leaks = find_leaks(as_images("ppq"), as_split("train", "test", "test"))
    assert leaks[["patient_id", "image_id", "role"]].to_numpy().tolist() == [
        ["p", "0", "train"],
        ["p", "1", "test"],
    ]


def test_an_unused_image_leaks_nothing():
    assert find_leaks(as_images("pp"), as_split("unused", "test")).empty


def test_missing_digests_are_no_duplicates():
    pictures = pd.DataFrame({"image_id": ["a", "b"], "file_sha256": [None, None]})
    assert find_duplicates(pictures, "file_sha256").empty


@pytest.mark.parametrize(
    ("patients", "roles", "labels", "expected"),
    [
        ("pp", ("train", "train"), (1, 1), {"picture_repeated": "warning"}),
        ("pq", ("train", "train"), (1, 1), {"picture_patients": "error"}),
        ("pq", ("train", "test"), (1, 1), {"picture_patients": "error", "picture_leak": "error"}),
        (
            "pp",
            ("train", "train"),
            (1, 0),
            {"picture_repeated": "warning", "picture_label": "error"},
        ),
        ("pp", ("train", "train"), (1, np.nan), {"picture_repeated": "warning"}),  # not known
    ],
)
def test_equal_pictures_are_worse_the_more_they_disagree(patients, roles, labels, expected):
    images = as_images(patients)
    decode = images.assign(pixel_sha256="same")
    table = pd.DataFrame({"opacity": labels}, index=images["image_id"])
    found = check_duplicates(images, decode, table, {"default": as_split(*roles)})
    assert {p.check: p.severity for p in found if p.count} == expected


def one_box(x1: float, y1: float, x2: float, y2: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"image_id": ["a"], "finding": "mass", "reader": "reference"}
        | {"x1": [x1], "y1": [y1], "x2": [x2], "y2": [y2]}
    )


@pytest.mark.parametrize(
    ("boxes", "state", "expected"),
    [
        (one_box(10, 10, 50, 50), "present", []),
        (one_box(0, 0, 100, 50), "present", []),  # to the very edge
        (one_box(10, 10, 100.5, 50), "present", ["box_outside"]),
        (one_box(-1, 10, 50, 50), "present", ["box_outside"]),
        (one_box(10, 10, 10, 50), "present", ["box_empty"]),
        (one_box(10, np.nan, 50, 50), "present", ["box_not_finite"]),
        (one_box(10, 10, 10.9, 50), "present", ["box_tiny"]),
        (one_box(0, 0, 99, 99), "present", ["box_huge"]),
        (one_box(10, 10, 50, 50), "absent", ["box_on_negative"]),
        (pd.concat([one_box(1, 1, 50, 50)] * 2), "present", ["box_repeated"]),
        (one_box(1, 1, 50, 50).iloc[:0], "present", ["box_promised"]),
    ],
)
def test_each_fault_of_a_box_has_its_name(boxes, state, expected):
    images = pd.DataFrame({"image_id": ["a"], "width": [100], "height": [100]})
    findings = boxes.iloc[:0][["image_id", "finding", "reader"]].copy()
    findings.loc[0] = ["a", "mass", "reference"]
    coverage = findings.assign(coverage="all")
    problems = check_boxes(boxes, images, findings.assign(state=state), coverage)
    assert [problem.check for problem in problems] == expected


def test_a_positive_that_nobody_boxed_is_a_warning_where_others_are_boxed():
    boxes = one_box(10, 10, 50, 50)
    images = pd.DataFrame({"image_id": ["a", "b"], "width": 100, "height": 100})
    keys = pd.DataFrame({"image_id": ["a", "b"], "finding": "mass", "reader": "reference"})
    coverage = keys.iloc[:1].assign(coverage="all")
    (problem,) = check_boxes(boxes, images, keys.assign(state="present"), coverage)
    assert (problem.check, problem.severity, problem.examples) == (
        "positive_without_box",
        "warning",
        ("b",),
    )


def test_impossible_people_are_reported():
    images = as_images("ppqr").assign(
        age_years=[40.0, 41.0, 155.0, -1.0], sex=["M", "F", "M", None], patient_id_source="given"
    )
    found = {p.check: p.examples for p in check_people(images, {}) if p.count}
    assert found == {"age": ("2", "3"), "two_sexes": ("p",)}


def test_a_role_with_one_class_is_reported_but_not_an_unwanted_train():
    labels = pd.Series([1.0, 1.0, 0.0], index=["0", "1", "2"])
    (problem,) = check_roles(as_split("val", "test", "test"), labels, "mass", "default")
    assert "val has no negative image" in problem.message


def test_view_that_gives_the_label_away_is_reported():
    labels = pd.Series([1.0] * 40 + [0.0] * 40, index=[str(n) for n in range(80)])
    images = pd.DataFrame({"image_id": labels.index, "width": 100, "height": 100})
    images["view"] = ["AP"] * 30 + ["PA"] * 50
    (problem,) = check_shortcuts(images, labels.to_frame("mass"))
    assert "'view' alone predicts 'mass' with AUROC 0.875" in problem.message
    assert problem.severity == "info"


def test_rare_categories_predict_nothing_by_chance():
    labels = pd.Series([1.0, 0.0] * 50)
    assert predictive_auroc(pd.Series([f"scanner {n}" for n in range(100)]), labels) == 0.5


def test_published_shortcut_of_the_view_position(shared_data):
    """SOURCE.md: view position alone gives AUROC 0.706 on Lung Opacity."""
    folder = shared_data / "reference_csv"
    headers = pd.read_csv(folder / "kaggle_stage_2_train_images_dicom_headers.csv.gz")
    labels = pd.read_csv(folder / "stage_2_train_labels.csv").groupby("patientId")["Target"].max()
    views = headers.set_index("PatientID")["ViewPosition"].reindex(labels.index)
    assert predictive_auroc(views, labels.astype("float64")) == pytest.approx(0.706, abs=0.0005)


def test_audit_file_reads_back(tmp_path):
    found = Audit((Problem.of("age", "warning", "too old", ["a"]),), {"images": 1})
    found.write(tmp_path / "audit.json")
    assert Audit.read(tmp_path / "audit.json") == found


@pytest.fixture(scope="module")
def flawed(tmp_path_factory) -> tuple[DataSet, pd.DataFrame]:
    """A phantom with planted flaws, prepared, and the list of what was planted."""
    folder = tmp_path_factory.mktemp("flawed")
    write_phantom(folder / "source", n_images=40, seed=3, size=64, flaws=True)
    prepare(folder / "source", folder / "set", format="rsna", workers=1)
    planted = pd.read_csv(folder / "source" / "planted_flaws.csv", dtype="str")
    return DataSet.open(folder / "set"), planted


REASONS = {
    "truncated": "",  # the decoder says it in its own words
    "unreadable": "",
    "text_file": "",
    "image_without_label": "no row in",
    "label_without_image": "no image file",
    "box_outside": "box outside the image",
    "box_zero_size": "zero or negative size",
    "box_negative_width": "zero or negative size",
    "box_nan": "missing or infinite",
}


@pytest.mark.parametrize("flaw", REASONS)
def test_planted_flaw_keeps_the_image_out_with_its_reason(flawed, flaw):
    dataset, planted = flawed
    excluded = pd.read_parquet(dataset.folder / "excluded.parquet")
    for film in planted.loc[planted["flaw"] == flaw, "patientId"]:
        (row,) = excluded[excluded["path"].str.contains(film)].itertuples()
        assert REASONS[flaw] in row.reason
        assert film not in set(dataset.images["image_id"])


@pytest.mark.parametrize(
    ("flaw", "check"),
    [
        ("exact_duplicate", "picture_repeated"),
        ("leaking_patient", "picture_patients"),
        ("impossible_age", "age"),
    ],
)
def test_planted_flaw_is_found(flawed, flaw, check):
    dataset, planted = flawed
    expected = set(planted.loc[planted["flaw"] == flaw, "patientId"])
    (problem,) = [p for p in audit(dataset).problems if p.check == check]
    both = 2 if flaw != "impossible_age" else 1  # a copy and its original
    assert problem.count == both * len(expected)


def test_planted_twins_never_face_each_other_across_the_split(flawed):
    dataset, _ = flawed
    found = audit(dataset)
    assert not found.passed
    assert "picture_leak" not in {p.check for p in found.problems}


def test_a_clean_phantom_passes(tmp_path):
    write_phantom(tmp_path / "source", n_images=24, seed=1, size=64)
    summary = prepare(tmp_path / "source", tmp_path / "set", format="rsna", workers=1)
    assert summary.audit.passed
    assert summary.excluded.empty
