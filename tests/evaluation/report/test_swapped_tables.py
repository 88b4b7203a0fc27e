"""A table of another folder is refused by name: in a data set, predictions, a run and a report."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pytest

from cxr_compare.configs.load import dump_config, read_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import read_table, write_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import MadeOn
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.report.compared import Compared
from cxr_compare.evaluation.report.result import Result
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import StartedRun
from tests.compared import compare_predictions
from tests.stored_json import put_table

TABLES = ("images", "findings", "boxes", "box_coverage")
STARTED = {
    "model_kind": "classifier",
    "target": "opacity",
    "findings": ["lung_opacity"],
    "seed": 0,
    "data_set": MadeOn(name="set", content_id="x"),
}
ENDED = {
    "monitor": "auroc", "best_epoch": 1, "best_value": 0.5, "epochs": 1, "n_train": 1, "n_val": 1,
}  # fmt: skip


def read_data_set(folder: Path) -> Iterable[pd.DataFrame]:
    dataset = DataSet.open(folder)
    yield from (dataset.optional_table(name) for name in TABLES)
    yield dataset.split()


def read_predictions(folder: Path) -> Iterable[pd.DataFrame]:
    predictions = Predictions.open(folder)
    yield from (predictions.images, predictions.scores, predictions.boxes)
    yield predictions.rows("scores", ["lung_opacity"], predictions.images_run)


def read_report(folder: Path) -> Iterable[pd.DataFrame]:
    result = Result.open(folder)
    yield from (getattr(result, name) for name in ("figures", "tests", "groups"))
    yield from (result.decisions, result.curves)


def require_refusals(one: Path, other: Path, read: Callable[[Path], Iterable[object]]) -> None:
    """Put each table of the other folder into the first, which must then be refused by name."""
    assert list(read(one)), "opens before"
    tables = [path for path in one.rglob("*.parquet") if path.is_file()]
    assert tables
    for path in tables:
        own = path.read_bytes()
        foreign = (other / path.relative_to(one)).read_bytes()
        if foreign == own:
            continue
        path.write_bytes(foreign)
        with pytest.raises(InputError, match=path.name):
            list(read(one))
        path.write_bytes(own)
    assert list(read(one)), "opens afterwards"


def test_a_table_of_another_data_set_is_refused(evaluated_folder, tmp_path):
    one = shutil.copytree(evaluated_folder, tmp_path / "one")
    other = shutil.copytree(evaluated_folder, tmp_path / "other")
    for name in TABLES:
        table = read_table(other / f"{name}.parquet", name)
        write_table(table[::-1], other / f"{name}.parquet", name)  # as valid as the first
    split = read_table(other / "splits" / "default.parquet", "split")
    put_table(split[::-1], other / "splits" / "default.parquet", "split")
    assert list(read_data_set(other))
    require_refusals(one, other, read_data_set)


def test_a_table_of_other_predictions_is_refused_and_so_is_a_part_more_or_less(predict, tmp_path):
    one, other = predict("A", seed=1).folder, predict("B", seed=2).folder
    require_refusals(one, other, read_predictions)
    part = one / "scores.parquet" / "part-00000.parquet"
    more = part.with_name("part-00001.parquet")
    shutil.copyfile(part, more)
    with pytest.raises(InputError, match=more.name):
        list(read_predictions(one))
    more.unlink()
    part.unlink()
    with pytest.raises(InputError, match=part.name):
        list(read_predictions(one))


def test_a_table_of_another_report_is_refused(predict, test_set, tmp_path):
    for name, seeds in (("one", (1, 2)), ("other", (3, 4))):
        systems = {"A": predict(f"A{name}", seed=seeds[0]), "B": predict(f"B{name}", seed=seeds[1])}
        comparison = compare_predictions(systems, test_set, replicates=20)
        Result(Compared(comparison, test_set.truth)).save(tmp_path / name)
    require_refusals(tmp_path / "one", tmp_path / "other", read_report)


def test_images_weights_and_configuration_of_another_run_are_refused(tmp_path):
    config = dump_config(read_config("small_cnn"))
    for name, patient in (("one", "p"), ("other", "q")):
        seen = pd.DataFrame({"image_id": ["a"], "patient_id": [patient], "role": ["train"]})
        started = StartedRun(name=name, **STARTED)
        run = RunFolder.create(
            tmp_path / name, config=f"# {name}\n{config}", seen=seen, started=started
        )
        (tmp_path / name / "model.safetensors").write_text(name)
        run.complete(**ENDED)
    run = RunFolder.open(tmp_path / "one")
    readers = {
        "seen.parquet": lambda: run.seen,
        "model.safetensors": run.require_weights,
        "config.toml": lambda: run.config,
    }
    for file, read in readers.items():
        read()
        shutil.copyfile(tmp_path / "other" / file, tmp_path / "one" / file)
        with pytest.raises(InputError, match=file):
            read()
