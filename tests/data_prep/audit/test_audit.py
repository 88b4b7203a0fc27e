"""The audit finds flaws that were added on purpose, and nothing in a clean data set."""

import shutil

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.assemble.prepare import prepare
from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions
from cxr_compare.data_prep.audit.audit import audit
from cxr_compare.data_prep.audit.box_checks import check_boxes
from cxr_compare.data_prep.audit.burned_in_text import check_burned_in_text
from cxr_compare.data_prep.audit.copy_checks import check_duplicates, check_near_duplicates
from cxr_compare.data_prep.audit.excluded_files import check_excluded
from cxr_compare.data_prep.audit.image_checks import check_images, check_people
from cxr_compare.data_prep.audit.image_groups import find_duplicates
from cxr_compare.data_prep.audit.split_checks import check_leaks, check_roles, find_leaks
from cxr_compare.data_prep.contracts.tables import read_table, write_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.near_duplicates import find_near_duplicates
from cxr_compare.data_prep.images.image_facts import image_facts
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.synth.phantom import write_phantom
from cxr_compare.data_prep.work.local_engine import LocalEngine


def as_images(patients: str) -> pd.DataFrame:
    """Images 0, 1, ... of the named patients."""
    images = pd.DataFrame(
        {"image_id": [str(n) for n in range(len(patients))], "patient_id": list(patients)}
    )
    return images.assign(patient_id_source="given")


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
    images = pd.DataFrame({"image_id": ["a", "b"], "pixel_sha256": [None, None]})
    assert find_duplicates(images).empty


@pytest.mark.parametrize(
    ("patients", "roles", "labels", "expected"),
    [
        ("pp", ("train", "train"), (1, 1), {"image_repeated": "warning"}),
        ("pq", ("train", "train"), (1, 1), {"image_patients": "error"}),
        ("pq", ("train", "test"), (1, 1), {"image_patients": "error", "image_leak": "error"}),
        (
            "pp",
            ("train", "train"),
            (1, 0),
            {"image_repeated": "warning", "image_label": "error"},
        ),
        ("pp", ("train", "train"), (1, np.nan), {"image_repeated": "warning"}),  # not known
    ],
)
def test_equal_images_are_worse_the_more_they_disagree(patients, roles, labels, expected):
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
        (one_box(1, 1, 50, 50).iloc[:0], "present", ["box_missing"]),
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
    states = keys.assign(state="present")
    (problem,) = check_boxes(boxes, images, states, coverage)
    assert (problem.check, problem.severity, problem.examples) == (
        "positive_without_box",
        "warning",
        ("b",),
    )
    of_a_reader = one_box(10, 10, 50, 50).assign(image_id="b", reader="anna")
    (problem,) = check_boxes(pd.concat([boxes, of_a_reader]), images, states, coverage)
    assert (problem.check, problem.examples) == ("box_disputed", ("b",))


def test_impossible_people_are_reported():
    images = as_images("ppqr").assign(
        age_years=[40.0, 41.0, 155.0, -1.0], sex=["M", "F", "M", None], patient_id_source="given"
    )
    found = {p.check: p.examples for p in check_people(images, {}) if p.count}
    assert found == {"age": ("2", "3"), "two_sexes": ("p",)}


def test_a_role_with_one_class_is_reported_but_not_an_unwanted_train():
    labels = pd.DataFrame({"mass": [1.0, 1.0, 0.0]}, index=["0", "1", "2"])
    (problem,) = check_roles(as_split("val", "test", "test"), labels, "default")
    assert (problem.count, "val has no negative image of 'mass'" in problem.message) == (1, True)


def test_many_roles_with_one_class_are_one_problem():
    labels = pd.DataFrame({f"t{n}": [1.0, 1.0, 1.0] for n in range(9)}, index=["0", "1", "2"])
    (problem,) = check_roles(as_split("train", "val", "test"), labels, "default")
    assert problem.count == 27
    assert "and 24 more such" in problem.message


def test_a_leak_shows_two_images_of_the_patient_side_by_side():
    (leak, _, _) = check_leaks(as_images("ppq"), as_split("train", "test", "test"), "default")
    assert (leak.count, leak.unit, leak.images) == (1, "patient", (("1", "0"),))
    assert leak.split == "default"


