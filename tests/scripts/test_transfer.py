"""`cxr transfer` from the outside, with models that are made up."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep.contracts.tables import write_table
from data_prep.store.dataset import DataSet
from data_prep.store.predictions import Predictions, PredictionWriter
from scripts import cli
from scripts.prepare import prepare
from scripts.transfer import transfer


def data_set(folder: Path, name: str, finding: str, seed: int, *, patients: int = 120) -> Path:
    """A data set without pixels, half validation, half test; every third patient is positive."""
    source = folder / f"source-{name}"
    source.mkdir()
    ids = [f"{name}-{number}" for number in range(patients)]
    roles = ["val", "test"] * (patients // 2)
    table = pd.DataFrame({"image_id": ids, "patient_id": ids, "split": roles})
    table.to_csv(source / "images.csv", index=False)
    states = ["present" if number % 6 < 2 else "absent" for number in range(patients)]
    labels = pd.DataFrame({"image_id": ids, "finding": finding, "state": states})
    labels.to_csv(source / "labels.csv", index=False)
    prepare([source, folder / name], format="csv")
    return folder / name


@dataclass(frozen=True)
class Model:
    """A model that ranks the images of its home better."""

    home: DataSet
    learnt: tuple[str, ...] = ("lung_opacity",)
    names: dict[str, str] | None = None

    @property
    def info(self) -> dict[str, object]:
        return {"data_set": {"name": "rsna", "content_id": self.home.ids["content_id"]}}

    def with_names(self, names: dict[str, str]) -> "Model":
        return replace(self, names=names)

    def inference_id(self) -> str:
        return f"as {self.names}"

    def predict(self, dataset: DataSet, out: Path, name: str) -> None:
        ids = dataset.images["image_id"]
        (finding,) = set(dataset.findings["finding"])
        states = dataset.findings.set_index("image_id")["state"].reindex(ids) == "present"
        apart = 3.0 if dataset.ids == self.home.ids else 0.5
        logit = np.random.default_rng(1).normal(apart * states, 1)
        info = {"system": name, "kind": "scores", "inference_id": self.inference_id(),
                "data_set": {"content_id": dataset.ids["content_id"]}}  # fmt: skip
        rows = {"image_id": ids, "finding": finding, "score": 1 / (1 + np.exp(-logit))}
        done = pd.DataFrame({"image_id": ids, "status": "ok", "reason": None})
        with PredictionWriter(out, info) as writer:
            writer.add(done, scores=pd.DataFrame(rows))


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """Home, another set with another name for the finding, and a run's folder."""
    home = data_set(tmp_path, "rsna", "lung_opacity", 0)
    away = data_set(tmp_path, "kermany", "pneumonia", 1)
    run = tmp_path / "run"
    run.mkdir()
    model = Model(DataSet.open(home))
    monkeypatch.setattr("scripts.transfer.predicts", lambda path: path.name == "run")
    monkeypatch.setattr("scripts.transfer.open_model", lambda path, device: model)
    monkeypatch.setattr(
        "scripts.predict.predict_data_set",
        lambda model, dataset, out, split, size, name: model.predict(dataset, out, name),
    )
    return home, away, run


def test_a_drop_is_told_where_two_findings_count_as_one_another(sets, tmp_path, capsys):
    home, away, run = sets
    out = tmp_path / "out"
    asked = {"out": out, "same": ["pneumonia=lung_opacity"], "replicates": 200}
    transfer([f"CheXNet={run}", str(away)], data=[str(home)], as_json=True, **asked)
    found = json.loads(capsys.readouterr().out)
    (drop,) = found["findings"]
    assert drop["shown"]
    assert drop["text"].startswith("CheXNet on kermany: AUROC 0.")
    assert {row["data_set"] for row in found["figures"] if row["home"]} == {"rsna"}
    assert Predictions.open(out / "systems/kermany/CheXNet").info["inference_id"] == (
        "as {'lung_opacity': 'pneumonia'}"
    )
    page = (out / "transfer.html").read_text()
    assert drop["text"] in page
    assert "no threshold from home" in (out / "transfer.csv").read_text()
    before = (out / "transfer.csv").read_bytes()
    transfer([f"CheXNet={run}", str(away)], data=[str(home)], **asked)
    assert (out / "transfer.csv").read_bytes() == before


def test_a_set_without_the_finding_is_named_with_what_would_help(sets, tmp_path, capsys):
    home, away, run = sets
    transfer([str(run), str(away), str(home)], out=tmp_path / "out", replicates=200, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert any("--same lung_opacity=NAME" in note for note in found["notes"])
    assert {row["data_set"] for row in found["figures"]} == {"rsna"}


def test_patients_that_a_system_has_seen_are_left_out_and_counted(sets, tmp_path, capsys):
    home, away, run = sets
    out = tmp_path / "out"
    asked = {"out": out, "same": ["pneumonia=lung_opacity"], "replicates": 200, "as_json": True}
    transfer([str(run), str(away), str(home)], **asked)
    capsys.readouterr()
    seen = DataSet.open(away).image_ids("test")[:7]
    patients = DataSet.open(away).images.set_index("image_id")["patient_id"].reindex(seen)
    table = pd.DataFrame({"image_id": seen, "patient_id": patients.to_numpy(), "role": "train"})
    write_table(table, out / "systems/kermany/run/seen.parquet", "seen")
    transfer([str(run), str(away), str(home)], **asked)
    found = json.loads(capsys.readouterr().out)
    assert {row["n_seen"] for row in found["figures"] if row["data_set"] == "kermany"} == {7}
    assert any("7 test images left out" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--positives x", "--positives x: are not numbers"),
        ("--positives 0", "are 1 or more"),
        ("--same pneumonia", "--same pneumonia: write FINDING=FINDING"),
        ("--policy best", "policy"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    command = ["cxr", "transfer", "run", "--out", str(tmp_path / "out"), *arguments.split()]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert words in line
    assert not (tmp_path / "out").exists()
