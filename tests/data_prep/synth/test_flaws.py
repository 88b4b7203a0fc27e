"""Every planted flaw is in the folder as the list says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from data_prep.synth.files import FLAWS_CSV
from data_prep.synth.phantom import write_phantom


@pytest.fixture(scope="module")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flawed") / "set"
    write_phantom(out, n_images=40, size=96, seed=1, flaws=True)
    return out


@pytest.fixture(scope="module")
def planted(flawed: Path) -> pd.DataFrame:
    return pd.read_csv(flawed / FLAWS_CSV, dtype={"detail": str}, keep_default_na=False)


def read_dicom(folder: Path, name: str) -> pydicom.Dataset:
    return pydicom.dcmread(folder / "stage_2_train_images" / f"{name}.dcm")


@pytest.mark.parametrize("flaw", ["exact_duplicate", "leaking_patient"])
def test_duplicates_have_equal_pixels(flawed, planted, flaw):
    mapping = pd.read_csv(flawed / "rsna_to_nih.csv", dtype=str).set_index("patientId")
    for row in planted[planted["flaw"] == flaw].itertuples():
        copy, source = read_dicom(flawed, row.patientId), read_dicom(flawed, row.other_patientId)
        assert copy.PixelData == source.PixelData
        same = mapping.loc[row.patientId] == mapping.loc[row.other_patientId]
        assert same["nih_patient"] == (flaw == "exact_duplicate")


def test_near_duplicates_differ_in_grey_values_only(flawed, planted):
    for row in planted[planted["flaw"] == "near_duplicate"].itertuples():
        copy = read_dicom(flawed, row.patientId).pixel_array
        source = read_dicom(flawed, row.other_patientId).pixel_array
        assert not np.array_equal(copy, source)
        assert np.corrcoef(copy.ravel(), source.ravel())[0, 1] > 0.97


def test_bad_files_do_not_read(flawed, planted):
    for row in planted[planted["flaw"].isin(["unreadable", "text_file"])].itertuples():
        with pytest.raises(InvalidDicomError):
            read_dicom(flawed, row.patientId)
    for row in planted[planted["flaw"] == "truncated"].itertuples():
        with pytest.raises((ValueError, EOFError, OSError, UserWarning)):
            assert read_dicom(flawed, row.patientId).pixel_array.size


def test_bad_rows_are_in_the_tables(flawed, planted):
    labels = pd.read_csv(flawed / "stage_2_train_labels.csv")
    files = {path.stem for path in (flawed / "stage_2_train_images").iterdir()}
    by_flaw = planted.groupby("flaw")["patientId"].apply(set)
    assert set(labels["patientId"]) - files == by_flaw["label_without_image"]
    assert files - set(labels["patientId"]) == by_flaw["image_without_label"]
    rows = labels[labels["Target"] == 1]
    assert set(rows.loc[rows["width"] < 0, "patientId"]) == by_flaw["box_negative_width"]
    assert set(rows.loc[rows["width"] == 0, "patientId"]) == by_flaw["box_zero_size"]
    assert set(rows.loc[rows["y"].isna(), "patientId"]) == by_flaw["box_nan"]
    outside = rows["x"] + rows["width"] > 96
    assert set(rows.loc[outside, "patientId"]) == by_flaw["box_outside"]


def test_impossible_ages_are_in_the_headers(flawed, planted):
    names = planted.loc[planted["flaw"] == "impossible_age", "patientId"]
    ages = [read_dicom(flawed, name).PatientAge for name in names]
    assert sorted(ages) == ["155", "412"]


def test_planting_is_repeatable(flawed, planted, tmp_path):
    write_phantom(tmp_path / "again", n_images=40, size=96, seed=1, flaws=True)
    for name in [FLAWS_CSV, "stage_2_train_labels.csv", "truth.csv", "rsna_to_nih.csv"]:
        assert (tmp_path / "again" / name).read_bytes() == (flawed / name).read_bytes()
    for name in planted.loc[planted["flaw"] == "unreadable", "patientId"]:
        path = Path("stage_2_train_images") / f"{name}.dcm"
        assert (tmp_path / "again" / path).read_bytes() == (flawed / path).read_bytes()
