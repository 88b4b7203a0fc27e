"""`cxr check`: the right exit code, the page named, and a JSON for programs."""

import json
import shlex
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.audit.audit import require_no_errors
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.duplicates.near_duplicates import (
    _MAX_DISTANCE,
    TRUSTED_DISTANCE,
    find_near_duplicates,
)
from cxr_compare.data_prep.splits.stored_splits import SplitRule, add_splits
from cxr_compare.scripts import cli
from cxr_compare.scripts.commands.check import check as check_command
from cxr_compare.scripts.commands.prepare import prepare
from cxr_compare.scripts.commands.split import split
from cxr_compare.scripts.next_steps import trainings
from tests.plain_sets import prepare_plain
from tests.scripts.small_sets import cxr, table_set, write_source
from tests.small_dicom import chest
from tests.stored_json import put_table

check = partial(cli.run_command, check_command)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Twelve images of six patients, without pixels."""
    ids = [f"i{n}" for n in range(12)]
    patients = [f"p{n // 2}" for n in range(12)]
    roles = ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    states = {"mass": [1, 0] * 6}
    folder = tmp_path_factory.mktemp("check")
    return table_set(folder, ids, states, patient_id=patients, split=roles)


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "set")


def leak(folder: Path, name: str) -> None:
    """Write a split in which a patient has two roles."""
    split = read_table(folder / "splits" / "default.parquet", "split")
    parted = split.assign(role=split["role"].where(split["image_id"] != "i0", "test"))
    put_table(parted, folder / "splits" / f"{name}.parquet", "split")


def test_a_clean_set_passes_and_its_page_is_named(folder, capsys):
    check(folder)
    output = capsys.readouterr().err
    assert f"Page: {folder / 'audit.html'}" in output
    assert (folder / "audit.html").stat().st_size > 5_000
    assert ": 0 errors, 0 warnings" in output


def test_leak_is_exit_code_1_with_a_remedy(folder, capsys):
    leak(folder, "default")
    assert check(folder) == 1
    output = capsys.readouterr().err
    assert "error: split 'default': patient" in output
    assert f"cxr split {folder} --name default --replace" in output


def test_only_the_named_split_is_printed_and_all_are_stored(folder):
    leak(folder, "other")
    check(folder, split="default")
    audit = json.loads((folder / "audit.json").read_text())
    assert [problem["split"] for problem in audit["problems"] if problem["split"]] == ["other"]
    assert check(folder, split="other") == 1
    assert check(folder) == 1


def test_strict_fails_on_warnings(folder):
    images = read_table(folder / "images.parquet", "images")
    put_table(images.assign(age_years=400.0), folder / "images.parquet", "images")
    check(folder)
    assert check(folder, strict=True) == 1


def test_json_output_equals_the_file(folder, capsys):
    check(folder, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    stored = json.loads((folder / "audit.json").read_text())
    assert printed["passed"]
    assert printed["problems"] == stored["problems"]
    assert printed["facts"]["split_by_image"]["n_patients"] == 6


def test_skipped_pixels_are_noted(folder, capsys):
    check(folder, no_pixels=True)
    assert "--no-pixels" in capsys.readouterr().err


def test_text_in_the_pixels_is_sought_only_when_it_is_asked_for(tmp_path):
    ids = [f"i{n}" for n in range(4)]
    source = tmp_path / "source"
    write_source(source, ids, {"mass": [1, 0] * 2}, path=[f"{name}.png" for name in ids])
    for n, name in enumerate(ids):
        pixels = chest(n, 150, 180) // 4
        if name == "i2":
            pixels = cv2.putText(pixels, "DOE JANE 57", (20, 60), 0, 0.5, 255, 1)
        cv2.imwrite(str(source / f"{name}.png"), pixels)
    folder = tmp_path / "set"
    prepare_plain(source, folder)
    found = {}
    for asked in (False, True):
        check(folder, burned_in_text=asked)
        problems = json.loads((folder / "audit.json").read_text())["problems"]
        found[asked] = [p["examples"] for p in problems if p["check"] == "burned_in_text"]
    assert found == {False: [], True: [["i2"]]}
    with pytest.raises(InputError, match="--no-pixels"):
        check(folder, burned_in_text=True, no_pixels=True)


def test_prepare_joining_and_check_all_measure_shortcuts(tmp_path):
    sets = []
    for name in "ab":
        ids = [f"{name}{n}" for n in range(60)]
        sets.append(table_set(tmp_path / name, ids, {"mass": [1, 0] * 30}, view=["AP", "PA"] * 30))
    prepare(*sets, out=tmp_path / "both")
    for folder in (*sets, tmp_path / "both"):
        made = json.loads((folder / "audit.json").read_text())
        assert {"view"} <= {row["fact"] for row in made["facts"]["shortcuts"]}
        check(folder)
        again = json.loads((folder / "audit.json").read_text())
        assert again["facts"]["shortcuts"] == made["facts"]["shortcuts"]


def worn(pixels: np.ndarray) -> np.ndarray:
    """A copy that lost its edge, its resolution, its grey curve and its quality."""
    small = cv2.resize(pixels[2:-1, :-2], (112, 96), interpolation=cv2.INTER_AREA)
    grey = (255 * (small / 255.0) ** 0.7).astype(np.uint8)
    return cv2.imdecode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0)


@pytest.fixture(scope="module")
def worn_copy(tmp_path_factory) -> Path:
    """The source of twelve images of twelve patients: the last is a worn copy of the first."""
    ids = [f"i{n:02d}" for n in range(12)]
    source = tmp_path_factory.mktemp("worn") / "source"
    write_source(source, ids, {"mass": [1, 0] * 6}, path=[f"{name}.png" for name in ids])
    shown = [chest(n) for n in range(1, 12)]
    for name, pixels in zip(ids, [*shown, worn(shown[0])], strict=True):
        cv2.imwrite(str(source / f"{name}.png"), pixels)
    return source


@pytest.fixture(scope="module")
def prepared(worn_copy) -> Path:
    """The data set of that source."""
    prepare_plain(worn_copy, worn_copy.parent / "set")
    return worn_copy.parent / "set"


def run_advice(output: str) -> None:
    arguments = shlex.split(output[output.index("cxr split") :].splitlines()[0].split(";")[0])
    assert cxr(*arguments[1:]) == 0


def test_a_split_keeps_together_the_copies_that_the_audit_sees(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "set")
    (pair,) = json.loads((folder / "near_duplicates.json").read_text())["pairs"]
    assert pair[:2] == ["i00", "i11"]
    assert TRUSTED_DISTANCE < pair[2] <= _MAX_DISTANCE, "beyond what the fingerprint alone decides"
    for seed in range(8):
        add_splits(DataSet.open(folder), f"seed-{seed}", SplitRule(seed=seed))
    check(folder)
    apart = pd.DataFrame({"image_id": ["i00", "i11"], "role": ["train", "test"]})
    apart.to_csv(tmp_path / "apart.csv", index=False)
    with pytest.raises(InputError, match=r"'i00' = 'i11' .*train .*test "):
        split(folder, name="mine", file=tmp_path / "apart.csv")


@pytest.mark.parametrize(
    "folder_name", [True, False], ids=["user's own split", "split drawn before"]
)
def test_the_advice_against_copies_in_two_roles_works_as_typed(
    worn_copy, prepared, tmp_path, capsys, folder_name
):
    folder, roles = tmp_path / "a set", tmp_path / "roles.csv"
    ids = [f"i{n:02d}" for n in range(12)]
    apart = pd.DataFrame({"image_id": ids, "role": ["train"] * 6 + ["val"] * 3 + ["test"] * 3})
    apart.to_csv(roles, index=False)
    if folder_name:
        prepare_plain(worn_copy, folder, split=roles)
    else:  # as a version that looked at fingerprints alone could draw it
        shutil.copytree(prepared, folder)
        table = read_table(folder / "splits" / "default.parquet", "split")
        put_table(table.assign(role=apart["role"]), folder / "splits" / "default.parquet", "split")
    assert check(folder) == 1
    dataset = DataSet.open(folder)
    with pytest.raises(InputError, match=r"near|copy of the image") as refused:
        require_no_errors(dataset, "default")
    assert "--despite-audit" in str(refused.value)
    assert require_no_errors(dataset, "default", despite_errors=True)[1]
    output = capsys.readouterr().err
    (following,) = trainings(dataset)
    assert f": {following}\n" in output
    tests = set(dataset.image_ids("test"))

    run_advice(output)

    check(folder)
    again = DataSet.open(folder)
    assert require_no_errors(again, "default") == (True, ())
    if folder_name:
        assert set(again.image_ids("test")) == tests, "chosen test images stay"


def test_copies_are_sought_once_and_again_where_more_can_be_read(prepared, tmp_path, monkeypatch):
    folder = shutil.copytree(prepared, tmp_path / "set")
    sought: list[object] = []

    def seek(decode, read=None, **how):
        sought.append(read)
        return find_near_duplicates(decode, read, **how)

    monkeypatch.setattr(
        "cxr_compare.data_prep.duplicates.dataset_copies.find_near_duplicates", seek
    )
    split(folder, name="other", seed=3)
    check(folder)
    check(folder, no_pixels=True)
    assert not sought
    (folder / "near_duplicates.json").unlink()
    check(folder, no_pixels=True)
    table = json.loads((folder / "near_duplicates.json").read_text())
    assert (table["pairs"], table["undecided"], table["pixels"]) == ([], 1, None)
    check(folder)
    assert [read is None for read in sought] == [True, False]
    images = read_table(folder / "decode.parquet", "decode")
    put_table(images.iloc[:-1], folder / "decode.parquet", "decode")
    check(folder)
    assert len(sought) == 3, "other images"


def test_a_split_that_no_audit_has_seen_is_checked_by_patient(folder):
    dataset = DataSet.open(folder)
    assert require_no_errors(dataset, "default") == (True, ())
    (folder / "audit.json").unlink()
    assert require_no_errors(dataset, "default") == (False, ())
    leak(folder, "default")
    with pytest.raises(InputError, match=r"split 'default': .*\(1 patient\).*--replace"):
        require_no_errors(dataset, "default")
