"""`cxr split` and `cxr check`: patients stay in one role, and leaks of a split are counted."""

import json
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import DataSet, InputError
from tests.adapters.commands import cxr
from tests.adapters.sets import prepare_tables, put_roles, table_set, write_source
from tests.killed import killed_at
from tests.small_dicom import chest

ROOT = Path(__file__).parents[2]
FOUND = 1
SHARES = ("train", "val", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set without pixels: 60 patients of two images, every third patient ill."""
    ids = [f"i{n:03d}" for n in range(120)]
    patients = [f"nih:{n // 2:02d}" for n in range(120)]
    ill = [int(n // 2 % 3 == 0) for n in range(120)]
    return table_set(tmp_path_factory.mktemp("split"), ids, {"mass": ill}, patient_id=patients)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    ids = [f"b{n}" for n in range(20)]
    return table_set(tmp_path_factory.mktemp("second"), ids, {"mass": [1, 0] * 10})


@pytest.fixture
def data(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "set"))


def roles(data, name="default"):
    return DataSet.open(data).split(name).set_index("image_id")["role"]


def patients(data):
    return DataSet.open(data).images.set_index("image_id")["patient_id"]


@pytest.mark.parametrize(("folds", "seed"), [(3, 0), (5, 7)])
def test_each_patient_is_a_test_patient_of_one_fold_and_validates_in_another(data, folds, seed):
    made = cxr_compare.split(data, name="cv", folds=folds, seed=seed).to_dict()
    assert list(made) == [f"cv-{fold}" for fold in range(folds)]
    table = pd.DataFrame({name: roles(data, name) for name in made})
    assert ((table == "test").sum(axis=1) == 1).all()
    assert ((table == "val").sum(axis=1) == 1).all()
    by_patient = table.groupby(patients(data).reindex(table.index)).nunique()
    assert (by_patient == 1).all(axis=None)


def test_the_test_images_of_another_split_are_kept_and_validation_is_drawn_anew(data):
    cxr_compare.split(data, name="again", from_="default", seed=2)
    before, after = roles(data), roles(data, "again")
    assert after[after == "test"].index.equals(before[before == "test"].index)
    assert not after[after == "val"].index.equals(before[before == "val"].index)


def test_a_file_is_followed_patients_that_it_lacks_are_unused_and_said(data, tmp_path):
    rows = ["train"] * 30 + ["val"] * 10 + ["test"] * 10
    table = pd.DataFrame({"patient_id": [f"nih:{n:02d}" for n in range(50)], "role": rows})
    table.to_csv(tmp_path / "mine.csv", index=False)
    text = str(cxr_compare.split(data, name="mine", file=tmp_path / "mine.csv"))
    assert any("mine.csv" in line and "20" in line for line in text.splitlines())
    found = roles(data, "mine").value_counts().to_dict()
    assert found == {"train": 60, "val": 20, "test": 20, "unused": 20}


def test_a_table_of_several_splits_gives_each_by_its_name(data, tmp_path):
    first = ["test"] * 20 + ["val"] * 10 + ["train"] * 30
    names = [f"nih:{n:02d}" for n in range(60)]
    splits = pd.DataFrame({"patient_id": names, "first": first, "second": first[::-1]})
    splits.to_csv(tmp_path / "splits.csv", index=False)
    of_image = patients(data)
    for name in ("first", "second"):
        cxr_compare.split(data, name=name, file=tmp_path / "splits.csv")
        expected = splits.set_index("patient_id")[name].reindex(of_image).tolist()
        assert roles(data, name).reindex(of_image.index).tolist() == expected
    with pytest.raises(InputError, match="third"):
        cxr_compare.split(data, name="third", file=tmp_path / "splits.csv")
    splits.assign(role=first).to_csv(tmp_path / "both.csv", index=False)
    with pytest.raises(InputError) as refused:  # which of the two is meant?
        cxr_compare.split(data, name="second", file=tmp_path / "both.csv")
    assert "role" in str(refused.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"file": "s.csv", "seed": 1}, ["seed", "file"]),
        ({"file": "s.csv", "from_": "default"}, ["from", "file"]),
        ({"file": "s.csv", "folds": 5}, ["folds", "file"]),
        ({"from_": "default", "test": 0.1}, ["test", "from"]),
        ({"from_": "default", "folds": 5}, ["folds", "from"]),
        ({"folds": 5, "val": 0.1}, ["val", "folds"]),
        ({"folds": 5, "test": 0.1}, ["test", "folds"]),
        ({"folds": 2}, ["folds=2", "3"]),
        ({"name": "default"}, ["default"]),
    ],
    ids=str,
)
def test_what_contradicts_is_refused_by_name_and_nothing_is_written(data, options, named):
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as refused:
        cxr_compare.split(data, **{"name": "new", **options})
    line = str(refused.value)
    assert [part for part in named if part not in line] == []
    assert "\n" not in line
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


@pytest.mark.release
def test_folds_of_the_published_results_fit_the_images_of_rsna(shared_data, tmp_path):
    """No draw takes part; the figures are those of docs/results.md."""
    data = tmp_path / "rsna"
    cxr_compare.prepare(shared_data / "rsna", data, format="rsna", size=[32], workers=0)
    file = ROOT / "docs/rsna-folds.csv"
    folds = pd.read_csv(file, index_col="image_id")
    counts = {}
    for name in folds:
        (counts[name],) = (
            made["roles"]
            for made in cxr_compare.split(data, name=name, file=file).to_dict().values()
        )
        assert sum(counts[name][role]["images"] for role in SHARES) == 710
        assert sum(counts[name][role]["patients"] for role in SHARES) == 645
    assert list(counts["fold-0"]["test"].values()) == [142, 128, 45]
    assert [counts["fold-1"][role]["images"] for role in SHARES] == [501, 68, 141]
    assert [counts["fold-1"][role]["positive for opacity"] for role in SHARES] == [158, 22, 45]
    dataset = DataSet.open(data)
    in_training = [
        int(dataset.boxes["image_id"].isin(dataset.image_ids("train", f"fold-{k}")).sum())
        for k in range(5)
    ]
    assert (min(in_training), max(in_training)) == (254, 261)
    assert ((folds == "test").sum(axis=1) == 1).sum() == 710


def leak(data, name):
    """Write a split in which the first patient has two roles."""
    table = DataSet.open(data).split().set_index("image_id")["role"]
    put_roles(data, name, table.where(table.index != "i000", other(table["i000"])))


def other(role):
    return "test" if role != "test" else "train"


def test_a_leak_is_an_error_with_a_command_that_mends_it(data, capsys):
    leak(data, "default")
    assert cxr("check", data) == FOUND
    name = follow_advice(capsys.readouterr().out)
    assert cxr("check", data, "--split", name) == 0
    of_patient = roles(data, name).groupby(patients(data)).nunique()
    assert of_patient.max() == 1


def test_prepare_and_check_measure_shortcuts(tmp_path):
    ids = [f"a{n}" for n in range(60)]
    folder = table_set(tmp_path / "a", ids, {"mass": [1, 0] * 30}, view=["AP", "PA"] * 30)
    made = json.loads((folder / "audit.json").read_text())
    assert "view" in {row["fact"] for row in made["facts"]["shortcuts"]}
    cxr_compare.check(folder)
    again = json.loads((folder / "audit.json").read_text())
    assert again["facts"]["shortcuts"] == made["facts"]["shortcuts"]


SPLITS_PAGE = Path(__file__).parents[2] / "docs/splits.md"


def write(path, *lines):
    path.write_text("\n".join([*lines, ""]))
    return path


def worn(pixels):
    """A copy that lost its edge, its resolution, its grey curve and its quality."""
    small = cv2.resize(pixels[2:-1, :-2], (112, 96), interpolation=cv2.INTER_AREA)
    grey = (255 * (small / 255.0) ** 0.7).astype(np.uint8)
    return cv2.imdecode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0)


@pytest.fixture(scope="module")
def worn_copy(tmp_path_factory):
    """Twelve images of twelve patients, of which the last is a worn copy of the first."""
    ids = [f"i{n:02d}" for n in range(12)]
    source = tmp_path_factory.mktemp("worn") / "source"
    write_source(source, ids, {"mass": [1, 0] * 6}, path=[f"{name}.png" for name in ids])
    shown = [chest(n) for n in range(1, 12)]
    for name, pixels in zip(ids, [*shown, worn(shown[0])], strict=True):
        cv2.imwrite(str(source / f"{name}.png"), pixels)
    return source


def test_worn_copies_of_an_image_keep_together_and_a_file_that_parts_them_is_refused(
    worn_copy, tmp_path
):
    data = tmp_path / "set"
    prepare_tables(worn_copy, data)
    for seed in range(4):
        cxr_compare.split(data, name=f"seed-{seed}", seed=seed)
        found = roles(data, f"seed-{seed}")
        assert found["i00"] == found["i11"]
    assert cxr_compare.check(data).passed
    apart = pd.DataFrame({"image_id": ["i00", "i11"], "role": ["train", "test"]})
    apart.to_csv(tmp_path / "apart.csv", index=False)
    with pytest.raises(InputError) as refused:
        cxr_compare.split(data, name="mine", file=tmp_path / "apart.csv")
    assert all(part in str(refused.value) for part in ("i00", "i11", "train", "test"))


def test_of_worn_copies_in_two_roles_of_a_file_the_test_image_stays_and_the_other_is_unused(
    worn_copy, tmp_path
):
    """A copy in two roles is known only after hours of decoding, so the set is made."""
    data, file = tmp_path / "a set", tmp_path / "roles.csv"
    ids = [f"i{n:02d}" for n in range(12)]
    apart = pd.DataFrame({"image_id": ids, "role": ["train"] * 6 + ["val"] * 3 + ["test"] * 3})
    apart.to_csv(file, index=False)
    prepare_tables(worn_copy, data, split=file)
    found = roles(data)
    assert (found["i11"], found["i00"]) == ("test", "unused")
    assert found.drop("i00").tolist() == apart["role"][1:].tolist()
    assert cxr("check", data) == 0


def follow_advice(shown):
    """Call the command that the check names, and return the name of the split that it makes."""
    (line,) = [line for line in shown.splitlines() if "cxr split" in line]
    words = shlex.split(line[line.index("cxr split") :].partition(";")[0])
    assert cxr(*words[1:]) == 0
    return words[words.index("--name") + 1]


def test_the_recipe_counts_the_shared_patients_of_any_split(tmp_path, monkeypatch, capsys):
    """Of test b shares its patient with training, c does not."""
    write(tmp_path / "split.csv", "image_id,role", "a,train", "b,test", "c,test", "d,test")
    write(tmp_path / "patients.csv", "image_id,patient_id", "a,p", "b,p", "c,q")
    monkeypatch.chdir(tmp_path)
    scripts = re.findall(r"```python\n(.*?)```", SPLITS_PAGE.read_text(), re.DOTALL)
    (script,) = [text for text in scripts if "patients.csv" in text]
    exec(script, {})  # noqa: S102
    assert capsys.readouterr().out.startswith("1 of 2 test images")


# --- a split that was stopped ---------------------------------------------------------------------

N_RENAMES = 9  # a table and a record of each of three folds, audit.json, data.html, dataset.json


@pytest.mark.parametrize("number", [1, 6, 7, 8, N_RENAMES])
def test_a_killed_split_goes_on_to_the_same_bytes_and_a_finished_one_is_refused(
    made, tmp_path, number
):
    def contents(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def copied(name):  # pages and records name the folder
        return Path(shutil.copytree(made, tmp_path / name / "set"))

    whole, stopped = copied("whole"), copied("stopped")
    cxr_compare.split(whole, name="cv", folds=3)
    killed_at(("rename", number), "split", stopped, name="cv", folds=3)
    cxr_compare.split(stopped, name="cv", folds=3)
    assert contents(stopped) == contents(whole)
    with pytest.raises(InputError, match="cv-0"):
        cxr_compare.split(stopped, name="cv", folds=3)
    assert contents(stopped) == contents(whole)
