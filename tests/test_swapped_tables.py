"""A table of another folder is refused by its name: of a data set, predictions, a run, a report."""

import shutil

import pandas as pd
import pytest

from cxr_compare import InputError
from tests.adapters import folders

PARTS = {
    "data set": lambda world: world.data,
    "predictions": lambda world: world.predictions("detector"),
    "run": lambda world: world.run("classifier"),
    "report": lambda world: world.tables_report,
}


@pytest.mark.parametrize("part", PARTS)
def test_a_table_that_the_folder_does_not_name_is_refused(part, world, tmp_path):
    folder = shutil.copytree(PARTS[part](world), tmp_path / "copy")
    read = folders.reader_of(folder)
    assert list(read(folder))
    tables = [path for path in sorted(folder.rglob("*.parquet")) if path.is_file()]
    refused = 0
    for path in tables:
        own = path.read_bytes()
        table = pd.read_parquet(path)
        if "pixels" in path.parts or len(table) < 2:
            continue
        table.iloc[::-1].to_parquet(path)  # as valid as the first
        with pytest.raises(InputError, match=path.name):
            list(read(folder))
        path.write_bytes(own)
        refused += 1
    assert refused
    assert list(read(folder))


@pytest.mark.parametrize("file", ["model.safetensors", "config.toml"])
def test_weights_and_configuration_of_another_run_are_refused(file, world, tmp_path):
    folder = shutil.copytree(world.run("classifier"), tmp_path / "copy")
    shutil.copyfile(world.run("detector") / file, folder / file)
    with pytest.raises(InputError, match=file):
        list(folders.run(folder))


def test_a_part_of_a_table_more_or_less_is_refused(world, tmp_path):
    folder = shutil.copytree(world.predictions("classifier"), tmp_path / "copy")
    part = next(iter(sorted((folder / "scores.parquet").glob("*.parquet"))))
    more = part.with_name("part-00099.parquet")
    shutil.copyfile(part, more)
    with pytest.raises(InputError, match=more.name):
        list(folders.predictions(folder))
    more.unlink()
    part.unlink()
    with pytest.raises(InputError, match=part.name):
        list(folders.predictions(folder))
