"""`cxr ensemble` from the outside: a system like any other, that knows what it is made of."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.compare import compare
from cxr_compare.scripts.commands.ensemble import ensemble
from cxr_compare.scripts.commands.tune import tune
from tests.compared import compare_predictions
from tests.plain_sets import prepare_plain
from tests.scripts.small_sets import write_predictions, write_source
from tests.stored_json import put_table

LESION = (20.0, 20.0, 60.0, 60.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set without pixels: 80 patients, every second image positive and boxed."""
    folder = tmp_path_factory.mktemp("set")
    ids = [f"i{number:02d}" for number in range(80)]
    roles = ["val", "val", "test", "test"] * 20
    states = {"opacity": ["present", "absent"] * 40}
    source = write_source(folder / "source", ids, states, split=roles, width=100, height=100)
    boxes = pd.DataFrame([(i, *LESION) for i in ids[::2]], columns=["image_id", *EDGES])
    boxes.assign(finding="opacity").to_csv(source / "boxes.csv", index=False)
    prepare_plain(source, folder / "data")
    return folder / "data"


@pytest.fixture
def member(data: Path, tmp_path: Path):
    """Write a system of a given skill: ``member(name, kind, seed)``."""

    def write(name: str, kind: str = "boxes", seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        dataset = DataSet.open(data)
        labels = dataset.labels(dataset.target())
        score = 1 / (1 + np.exp(-rng.normal(2.0 * labels.to_numpy() - 1.0, 1.0)))
        rows = pd.DataFrame({"image_id": labels.index, "finding": "opacity", "score": score})
        if kind == "boxes":
            corners = np.clip(np.array(LESION) + rng.normal(0, 8, (len(rows), 4)), 0, 100)
            rows[EDGES] = corners
        cost = {"parameters": 3_000_000, "flops": 2e9, "latency_ms": 5.0, "latency_device": "cpu"}
        folder = write_predictions(
            tmp_path / name, data, labels.index, name, findings=["opacity"], cost=cost,
            **{kind: rows},
        )  # fmt: skip
        seen = pd.DataFrame({"image_id": [name], "patient_id": [name], "role": ["train"]})
        put_table(seen, folder / "seen.parquet", "seen")
        return folder

    return write


def test_an_ensemble_is_compared_with_its_member_in_gain_and_cost(data, member, tmp_path, capsys):
    folders = [member("A", seed=1), member("B", seed=2), member("C", seed=3)]
    options = {"data": data, "out": tmp_path / "all", "name": "Three"}
    run_command(ensemble, folders, as_json=True, **options)
    shown = capsys.readouterr()
    assert "Three: A + B + C: fusion of best boxes at IoU 0.5; " in shown.err
    info = Predictions.open(tmp_path / "all").info
    assert json.loads(shown.out)["inference_id"] == info.inference_id
    assert [one.inference_id for one in info.members] == ["A", "B", "C"]
    assert info.cost["parameters"] == 9_000_000
    seen = pd.read_parquet(tmp_path / "all" / "seen.parquet")
    assert seen["image_id"].tolist() == ["A", "B", "C"]
    systems = {
        n: Predictions.open(f) for n, f in (("One", folders[0]), ("Three", tmp_path / "all"))
    }
    dataset = DataSet.open(data)
    comparison = compare_predictions(
        systems, LabelledSplit(dataset, dataset.target()), replicates=100
    )
    costs = [system.cost for system in comparison.systems.values()]
    assert [cost["parameters"] for cost in costs] == [3_000_000, 9_000_000]
    assert [cost["latency_ms"] for cost in costs] == [5.0, 15.0]
    gain = comparison.figures.difference("Three", "One", "ap50").estimate
    assert gain > 0.05  # three noisy readings of one place are better than one


def test_a_detector_and_a_classifier_become_a_system_like_any_other(data, member, tmp_path):
    folders = [member("D", seed=1), member("C", "scores", seed=2)]
    out = tmp_path / "both"
    joint = ensemble(folders, data=data, out=out)
    assert joint.kind == "both"
    assert joint.info.cost["parameters"] == 6_000_000
    tune(out, data=data)
    report = compare([f"D={folders[0]}", f"C={folders[1]}", f"Both={out}"], data=data,
                     out=tmp_path / "report", replicates=100)  # fmt: skip
    assert report.to_dict()["joint"]["members"] == ["D", "C"]
    again = compare([f"D={folders[0]}", f"C={folders[1]}"], both=True, data=data, replicates=100)
    keys = ["metric", "policy", "subgroup"]
    first = report.figures.query("first == 'Both' and second == ''").set_index(keys)["estimate"]
    second = again.figures.query("first == 'D + C' and second == ''").set_index(keys)["estimate"]
    np.testing.assert_allclose(first, second.reindex(first.index), rtol=0, atol=1e-9)


def test_a_joint_system_of_too_few_validation_patients_writes_nothing(data, member, tmp_path):
    folders = [member("C", "scores"), member("D")]
    for folder in folders:
        images = pd.read_parquet(folder / "predicted_images.parquet")
        run = images["image_id"].str.slice(1).astype(int) % 4 == 2  # test images alone
        rows = list((folder / "predicted_images.parquet").glob("*.parquet"))
        put_table(images[run], rows[0], "predicted_images")
        for table, schema in (("scores", "scores"), ("boxes", "predicted_boxes")):
            for path in (folder / f"{table}.parquet").glob("*.parquet"):
                part = pd.read_parquet(path)
                put_table(part[part["image_id"].isin(images[run]["image_id"])], path, schema)
    with pytest.raises(InputError, match=r"ensemble: .*validation"):
        ensemble(folders, data=data, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_classifiers_average_and_many_images_come_in_parts(data, member, tmp_path, monkeypatch):
    monkeypatch.setattr("cxr_compare.evaluation.sources.ensemble._PART_SIZE", 30)
    folders = [member("C", "scores", seed=1), member("E", "scores", seed=2)]
    ensemble(folders, data=data, out=tmp_path / "mean")
    parts = sorted((tmp_path / "mean" / "scores.parquet").glob("part-*"))
    assert len(parts) == 3
    first, second, mean = (
        Predictions.open(f).scores.set_index("image_id")["score"]
        for f in (*folders, tmp_path / "mean")
    )
    np.testing.assert_allclose(mean, (first + second)[mean.index] / 2)
