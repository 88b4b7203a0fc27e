"""`cxr transfer` from the outside, with models that are made up."""

import json
import shutil
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.splits.add_split import add_splits
from cxr_compare.data_prep.splits.split import SplitRule
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.thresholds import ThresholdChoice
from cxr_compare.evaluation.studies.transfer_pairs import _set_notes
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.prepare import prepare
from cxr_compare.scripts.commands.transfer import transfer
from tests.scripts.small_sets import refusal, write_predictions, write_source


def data_set(folder: Path, name: str, finding: str) -> Path:
    """A data set without pixels, half validation, half test; every third patient is positive."""
    ids = [f"{name}-{number}" for number in range(120)]
    roles = ["val", "test"] * 60
    states = ["present", "present", "absent", "absent", "absent", "absent"] * 20
    source = write_source(folder / f"source-{name}", ids, {finding: states}, split=roles)
    prepare(source, folder / name, format="csv")
    return folder / name


@dataclass(frozen=True)
class Model:
    """A model that ranks the images of its home better."""

    home: DataSet
    learnt: tuple[str, ...] = ("lung_opacity",)
    names: dict[str, str] | None = None
    split: str = "default"
    began_on: DataSet | None = None
    lacks: int = 0

    @property
    def info(self) -> dict[str, Any]:
        made_on = {"name": "rsna", "content_id": self.home.ids["content_id"], "split": self.split}
        if self.began_on is None:
            return {"data_set": made_on}
        before = {"name": "before", "content_id": self.began_on.ids["content_id"]}
        return {"data_set": made_on, "started_from": {"data_set": before}}

    def with_names(self, names: dict[str, str]) -> "Model":
        return replace(self, names=names)

    def inference_id(self) -> str:
        return f"as {self.names}"

    def predict(self, dataset: DataSet, out: Path, name: str) -> Predictions:
        ids = dataset.images["image_id"][self.lacks :]
        (finding,) = (self.names or {name: name for name in self.learnt}).values()
        rows = dataset.findings[dataset.findings["finding"] == finding]
        states = rows.set_index("image_id")["state"].reindex(ids) == "present"
        apart = 3.0 if dataset.ids == self.home.ids else 0.5
        logit = np.random.default_rng(1).normal(apart * states, 1)
        scores = {"image_id": ids, "finding": finding, "score": 1 / (1 + np.exp(-logit))}
        of = {"inference_id": self.inference_id(), "scores": pd.DataFrame(scores)}
        return Predictions.open(write_predictions(out, dataset.folder, ids, name, **of))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Home, and another set with another name for the finding; each test gets copies."""
    folder = tmp_path_factory.mktemp("prepared")
    return [data_set(folder, "rsna", "lung_opacity"), data_set(folder, "kermany", "pneumonia")]


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: Any, prepared: list[Path]) -> tuple[Path, Path, Path]:
    """Copies of the two sets, and a run's folder."""
    home, away = (shutil.copytree(each, tmp_path / each.name) for each in prepared)
    run = tmp_path / "run"
    run.mkdir()
    model = Model(DataSet.open(home))
    monkeypatch.setattr(
        "cxr_compare.scripts.commands.transfer.predicts", lambda path: path.name.startswith("run")
    )
    monkeypatch.setattr("cxr_compare.scripts.commands.transfer.load_model", lambda path: model)
    monkeypatch.setattr(
        "cxr_compare.serving.predict_folder.predict_data_set",
        lambda model, dataset, out, split, terminal, name: model.predict(dataset, out, name),
    )
    # The tests of the analysis compare its intervals with others; here these need not be fine.
    monkeypatch.setattr("cxr_compare.scripts.commands.transfer._REPLICATES", 200)
    return home, away, run


