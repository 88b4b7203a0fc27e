"""A joint system of two runs: one folder that predicts, serves and exports as one run does."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts import console
from cxr_compare.scripts.commands.ensemble import ensemble
from cxr_compare.scripts.commands.export import export
from cxr_compare.scripts.commands.predict import predict
from cxr_compare.scripts.runs import load
from cxr_compare.serving.predict_folder import freeze_decision
from cxr_compare.serving.web.systems import ServedSystem
from tests.scripts.small_sets import drawn_images
from tests.scripts.untrained import untrained_run


class Made(NamedTuple):
    """A data set and a joint system of a detector and a classifier that read other sizes."""

    dataset: DataSet
    both: Path
    test_ids: list[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("joint")
    data = drawn_images(folder, 80, 64, [32, 64])
    dataset = DataSet.open(data)
    split = LabelledSplit(dataset, dataset.target())
    runs = [
        untrained_run("detector", data, folder / "detector", 64),
        untrained_run("classifier", data, folder / "classifier", 32),
    ]
    with console.silent():
        for run in runs:
            freeze_decision(run, split, console)
        ensemble([f"D={runs[0]}", f"C={runs[1]}"], data=data, out=folder / "both")
    return Made(dataset, folder / "both", split.truth.ids_of("test")[:8].tolist())


def require_stored_answers(system: Path, made: Made, tolerance: float) -> None:
    run = load(system)
    joint = Predictions.open(made.both)
    stored = joint.scores.set_index("image_id")["score"]
    # Untrained members get large weights, which enlarge the rounding between batches.
    (rule,) = joint.info.ensemble["findings"].values()
    tolerance *= max(1.0, sum(map(abs, rule["weights"])))
    for image_id in made.test_ids:
        answer = run.predict(made.dataset.read_original(image_id))
        assert answer.score == pytest.approx(stored[image_id], abs=tolerance)
        assert answer.computed_decision is not None
        assert answer.grid is not None


def test_its_answer_equals_its_stored_score(made):
    require_stored_answers(made.both, made, 1e-6)
    run = load(made.both)
    together = run.predict([made.dataset.read_original(i) for i in made.test_ids])
    alone = [run.predict(made.dataset.read_original(i)).score for i in made.test_ids]
    np.testing.assert_allclose([answer.score for answer in together], alone, atol=1e-5)


def test_its_cost_is_the_sum_of_its_members(made):
    info = Predictions.open(made.both).info
    members = [member.cost["parameters"] for member in info.members]
    assert info.cost["parameters"] == sum(members)


def test_it_predicts_a_data_set_as_it_was_stored(made, tmp_path):
    again = predict([str(made.both)], data=made.dataset.folder, out=tmp_path / "again")
    stored = Predictions.open(made.both).scores.set_index("image_id")["score"]
    scores = again.scores.set_index("image_id")["score"].loc[made.test_ids]
    np.testing.assert_allclose(scores, stored.loc[made.test_ids], atol=1e-5)
    assert again.kind == "both"
    assert again.info.cost["parameters"]


def test_its_export_answers_as_it_does(made, tmp_path):
    export(made.both, tmp_path / "exported", format="onnx")
    require_stored_answers(tmp_path / "exported", made, 1e-5)


def test_it_is_served_as_one_system(made):
    run = load(made.both)
    served = ServedSystem(run, None, None)
    assert served.facts.kind == "both"
    assert served.facts.system == "D + C"
    answer = run.predict(made.dataset.read_original(made.test_ids[0]))
    shown = served.with_map(answer).map
    assert shown is not None
    assert 0 <= np.min(shown.values) <= np.max(shown.values) <= 1
