"""The audit of a phantom with added flaws."""

import shutil

import pandas as pd
import pytest
from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions
from cxr_compare.data_prep.audit.audit import audit
from cxr_compare.data_prep.contracts.tables import read_table

from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.prepare import prepare
from cxr_compare.data_prep.synth.phantom import write_phantom
from tests.data_prep.audit.flawed_phantom import write_flawed_phantom
from tests.stored_json import put_table


@pytest.fixture(scope="module")
def flawed(tmp_path_factory) -> tuple[DataSet, pd.DataFrame]:
    """A prepared phantom with added flaws, and the list of these flaws."""
    folder = tmp_path_factory.mktemp("flawed")
    flaws = write_flawed_phantom(folder / "source", n_images=40, seed=3, size=64)
    prepare(folder / "source", folder / "set", PrepareOptions("rsna", workers=1))
    return DataSet.open(folder / "set"), flaws


REASONS = {
    "truncated": "",  # the decoder says it in its own words
    "unreadable": "",
    "text_file": "",
    "image_without_label": "no row in",
    "label_without_image": "no image",
    "box_outside": "box outside the image",
    "box_zero_size": "zero or negative size",
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
    expected = set(rows["patientId"]) | set(rows["other_patientId"]) - {""}
    (problem,) = [p for p in audit(dataset).problems if p.check == check]
    assert problem.count == len(expected)
    assert set(problem.examples) <= expected
    assert {image_id for case in problem.images for image_id in case} <= expected


def test_every_kind_of_added_flaw_has_its_test(flawed):
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
    summary = prepare(tmp_path / "source", tmp_path / "set", PrepareOptions("rsna", workers=1))
    assert summary.audit.passed
    assert summary.excluded.empty


def test_a_set_without_fingerprints_says_that_copies_were_not_sought(flawed, tmp_path):
    dataset, _ = flawed
    folder = shutil.copytree(dataset.folder, tmp_path / "set")
    decode = read_table(folder / "decode.parquet", "decode").drop(columns="perceptual_hash")
    put_table(decode, folder / "decode.parquet", "decode")
    checks = {p.check: p.severity for p in audit(DataSet.open(folder)).problems}
    assert checks["near_unsought"] == "info"
    assert "near_patients" not in checks
