"""`cxr split` from the outside, and the split of a command that names none."""

import json
import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.split import split as split_command
from cxr_compare.scripts.options import own_split
from tests.scripts.small_sets import table_set

split = partial(run_command, split_command)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set without pixels: 60 patients of two images, every third patient ill."""
    ids = [f"i{n:03d}" for n in range(120)]
    patients = [f"nih:{n // 2:02d}" for n in range(120)]
    states = [int(n // 2 % 3 == 0) for n in range(120)]
    return table_set(tmp_path_factory.mktemp("set"), ids, {"opacity": states}, patient_id=patients)


@pytest.fixture
def data(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "data"))


def test_split_prints_the_contents_of_every_role(data, capsys):
    split(data, name="half", val=0.25, test=0.25, seed=1, as_json=True)
    shown = capsys.readouterr()
    counts = json.loads(shown.out)["half"]["roles"]
    assert counts["test"] == {"images": 30, "patients": 15, "positive for opacity": 10}
    assert "test   30 images, 15 patients, 10 positive for opacity" in shown.err


def test_five_folds_test_every_image_once(data):
    split(data, name="cv", folds=5, test_folds=True)
    dataset = DataSet.open(data)
    tested = [i for fold in range(5) for i in dataset.image_ids("test", f"cv-{fold}")]
    assert sorted(tested) == sorted(dataset.images["image_id"])


def test_folds_alone_share_one_test_set(data):
    split(data, name="cv", folds=3)
    dataset = DataSet.open(data)
    assert len({tuple(dataset.image_ids("test", f"cv-{fold}")) for fold in range(3)}) == 1


def test_a_file_is_followed_and_its_gaps_are_noted(data, tmp_path, capsys):
    patients = [f"nih:{n:02d}" for n in range(50)]
    roles = ["Training"] * 30 + ["valid"] * 10 + ["TEST"] * 10
    file = tmp_path / "mine.csv"
    pd.DataFrame({"patient_id": patients, "role": roles}).to_csv(file, index=False)
    split(data, name="mine", file=file)
    assert "note: mine.csv " in capsys.readouterr().err
    assert len(DataSet.open(data).image_ids("val", "mine")) == 20
    with pytest.raises(InputError, match=r"image 'i100' \(20 .*--strict"):
        split(data, name="strict", file=file, strict=True)


def test_test_set_of_another_split_can_be_reused(data):
    split(data, name="val-2", keep_test_of="default", seed=2)
    dataset = DataSet.open(data)
    assert dataset.image_ids("test", "val-2").equals(dataset.image_ids("test"))
    assert not dataset.image_ids("val", "val-2").equals(dataset.image_ids("val"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"file": Path("s.csv"), "val": 0.1}, "--val .*--file"),
        ({"keep_test_of": "default", "test": 0.1}, "--test .*--from"),
        ({"test_folds": True, "folds": 5, "val": 0.1}, "--val .*--test-folds"),
        ({"strict": True}, "--strict .*--file"),
        ({"test_folds": True}, "--test-folds: .*--folds"),
        (
            {"keep_test_of": "default", "folds": 5, "test_folds": True},
            "--from .*--file .*--test",
        ),
        ({"val": 0.6, "test": 0.6}, "val=0.6 .*test=0.6 .* 1$"),
        ({"name": "default"}, "split 'default' .*--replace"),
    ],
)
def test_options_that_contradict_each_other_are_refused_in_one_line(data, options, message):
    before = sorted((data / "splits").iterdir())
    with pytest.raises(InputError, match=message) as refusal:
        split(data, **{"name": "new", **options})
    assert "\n" not in str(refusal.value)
    assert sorted((data / "splits").iterdir()) == before


@pytest.fixture
def cv(data: Path) -> DataSet:
    """The data set with a second split."""
    split(data, name="cv", val=0.2, test=0.2, seed=1)
    return DataSet.open(data)


def made_on(folder: Path, name: str, kind: str, content_id: str) -> Path:
    folder.mkdir()
    facts = {"contract": kind, "schema_version": 1,
             "data_set": {"content_id": content_id, "split": name}}  # fmt: skip
    (folder / f"{kind}.json").write_text(json.dumps(facts))
    return folder


@pytest.mark.parametrize("kind", ["run", "predictions"])
def test_a_run_or_its_predictions_bring_their_split(tmp_path, cv, kind):
    source = made_on(tmp_path / "a", "cv", kind, cv.ids["content_id"])
    assert own_split(None, [source], cv) == "cv"
    assert own_split("default", [source], cv) == "default"  # what is asked for holds


def test_a_run_of_another_data_set_brings_none(tmp_path, cv):
    source = made_on(tmp_path / "a", "cv", "run", "another")
    assert own_split(None, [source], cv) == "default"


def test_systems_of_different_splits_are_named(tmp_path, cv):
    one = made_on(tmp_path / "a", "cv", "run", cv.ids["content_id"])
    two = made_on(tmp_path / "b", "default", "run", cv.ids["content_id"])
    with pytest.raises(InputError, match=r"a 'cv', .*b 'default'.*--split"):
        own_split(None, [one, two], cv)
