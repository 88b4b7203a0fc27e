"""Images of a report with the predictions and truth that are drawn on them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.overlays.outcomes import describe_truth
from cxr_compare.evaluation.overlays.shapes import (
    Label,
    Shape,
)
from cxr_compare.evaluation.report.cases import CaseSource, display_text, read_cases_of_images
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.pixels import pixels_of_data_set
from cxr_compare.evaluation.sources.read_predictions import store_decision
from cxr_compare.evaluation.sources.stored_predictions import tune_predictions
from cxr_compare.scripts.commands.overlay import overlay
from tests.compared import compare_predictions
from tests.stored_json import put_table


@pytest.fixture
def systems(predict):
    return {
        "Detector": predict("Detector", "boxes", seed=1),
        "Classifier": predict("Classifier", "scores", seed=2, maps=True),
    }


@pytest.fixture(scope="module")
def tuned(evaluated_folder, predicted_folder, tmp_path_factory):
    """Both systems with a stored decision; whoever changes them makes a copy."""
    dataset = DataSet.open(evaluated_folder)
    test_set = LabelledSplit(dataset, dataset.target())
    made = {
        "Detector": predicted_folder("Detector", "boxes", seed=1),
        "Classifier": predicted_folder("Classifier", seed=2, maps=True),
    }
    folder = tmp_path_factory.mktemp("tuned")
    systems = {}
    for name, predicted in made.items():
        system = Predictions.open(shutil.copytree(predicted, folder / name))
        decision = tune_predictions(system, test_set)
        store_decision(system, decision)
        systems[name] = system
    return systems


@pytest.fixture
def pixels(monkeypatch):
    monkeypatch.setattr(DataSet, "has_pixels", True)
    image = np.full((90, 90), 100, np.uint8)
    monkeypatch.setattr(DataSet, "read_original", lambda self, image_id: image)


def test_threshold_of_an_untuned_system_is_that_of_compare(systems, test_set, evaluation_set):
    ids = list(evaluation_set.image_ids("test"))
    for policy in ("max_f1", "youden"):
        reader = read_cases_of_images(systems, test_set, ids, policy=policy)
        comparison = compare_predictions(systems, test_set, replicates=100, policies=[policy])
        table = comparison.decisions.set_index(["system", "image_id"])[f"decision_{policy}"]
        for image_id in ids:
            for prediction in reader.predictions(image_id):
                assert prediction.decision == table[prediction.system, image_id]


def test_system_that_ran_on_no_validation_image_stays_undecided(predict, test_set, evaluation_set):
    systems = {
        "Detector": predict("Detector", "boxes", seed=1, roles=("test",)),
        "Classifier": predict("Classifier", "scores", seed=2, roles=("test",), maps=True),
    }
    ids = evaluation_set.image_ids("test")[:5]
    reader = read_cases_of_images(systems, test_set, list(ids), policy="max_f1")
    for image_id in ids:
        detector, classifier = reader.predictions(image_id)
        assert detector.decision is None
        assert detector.box_cut == 0.5
        assert classifier.grid is not None


@pytest.mark.parametrize("threshold", [0.2, 0.7])
def test_a_given_threshold_needs_no_validation_images(predict, test_set, evaluation_set, threshold):
    system = predict("Detector", "boxes", seed=1, roles=("test",))
    ids = list(evaluation_set.image_ids("test"))
    policy = f"threshold={threshold}"
    reader = read_cases_of_images({"Detector": system}, test_set, ids, policy=policy)
    predictions = [reader.predictions(image_id)[0] for image_id in ids]
    decisions = [prediction.decision for prediction in predictions]
    assert decisions == [prediction.score >= threshold for prediction in predictions]
    assert set(decisions) == {True, False}


def test_contours_do_not_depend_on_the_selected_images(systems, test_set, evaluation_set):
    ids = list(evaluation_set.image_ids("test")[:4])
    one = read_cases_of_images(systems, test_set, ids[:1], policy="max_f1")
    all_ = read_cases_of_images(systems, test_set, ids, policy="max_f1")
    assert one.systems[1].levels == all_.systems[1].levels != {}


def test_tuned_system_is_read_as_compare_evaluates_it(tuned, test_set, evaluation_set):
    comparison = compare_predictions(tuned, test_set, replicates=100)
    ids = list(evaluation_set.image_ids("test"))
    reader = read_cases_of_images(tuned, test_set, ids, policy="max_f1")
    table = comparison.decisions.set_index(["system", "image_id"])
    for image_id in ids:
        for prediction in reader.predictions(image_id):
            row = table.loc[(prediction.system, image_id)]
            assert prediction.score == row["score"]
            assert prediction.decision == row["decision_max_f1"]
            located = row["localised"]
            assert prediction.localised == (None if pd.isna(located) else bool(located))


def test_policy_that_was_not_tuned_is_refused(tuned, test_set, evaluation_set):
    ids = list(evaluation_set.image_ids("test")[:1])
    with pytest.raises(InputError, match=r"'youden'.*max_f1"):
        read_cases_of_images(tuned, test_set, ids, policy="youden")


def test_system_that_ran_on_none_of_the_images_is_refused(predict, test_set, evaluation_set):
    system = predict("Val only", roles=("val",))
    ids = list(evaluation_set.image_ids("test")[:2])
    with pytest.raises(InputError, match="Val only"):
        read_cases_of_images({"Val only": system}, test_set, ids, policy="max_f1")


def test_overlay_draws_one_png_an_image(tuned, evaluation_set, tmp_path, pixels):
    named = [f"{name}={system.folder}" for name, system in tuned.items()]
    out = tmp_path / "overlays"
    drawn = overlay(*named, data=evaluation_set, out=out, limit=3)
    assert drawn.to_dict() == sorted(map(str, out.iterdir()))
    names = sorted(path.stem for path in out.iterdir())
    assert len(names) == 3
    assert set(names) <= set(evaluation_set.image_ids("test"))


def test_overlay_refuses_a_set_without_pixels(tuned, evaluation_set, tmp_path):
    with pytest.raises(InputError, match=f"^{evaluation_set.folder}"):
        overlay(tuned["Detector"].folder, data=evaluation_set, out=tmp_path / "o", limit=1)
    assert not (tmp_path / "o").exists()


def drawn_images(data, tuned, out, **options):
    """Draw the detector and return the names of the files."""
    detector = tuned["Detector"].folder
    drawn = overlay(f"A={detector}", data=data, out=out, **options)
    return sorted(Path(file).name for file in drawn.to_dict())


def test_the_same_sample_is_drawn_again(tuned, evaluation_set, tmp_path, pixels):
    first, second = (
        drawn_images(evaluation_set, tuned, tmp_path / str(number), limit=5) for number in (1, 2)
    )
    assert first == second
    assert len(first) == 5


def test_unknown_image_is_named(tuned, evaluation_set, tmp_path, pixels):
    with pytest.raises(InputError, match="'nobody'"):
        drawn_images(evaluation_set, tuned, tmp_path / "o", image=["nobody"])


def test_two_systems_of_one_name_are_refused(tuned, evaluation_set, tmp_path, pixels):
    twice = [str(tuned["Detector"].folder)] * 2
    with pytest.raises(InputError, match="'Detector'"):
        overlay(*twice, data=evaluation_set, out=tmp_path / "o", limit=1)


def test_single_readers_are_drawn_thin_and_named(test_set, evaluation_set):
    folder, target = evaluation_set.folder, evaluation_set.target()
    image_id = evaluation_set.boxes["image_id"].iloc[0]
    pixels = pixels_of_data_set(evaluation_set, target.any_of)
    assert CaseSource(test_set.truth, pixels, ()).truth(image_id).readers == {}
    findings = pd.read_parquet(folder / "findings.parquet")
    boxes = pd.read_parquet(folder / "boxes.parquet")
    rows = findings[findings["image_id"] == image_id]
    drawn = boxes[boxes["image_id"] == image_id]
    findings = pd.concat([findings, *(rows.assign(reader=name) for name in ("R1", "R2"))])
    boxes = pd.concat([boxes, drawn.assign(reader="R1"), drawn.assign(reader="R1", x1=0.0)])
    put_table(findings, folder / "findings.parquet", "findings")
    put_table(boxes, folder / "boxes.parquet", "boxes")
    dataset = DataSet.open(folder)
    pixels = pixels_of_data_set(dataset, target.any_of)
    reader = CaseSource(LabelledSplit(dataset, target).truth, pixels, ())
    truth = reader.truth(image_id)
    assert describe_truth(truth, "F") == "F: present, 1 box; R1 2 boxes, R2 0 boxes"
    assert truth.title == "Truth"
    assert replace(truth, label=np.nan).title == replace(truth, boxes=None).title == "Readers"
    both = replace(truth, readers={**truth.readers, "R2": truth.boxes})
    shapes = both.shapes((100, 100))
    drawn = [(s.width, s.colour) for s in shapes if isinstance(s, Shape)]
    assert [width for width, _ in drawn] == [1.5, 1.5, 1.5, 2.0]
    assert len({colour for _, colour in drawn}) == 3
    assert [label.text for label in shapes if isinstance(label, Label)] == ["R1", "R1", "R2"]
    assert reader.truth("no such image").readers == {}


@pytest.mark.parametrize(
    ("decoded", "text"),
    [
        ({"voi": None, "inverted": True}, "grey as stored, inverted"),
        ({"voi": "percentiles", "inverted": False}, "range of the pixels, not inverted"),
        (
            {
                "voi": "window_sigmoid",
                "window_center": 40,
                "window_width": 80.5,
                "inverted": False,
            },
            "window 40/80.5 of the file, not inverted",
        ),
    ],
    ids=["no window", "deep image", "window"],
)
def test_display_text_names_window_and_inversion(decoded, text):
    assert display_text(decoded) == text
