"""`cxr check`: the right exit code, the page named, and a JSON for programs."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import typer

from data_prep.assemble.prepare import prepare
from data_prep.contracts.tables import read_table, write_table
from scripts.check import check
from scripts.prepare import prepare as prepare_verb


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Twelve images of six patients, without pixels."""
    folder = tmp_path_factory.mktemp("check")
    source = folder / "source"
    source.mkdir()
    ids = [f"i{n}" for n in range(12)]
    patients = [f"p{n // 2}" for n in range(12)]
    roles = ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    images = pd.DataFrame({"image_id": ids, "patient_id": patients, "split": roles})
    images.to_csv(source / "images.csv", index=False)
    labels = pd.DataFrame({"image_id": ids, "finding": "mass", "state": [1, 0] * 6})
    labels.to_csv(source / "labels.csv", index=False)
    prepare(source, folder / "set", format="csv", workers=1)
    return folder / "set"


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "set")


def leak(folder: Path, name: str) -> None:
    """Write a split in which a patient has two roles."""
    split = read_table(folder / "splits" / "default.parquet", "split")
    parted = split.assign(role=split["role"].where(split["image_id"] != "i0", "test"))
    write_table(parted, folder / "splits" / f"{name}.parquet", "split")


def test_a_clean_set_passes_and_its_page_is_named(folder, capsys):
    check(folder)
    said = capsys.readouterr().err
    assert f"page: {folder / 'audit.html'}" in said
    assert (folder / "audit.html").stat().st_size > 5_000
    assert ": 0 errors, 0 warnings" in said


def test_a_leak_is_exit_code_1_and_says_what_to_do(folder, capsys):
    leak(folder, "default")
    with pytest.raises(typer.Exit) as ending:
        check(folder)
    assert ending.value.exit_code == 1
    said = capsys.readouterr().err
    assert "error: split 'default': patient in more than one role" in said
    assert "what to do: draw a split by patient" in said


def test_only_the_named_split_is_checked(folder):
    leak(folder, "other")
    check(folder, split="default")
    with pytest.raises(typer.Exit):
        check(folder, split="other")
    with pytest.raises(typer.Exit):
        check(folder)


def test_strict_fails_on_warnings(folder):
    images = read_table(folder / "images.parquet", "images")
    write_table(images.assign(age_years=400.0), folder / "images.parquet", "images")
    check(folder)
    with pytest.raises(typer.Exit):
        check(folder, strict=True)


def test_json_is_what_the_file_holds(folder, capsys):
    check(folder, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    stored = json.loads((folder / "audit.json").read_text())
    assert printed["passed"]
    assert printed["problems"] == stored["problems"]
    assert printed["facts"]["split_by_image"]["n_patients"] == 6


def test_no_pixels_is_said(folder, capsys):
    check(folder, no_pixels=True)
    assert "the images were not looked at" in capsys.readouterr().err


def test_prepare_joining_and_check_all_measure_shortcuts(tmp_path):
    sets = []
    for name in "ab":
        source = tmp_path / name
        source.mkdir()
        ids = [f"{name}{n}" for n in range(60)]
        views = ["AP", "PA"] * 30
        frame = pd.DataFrame({"image_id": ids, "patient_id": ids, "view": views})
        frame.to_csv(source / "images.csv", index=False)
        labels = pd.DataFrame({"image_id": ids, "finding": "mass", "state": [1, 0] * 30})
        labels.to_csv(source / "labels.csv", index=False)
        sets.append(tmp_path / f"set-{name}")
        prepare_verb([source, sets[-1]], format="csv", workers=1)
    prepare_verb(sets, out=tmp_path / "both")
    for folder in (*sets, tmp_path / "both"):
        made = json.loads((folder / "audit.json").read_text())
        assert {"view"} <= {row["fact"] for row in made["facts"]["shortcuts"]}
        check(folder)
        again = json.loads((folder / "audit.json").read_text())
        assert again["facts"]["shortcuts"] == made["facts"]["shortcuts"]
