"""Folders that are no runs, given to commands that need runs."""

import json
from pathlib import Path

import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.runs import parse_runs, sort_paths
from tests.scripts.small_sets import drawn_images, table_set


def small_table_set(folder: Path) -> Path:
    states = {"opacity": ["present", "absent"] * 3}
    roles = ["train", "train", "val", "val", "test", "test"]
    return table_set(folder, list("abcdef"), states, width=100, height=80, split=roles)


@pytest.mark.parametrize("command", ["cxr serve", "cxr overlay"])
def test_a_data_set_is_answered_with_the_runs_beside_it(tmp_path, command):
    data = small_table_set(tmp_path)
    with pytest.raises(InputError, match=rf"data: is a data set, .*run: {command} RUN$"):
        parse_runs([str(data)], command)
    (tmp_path / "chexnet").mkdir()
    (tmp_path / "chexnet" / "run.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match=rf"run: {command} {tmp_path / 'chexnet'}$"):
        parse_runs([str(data)], command)


def test_a_data_set_without_a_run_is_answered_with_the_training(tmp_path):
    data = drawn_images(tmp_path, n_images=40, side=64, sizes=[64])
    run = tmp_path / "chexnet"
    training = f"cxr train chexnet_small --data {data} --out {run}"
    with pytest.raises(InputError, match=rf"{training}; then run: cxr serve {run}$"):
        parse_runs([str(data)], "cxr serve")


def test_a_data_set_to_predict_is_answered_with_the_option_for_it(tmp_path):
    data = small_table_set(tmp_path)
    with pytest.raises(InputError, match=rf"cxr predict RUN --data {data} --out OUT$"):
        sort_paths([str(data)])
