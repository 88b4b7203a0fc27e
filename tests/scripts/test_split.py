"""`cxr split` from the outside, and the split of a command that names none."""

import json
import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import MadeOn, PredictionsInfo
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.prepare import prepare
from cxr_compare.scripts.commands.split import split as split_command
from cxr_compare.scripts.options import own_split
from cxr_compare.training.run_info import RunInfo
from tests.scripts.small_sets import table_set

split = partial(run_command, split_command)
ROOT = Path(__file__).resolve().parents[2]


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


def test_a_table_of_several_splits_gives_each_by_its_name(data, tmp_path):
    patients = [f"nih:{n:02d}" for n in range(60)]
    first = ["test"] * 20 + ["val"] * 10 + ["train"] * 30
    splits = pd.DataFrame({"patient_id": patients, "first": first, "second": first[::-1]})
    splits.to_csv(tmp_path / "splits.csv", index=False)
    for name in ("first", "second"):
        split(data, name=name, file=tmp_path / "splits.csv")
        dataset = DataSet.open(data)
        patient = dataset.images.set_index("image_id")["patient_id"]
        tested = splits.loc[splits[name] == "test", "patient_id"]
        assert set(patient[dataset.image_ids("test", name)]) == set(tested)
    with pytest.raises(InputError, match="third"):
        split(data, name="third", file=tmp_path / "splits.csv")
    splits.assign(role=first).to_csv(tmp_path / "both.csv", index=False)
    with pytest.raises(InputError, match=r"role.*second"):  # which of the two is meant?
        split(data, name="second", file=tmp_path / "both.csv", replace=True)


@pytest.mark.release
def test_folds_of_the_published_results_fit_the_images_of_rsna(shared_data, tmp_path, capsys):
    """No draw takes part; the figures are those of docs/results.md."""
    prepare(shared_data / "rsna", tmp_path / "rsna", format="rsna", size=[32], workers=0)
    file = ROOT / "docs/rsna-folds.csv"
    folds = pd.read_csv(file, index_col="image_id")
    roles = {}
    for name in folds:
        split(tmp_path / "rsna", name=name, file=file, as_json=True)
        roles[name] = json.loads(capsys.readouterr().out)[name]["roles"]
        assert sum(roles[name][role]["images"] for role in ("train", "val", "test")) == 710
        assert sum(roles[name][role]["patients"] for role in ("train", "val", "test")) == 645
    assert list(roles["fold-0"]["test"].values()) == [142, 128, 45]
    in_full = [roles["fold-1"][role] for role in ("train", "val", "test")]
    assert [role["images"] for role in in_full] == [501, 68, 141]
    assert [role["positive for opacity"] for role in in_full] == [158, 22, 45]
    assert roles["first-fold-1"]["test"]["images"] == 143
    dataset = DataSet.open(tmp_path / "rsna")
    in_training = [
        int(dataset.boxes["image_id"].isin(dataset.image_ids("train", f"fold-{k}")).sum())
        for k in range(5)
    ]
    assert (min(in_training), max(in_training)) == (254, 261)
    for kind in ("fold", "first-fold"):
        tested = folds.filter(regex=f"^{kind}-") == "test"
        assert (tested.sum(axis=1) == 1).sum() == 710


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
    data_set = MadeOn(name="set", content_id=content_id, split=name)
    record = RunInfo(name="A", data_set=data_set)
    if kind == "predictions":
        record = PredictionsInfo(system="A", kind="scores", data_set=data_set)
    record.write(folder / f"{kind}.json")
    return folder


@pytest.mark.parametrize("kind", ["run", "predictions"])
def test_a_run_or_its_predictions_bring_their_split(tmp_path, cv, kind):
    source = made_on(tmp_path / "a", "cv", kind, cv.ids.content_id)
    assert own_split(None, [source], cv) == "cv"
    assert own_split("default", [source], cv) == "default"  # what is asked for holds


def test_a_run_of_another_data_set_brings_none(tmp_path, cv):
    source = made_on(tmp_path / "a", "cv", "run", "another")
    assert own_split(None, [source], cv) == "default"


def test_systems_of_different_splits_are_named(tmp_path, cv):
    one = made_on(tmp_path / "a", "cv", "run", cv.ids.content_id)
    two = made_on(tmp_path / "b", "default", "run", cv.ids.content_id)
    with pytest.raises(InputError, match=r"a 'cv', .*b 'default'.*--split"):
        own_split(None, [one, two], cv)
