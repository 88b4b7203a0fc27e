"""The split of a command that names none."""

import json
from pathlib import Path

import pytest

from data_prep.contracts.errors import InputError
from data_prep.store.dataset import DataSet
from scripts.options import own_split
from scripts.split import split
from tests.scripts.small_sets import table_set


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    ids = [f"i{number:02d}" for number in range(20)]
    states = {"opacity": ["present", "absent"] * 10}
    data = table_set(tmp_path_factory.mktemp("set"), ids, states)
    split(data, name="cv", val=0.2, test=0.2, seed=1)
    return DataSet.open(data)


def made_on(folder: Path, name: str, kind: str, content_id: str) -> Path:
    folder.mkdir()
    facts = {"contract": kind, "schema_version": 1,
             "data_set": {"content_id": content_id, "split": name}}  # fmt: skip
    (folder / f"{kind}.json").write_text(json.dumps(facts))
    return folder


@pytest.mark.parametrize("kind", ["run", "predictions"])
def test_a_run_or_its_predictions_bring_their_split(tmp_path, dataset, kind):
    source = made_on(tmp_path / "a", "cv", kind, dataset.ids["content_id"])
    assert own_split(None, [source], dataset) == "cv"
    assert own_split("default", [source], dataset) == "default"  # what is asked for holds


def test_a_run_of_another_data_set_brings_none(tmp_path, dataset):
    source = made_on(tmp_path / "a", "cv", "run", "another")
    assert own_split(None, [source], dataset) == "default"


def test_systems_of_different_splits_are_named(tmp_path, dataset):
    one = made_on(tmp_path / "a", "cv", "run", dataset.ids["content_id"])
    two = made_on(tmp_path / "b", "default", "run", dataset.ids["content_id"])
    with pytest.raises(InputError, match=r"a 'cv', .*b 'default'; choose one with --split"):
        own_split(None, [one, two], dataset)