COPY_HASHES = ["0f" * 32, "0f" * 31 + "0e", "f0" * 8 + "0f" * 24]


@pytest.mark.parametrize(
    ("patients", "roles", "labels", "expected"),
    [
        ("ppz", ("train", "train", "test"), (1, 1, 0), {"near_repeated": "info"}),
        ("pqz", ("train", "train", "test"), (1, 1, 0), {"near_patients": "warning"}),
        (
            "pqz",
            ("train", "test", "test"),
            (1, 0, 0),
            {"near_patients": "warning", "near_leak": "error", "near_label": "warning"},
        ),
        ("ppz", ("train", "unused", "test"), (1, 1, 0), {"near_repeated": "info"}),
    ],
)
def test_near_copies_are_worse_the_more_they_disagree(patients, roles, labels, expected):
    images = as_images(patients)
    decode = images.assign(pixel_sha256=["1", "2", "3"], perceptual_hash=COPY_HASHES)
    table = pd.DataFrame({"opacity": labels}, index=images["image_id"]).astype("float64")
    near = find_near_duplicates(decode)
    found = check_near_duplicates(near, images, table, {"default": as_split(*roles)})
    assert {p.check: p.severity for p in found if p.count} == expected
    assert all(set(p.examples) == {"0", "1"} for p in found if p.count)


def test_copies_of_patients_that_are_only_assumed_contradict_nothing():
    images = as_images("pq").assign(patient_id_source="assumed_image")
    decode = images.assign(pixel_sha256="same")
    table = pd.DataFrame({"opacity": [1.0, 1.0]}, index=images["image_id"])
    found = check_duplicates(images, decode, table, {"default": as_split("train", "train")})
    assert {p.check for p in found if p.count} == {"image_repeated"}


@pytest.mark.parametrize(("shift", "expected"), [(1.0, ["box_repeated"]), (4.0, [])])
def test_boxes_that_overlap_almost_wholly_are_one_lesion(shift, expected):
    boxes = pd.concat([one_box(10, 10, 60, 60), one_box(10 + shift, 10, 60 + shift, 60)])
    others = boxes.assign(image_id="b", finding=["mass", "nodule"])  # two findings may coincide
    images = pd.DataFrame({"image_id": ["a", "b"], "width": 100, "height": 100})
    both = pd.concat([boxes, others])
    findings = both[["image_id", "finding", "reader"]].drop_duplicates().assign(state="present")
    problems = check_boxes(both, images, findings, findings.assign(coverage="all"))
    assert [p.check for p in problems] == expected
    assert all(p.examples == ("a",) for p in problems)


def test_laterals_among_frontals_and_small_images_are_reported():
    images = as_images("pqrs").assign(
        view=["PA", "LL", "other", None], width=[900, 900, 100, None], height=900
    )
    images = images.astype({"width": "Int64", "height": "Int64"})
    nothing = pd.DataFrame({"image_id": []})
    found = {p.check: p.examples for p in check_images(images, nothing) if p.count}
    assert found == {"view_lateral": ("1",), "view_other": ("2",), "image_small": ("2",)}
    lateral = check_images(images.assign(view="LL"), nothing)
    assert not [p for p in lateral if p.check == "view_lateral" and p.count]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_an_image_turned_among_upright_ones_is_found_by_its_border(turns):
    rng = np.random.default_rng(0)
    names = [f"i{n:02d}" for n in range(60)]
    chest = np.full((80, 80), 60) + np.linspace(0, 120, 80)[:, None]  # bright below
    chest[:16, 24:56] += 60  # the neck between dark corners
    chests = [np.clip(chest + rng.normal(0, 25, (1, 1)), 0, 255).astype(np.uint8) for _ in names]
    chests = [np.clip(c + rng.normal(0, 12, c.shape), 0, 255).astype(np.uint8) for c in chests]

    def found(images):
        greys = [image_facts(image)["border_greys"] for image in images]
        decode = pd.DataFrame({"image_id": names, "border_greys": greys})
        about = as_images("p" * 60).assign(view="PA", width=80, height=80)
        problems = {p.check: p.examples for p in check_images(about, decode) if p.count}
        return problems.get("image_turned", ())

    assert found(chests) == ()
    assert found([*chests[:7], np.rot90(chests[7], turns).copy(), *chests[8:]]) == ("i07",)
    assert found([*chests[:7], 255 - chests[7], *chests[8:]]) == ("i07",)