def test_a_drop_is_told_where_two_findings_count_as_one_another(sets, tmp_path, capsys):
    home, away, run = sets
    out = tmp_path / "out"
    asked = {"out": out, "same": ["pneumonia=lung_opacity"]}
    run_command(transfer, [f"CheXNet={run}", away, home], as_json=True, **asked)
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    (drop,) = found["findings"]
    assert drop["shown"]
    told = [drop["text"], f"Next: open {out / 'transfer.html'} in a browser"]
    assert shown.err.splitlines()[-2:] == told
    assert drop["text"].startswith("CheXNet on kermany: AUROC 0.")
    assert {row["data_set"] for row in found["figures"] if row["home"]} == {"rsna"}
    evaluated = Predictions.open(out / "systems/kermany/CheXNet")
    assert evaluated.info["inference_id"] == "as {'lung_opacity': 'pneumonia'}"
    page = (out / "transfer.html").read_text()
    assert escape(drop["text"]) in page
    assert "no threshold from home" in (out / "transfer.csv").read_text()
    before = (out / "transfer.csv").read_bytes()
    transfer({"CheXNet": run, "kermany": away, "rsna": home}, **asked)
    assert (out / "transfer.csv").read_bytes() == before


def test_a_lock_that_a_kill_left_in_finished_predictions_is_removed(sets, tmp_path):
    home, _, run = sets
    transfer([run, home], out=tmp_path / "out")
    lock = tmp_path / "out" / "systems" / "rsna" / "run" / ".lock"
    lock.touch()
    transfer([run, home], out=tmp_path / "out")
    assert not lock.exists()


def test_patients_and_synthetic_images_are_noted_of_the_judged_images_alone(sets):
    dataset = DataSet.open(sets[0])
    images = dataset.images
    tested = images["image_id"].isin(dataset.image_ids("test"))
    for evaluated, said in ((True, ["does not name all patients", "are synthetic"]), (False, [])):
        images["patient_id_source"] = np.where(tested == evaluated, "assumed_image", "given")
        images["source"] = np.where(tested == evaluated, "synthetic", "rsna")
        notes = list(_set_notes("rsna", LabelledSplit(dataset, dataset.target())))
        assert len(notes) == len(said)
        assert all(words in note for words, note in zip(said, notes, strict=True))


def test_a_set_without_the_finding_is_named_with_what_would_help(sets, tmp_path):
    home, away, run = sets
    found = transfer([run, away, home], out=tmp_path / "out").to_dict()
    assert any("--same lung_opacity=NAME" in note for note in found["notes"])
    assert {row["data_set"] for row in found["figures"]} == {"rsna"}


def test_patients_that_a_system_has_seen_are_left_out_and_counted(sets, tmp_path):
    home, away, run = sets
    out = tmp_path / "out"
    asked = {"out": out, "same": ["pneumonia=lung_opacity"]}
    transfer([run, away, home], **asked)
    seen = DataSet.open(away).image_ids("test")[:7]
    patients = DataSet.open(away).images.set_index("image_id")["patient_id"].reindex(seen)
    table = pd.DataFrame({"image_id": seen, "patient_id": patients.to_numpy(), "role": "train"})
    write_table(table, out / "systems/kermany/run/seen.parquet", "seen")
    found = transfer([run, away, home], **asked).to_dict()
    assert {row["n_seen"] for row in found["figures"] if row["data_set"] == "kermany"} == {7}
    assert any("7 test images left out" in note for note in found["notes"])


def test_images_seen_under_other_names_are_left_out_and_named(sets, tmp_path, monkeypatch):
    home, away, run = sets
    asked = {"out": tmp_path / "out", "same": ["pneumonia=lung_opacity"]}
    transfer([run, away, home], **asked)
    images = DataSet.open(away).images["image_id"]
    prints = pd.DataFrame({"pixel_sha256": "sha-" + images, "perceptual_hash": None})
    decoded = prints.assign(image_id=images)
    monkeypatch.setattr(DataSet, "optional_table", lambda self, name: decoded)
    test = DataSet.open(away).image_ids("test")[:5]
    seen = pd.DataFrame({"pixel_sha256": "sha-" + test, "image_id": [*"abcde"]})
    seen = seen.assign(patient_id=seen["image_id"], role="train")
    write_table(seen, tmp_path / "out/systems/kermany/run/seen.parquet", "seen")
    found = transfer([run, away, home], **asked).to_dict()
    assert {row["n_seen"] for row in found["figures"] if row["data_set"] == "kermany"} == {5}
    named = "kermany: run has seen 5 of 60 test images in training under other ids"
    assert any(note.startswith(named) and note.endswith("left out.") for note in found["notes"])


