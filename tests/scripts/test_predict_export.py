"""`cxr export RUN` and `cxr predict EXPORT`: one command line from a run to predictions."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.store.prediction_writer import PredictionWriter
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.choices import Choices, Declared
from cxr_compare.evaluation.choose import declare
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts import cli, console
from cxr_compare.serving import predict_folder
from cxr_compare.serving.predict_folder import freeze_decision
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.systems import missed_together
from tests.scripts.small_sets import cxr, drawn_images
from tests.scripts.untrained import untrained_run


class Made(NamedTuple):
    """A data set, an untrained run on it, and its export."""

    data: Path
    run: Path
    export: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("exported")
    data = drawn_images(folder, 48, 64, [32])
    run, dataset = untrained_run("classifier", data, folder / "run"), DataSet.open(data)
    with console.silent():
        freeze_decision(run, LabelledSplit(dataset, dataset.target()), console)
        assert cxr("export", run, "--format", "openvino") == 0
    return Made(data, run, run / "exports" / "openvino-fp32")


def test_an_export_answers_as_its_run(made, tmp_path, capsys):
    image = next((made.data.parent / "source").glob("stage_2_test_images/*.dcm"))
    answers = {}
    for system in (made.run, made.export):
        assert cxr("predict", system, image, "--json", "--no-overlay") == 0
        (answers[system],) = json.loads(capsys.readouterr().out)
    answer, run_answer = answers[made.export], answers[made.run]
    assert answer["decision"] == run_answer["decision"] is not None
    assert answer["score"] == pytest.approx(run_answer["score"], abs=1e-5)


def test_what_learned_from_drawings_alone_gives_no_answer_for_another_image(made, tmp_path, capsys):
    drawn = next((made.data.parent / "source").glob("stage_2_test_images/*.dcm"))
    image = tmp_path / "real.png"  # says nothing of being drawn, so it counts as real
    Image.fromarray(read_image(drawn).pixels).save(image)
    for system in (made.run, made.export):
        assert cxr("predict", system, image, drawn, "--json", "--no-overlay") == 0
        real, synthetic = json.loads(capsys.readouterr().out)
        assert (real["status"], synthetic["status"]) == ("doubtful", "ok")
        assert "learned from synthetic drawings only" in real["warnings"][0]
        assert synthetic["notes"] == ["this file says of itself that it is synthetic"]
        assert real["decision"] is None
        assert real["computed_decision"] == synthetic["decision"] is not None
        assert cxr("predict", system, image, "--no-overlay", "--csv", tmp_path / "a.csv") == 0
        assert "  no answer  probability " in capsys.readouterr().out
        assert pd.read_csv(tmp_path / "a.csv")["status"].tolist() == ["doubtful"]
        assert cxr("predict", system, image, "--out", tmp_path / "drawn", "--strict") == 2
        assert not (tmp_path / "drawn").exists()
        assert Run.open(system).predict(read_image(drawn).pixels).status == "doubtful"


@pytest.mark.parametrize("synthetic", [True, False])
def test_an_export_is_synthetic_where_its_run_says_so(made, synthetic):
    run = Run.open(made.export)
    origin = run.model.spec.run.with_values(synthetic=synthetic)
    run.model = replace(run.model, spec=run.model.spec.with_values(run=origin))
    assert run.synthetic is synthetic


def test_joint_misses_are_reported_for_runs_with_the_same_validation_images(made):
    run = Run.open(made.run)
    labels = run.decision.validation[run.policy]
    missed = missed_together([run, Run.open(made.run)], None)
    (share,) = missed.figures
    assert (missed.images, missed.n_positive) == ("validation", labels["tp"] + labels["fn"])
    assert share.estimate == labels["fn"] / missed.n_positive
    assert share.ci_low <= share.estimate <= share.ci_high
    assert missed_together([run, Run.open(made.export)], None) is None


def test_one_image_imports_no_torch_and_no_matplotlib(made, tmp_path):
    image = next((made.data.parent / "source").glob("stage_2_test_images/*.dcm"))
    arguments = ["cxr", "predict", str(made.run), str(image), "--backend", "openvino"]
    code = (
        "import sys\nfrom cxr_compare.scripts.cli import main\n"
        f"sys.argv = {arguments!r}\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code\n"
        "heavy = {'torch', 'matplotlib', 'sklearn', 'scipy.optimize', 'scipy.stats'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "LOADED []" in done.stdout, done.stderr
    assert len(list((tmp_path / "predicted").glob("*-overlay.png"))) == 1


def test_an_interrupted_prediction_goes_on_and_ends_as_one_that_was_not(
    made, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(predict_folder, "PART_SIZE", 4)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    arguments = ["predict", made.export, "--data", made.data, "--batch-size", 2, "--out"]
    assert cxr(*arguments, whole) == 0
    add, written = PredictionWriter.add, []

    def stop_at_the_second(self: PredictionWriter, images: pd.DataFrame, **tables: object) -> None:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(len(images))
        add(self, images, **tables)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PredictionWriter, "add", stop_at_the_second)
        assert cxr(*arguments, resumed) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    count = len(Predictions.open(whole).images)
    assert written == [4]
    assert cxr(*arguments, resumed, "--backend", "openvino") == 0
    assert f": {count - 4} of {count - 4}" in capsys.readouterr().err
    one, other = Predictions.open(whole), Predictions.open(resumed)
    for name in ("images", "scores", "maps"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))
    assert one.info.inference_id == other.info.inference_id
    assert one.info.training_id == one.info.exported_from
    assert (resumed / "seen.parquet").is_file()
    assert cxr("predict", made.run, "--data", made.data, "--out", tmp_path / "torch") == 0
    run_predictions = Predictions.open(tmp_path / "torch")
    assert run_predictions.info.training_id == one.info.training_id
    pd.testing.assert_frame_equal(run_predictions.scores, one.scores, atol=1e-5)


def test_single_answers_name_a_declared_threshold_and_a_comparison_leaves_the_run_unchanged(
    made, tmp_path, capsys, monkeypatch
):
    image = next((made.data.parent / "source").glob("stage_2_test_images/*.dcm"))
    run = shutil.copytree(made.run, tmp_path / "run")
    monkeypatch.setattr(predict_folder, "_recipe_of", lambda run: None)  # nobody trained it
    assert cxr("tune", run, "--data", made.data, "--policy", "max_f1") == 0
    stored = Run.open(run).decision_file
    declare(Choices.read(stored), Declared("screening", 0.25, "our study")).write(stored)

    def predict_answer(system: Path, *options: str) -> dict[str, Any]:
        capsys.readouterr()
        assert cxr("predict", system, image, "--no-overlay", "--json", *options) == 0
        return json.loads(capsys.readouterr().out)[0]

    before = predict_answer(run)
    assert (before["policy"], before["threshold"]) == ("declared", 0.25)
    assert before["declared"] == "declared: screening; our study"
    assert predict_answer(run, "--policy", "max_f1")["declared"] is None
    assert cxr("predict", run, image, "--no-overlay") == 0
    assert f"{before['declared']}.\n" in capsys.readouterr().out
    report = tmp_path / "report"
    few = ("--replicates", "100")
    assert cxr("compare", run, "--data", made.data, "--out", report, *few) == 0
    (named,) = json.loads((report / "answer.json").read_text())["declared"].values()
    assert named == asdict(Declared("screening", 0.25, "our study"))
    assert Choices.read(stored).declared == Declared("screening", 0.25, "our study")
    export = run / "exports" / made.export.name
    shutil.copy(stored, export / "decisions")  # as cxr export does
    exported = predict_answer(export)
    assert exported["threshold"] == 0.25
    assert exported["declared"].endswith("; for the run that was exported")