def test_burned_in_text_is_flagged_by_the_header_or_by_the_pixels():
    decode = pd.DataFrame(
        {
            "image_id": list("abcd"),
            "burned_in_annotation": ["yes", "no", None, None],
            "text_score": [0.0, 0.0, 99.0, None],
        }
    )
    (problem,) = check_burned_in_text(decode)
    assert problem.images == (("c",), ("a",))
    (none,) = check_burned_in_text(decode[["image_id"]])
    assert none.count == 0


def test_a_thousand_reasons_for_leaving_out_stay_a_short_list():
    reasons = [f"cannot be read (code {n})" for n in range(1000)] + ["not an image"] * 7
    paths = [f"{n}.dcm" for n in range(1007)]
    excluded = pd.DataFrame({"path": paths, "stage": "decode", "reason": reasons})
    problems = check_excluded(excluded)
    assert len(problems) == 21
    assert sum(p.count for p in problems) == 1007
    assert any(p.count == 7 for p in problems)
    assert [p for p in check_excluded(excluded.iloc[:0]) if p.count] == []


@pytest.fixture(scope="module")
def flawed(tmp_path_factory) -> tuple[DataSet, pd.DataFrame]:
    """A prepared phantom with added flaws, and the list of these flaws."""
    folder = tmp_path_factory.mktemp("flawed")
    write_phantom(folder / "source", n_images=40, seed=3, size=64, flaws=True)
    prepare(folder / "source", folder / "set", PrepareOptions("rsna", engine=LocalEngine(1)))
    flaws = pd.read_csv(folder / "source" / "added_flaws.csv", dtype=TEXT)
    return DataSet.open(folder / "set"), flaws


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
def test_added_flaw_keeps_the_image_out_with_its_reason(flawed, flaw):
    dataset, flaws = flawed
    excluded = pd.read_parquet(dataset.folder / "excluded.parquet")
    for image in flaws.loc[flaws["flaw"] == flaw, "patientId"]:
        (row,) = excluded[excluded["path"].str.contains(image)].itertuples()
        assert REASONS[flaw] in row.reason
        assert image not in set(dataset.images["image_id"])


@pytest.mark.parametrize(
    ("flaw", "check"),
    [
        ("exact_duplicate", "image_repeated"),
        ("leaking_patient", "image_patients"),
        ("near_duplicate", "near_patients"),
        ("impossible_age", "age"),
    ],
)
def test_added_flaw_is_found(flawed, flaw, check):
    dataset, flaws = flawed
    rows = flaws[flaws["flaw"] == flaw]
    expected = set(rows["patientId"]) | set(rows["other_patientId"].dropna())
    (problem,) = [p for p in audit(dataset).problems if p.check == check]
    assert problem.count == len(expected)
    assert set(problem.examples) <= expected
    assert {image_id for case in problem.images for image_id in case} <= expected


def test_every_kind_of_added_flaw_has_its_test(flawed):
    """Each flaw that `synth` adds has a check that must find it."""
    _, flaws = flawed
    sought = {"exact_duplicate", "leaking_patient", "near_duplicate", "impossible_age"}
    assert set(flaws["flaw"]) == sought | set(REASONS)


def test_added_copies_never_face_each_other_across_the_split(flawed):
    dataset, _ = flawed
    found = audit(dataset)
    assert not found.passed
    assert not {"image_leak", "near_leak"} & {p.check for p in found.problems}


def test_a_clean_phantom_passes(tmp_path):
    write_phantom(tmp_path / "source", n_images=24, seed=1, size=64)
    summary = prepare(
        tmp_path / "source", tmp_path / "set", PrepareOptions("rsna", engine=LocalEngine(1))
    )
    assert summary.audit.passed
    assert summary.excluded.empty


def test_a_set_without_fingerprints_says_that_copies_were_not_sought(flawed, tmp_path):
    dataset, _ = flawed
    folder = shutil.copytree(dataset.folder, tmp_path / "set")
    decode = read_table(folder / "decode.parquet", "decode").drop(columns="perceptual_hash")
    write_table(decode, folder / "decode.parquet", "decode")
    checks = {p.check: p.severity for p in audit(DataSet.open(folder)).problems}
    assert checks["near_unsought"] == "info"
    assert "near_patients" not in checks