def test_all_systems_are_judged_on_the_split_of_those_trained_there(sets, tmp_path, monkeypatch):
    home, away, run = sets
    add_splits(DataSet.open(home), "own", SplitRule(val=0.3, test=0.3, folds=3))
    for name in ("run", "run-away"):
        (tmp_path / name).mkdir(exist_ok=True)
    ids = DataSet.open(home).ids
    made_on = {"name": "home", "content_id": ids["content_id"], "split": "own"}
    write_json(run / "run.json", "run", {"data_set": made_on})
    here = Model(DataSet.open(home), split="own")
    there = Model(DataSet.open(away), ("pneumonia",), split="gone", began_on=DataSet.open(home))
    monkeypatch.setattr(
        "cxr_compare.scripts.commands.transfer.load_model",
        lambda path: here if path == run else there,
    )
    given = [f"A={run}", f"B={tmp_path / 'run-away'}", home, away]
    asked = {"out": tmp_path / "out", "same": {"pneumonia": "lung_opacity"}}
    found = transfer(given, **asked).to_dict()
    homes = {(row["system"], row["data_set"]) for row in found["figures"] if row["home"]}
    assert homes == {("A", "rsna"), ("B", "kermany")}
    notes = " ".join(found["notes"])
    assert "B learned on split 'gone', which kermany does not have" in notes
    assert "B started from weights that had learned from rsna" in notes


def test_predictions_of_another_split_or_data_set_are_refused(sets, tmp_path, monkeypatch):
    home, away, run = sets
    out = tmp_path / "out"
    of_others = Model(DataSet.open(home), lacks=1)
    monkeypatch.setattr("cxr_compare.scripts.commands.transfer.load_model", lambda path: of_others)
    with pytest.raises(InputError, match="lacks 1 image of split 'default'"):
        transfer([run, home], out=out)
    here = Model(DataSet.open(home), ("pneumonia",))
    monkeypatch.setattr("cxr_compare.scripts.commands.transfer.load_model", lambda path: here)
    transfer([run, away], out=out)
    anew = data_set(tmp_path, "anew", "pneumonia")
    with pytest.raises(InputError, match="content_id"):
        transfer([run, f"kermany={anew}"], out=out)


def test_a_policy_that_training_did_not_store_is_named_with_those_it_did(sets, tmp_path):
    home, _, run = sets
    (run / "decisions").mkdir()
    stored = Decision("lung_opacity", {}, thresholds={"max_f1": ThresholdChoice("max_f1", 0.5)})
    write_json(run / "decisions/lung_opacity.json", "decision", stored.to_dict())
    with pytest.raises(InputError, match="has no threshold by youden; --policy max_f1"):
        transfer([run, home], out=tmp_path / "out", policy="youden")
    assert not (tmp_path / "out/systems").exists()


def test_where_nothing_can_be_judged_it_says_why(sets, tmp_path):
    _, away, run = sets
    with pytest.raises(InputError, match=r"no system can be evaluated.*learned lung_opacity"):
        transfer([run, away], out=tmp_path / "out")
    with pytest.raises(InputError, match="--target pneumona: is a target of none"):
        transfer([run, away], out=tmp_path / "out", target=["pneumona"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--same pneumonia", "--same pneumonia: write FINDING=FINDING"),
        ("--policy best", "policy"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path, capsys, arguments, words):
    asked = ("transfer", "run", "--out", tmp_path / "out", *arguments.split())
    assert words in refusal(capsys, *asked)
    assert not (tmp_path / "out").exists()
