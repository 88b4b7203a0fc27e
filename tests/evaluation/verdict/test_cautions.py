"""Cautions below the answer: leaks, chance, guesses without the lungs, other data."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.audit.audit import Audit, audit, split_errors
from cxr_compare.data_prep.audit.problem import Problem
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.store.prediction_info import TrainingSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.evaluated_model import EvaluatedModel
from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.groups.shortcuts import BEYOND_SHORTCUT, SHORTCUT
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.output import Output, SystemFacts
from cxr_compare.evaluation.sources.eligibility import describe_training_data, training_sets
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.verdict.cautions import (
    chance_notes,
    data_notes,
    list_cautions,
    shortcut_notes,
)
from tests.compared import compare_predictions
from tests.stored_json import bind_tables


def images(content_id="1"):
    ids = pd.Index(["a", "b"])
    labelled = LabelledImages.from_arrays(ids, [0, 1])
    return replace(labelled, data_name="rsna", ids={"content_id": content_id})


def trained_on(**systems):
    """Models of systems that were trained on data sets of these names and content ids."""
    output = Output.from_scores(pd.Index(["a", "b"]), [0.1, 0.9])
    choices = Choices(target="label", chosen_on={})
    return {
        name: [EvaluatedModel(name, images(), output, choices, SystemFacts(trained_on=sets))]
        for name, sets in systems.items()
    }


@pytest.mark.parametrize(
    ("synthetic", "words"),
    [(["a"], "1 of the 2 test images are synthetic"), (["a", "b"], "Synthetic images: the fig")],
)
def test_part_of_a_test_set_is_not_called_synthetic_as_a_whole(synthetic, words):
    of_phantom = replace(images(), synthetic=pd.Index(synthetic))
    (caution,) = data_notes(of_phantom, trained_on(A=()), [])
    assert caution.text.startswith(words)


def test_an_audit_that_skipped_the_split_is_a_caution():
    (caution,) = data_notes(images(), trained_on(A=()), None)
    assert caution.kind == "no_audit"
    assert data_notes(images(), trained_on(A=()), []) == []


@pytest.mark.parametrize(
    ("a", "b", "p_values", "kind", "systems"),
    [
        ((0.498, 0.4, 0.596), (0.443, 0.339, 0.552), (0.9, 0.3), "chance", ["A", "B"]),
        ((0.9, 0.49, 0.95), (0.6, 0.5, 0.7), (0.001, 0.06), "chance", ["B"]),
        ((0.9, 0.8, 0.95), (0.2, 0.1, 0.4), (0.001, 0.001), "below_chance", ["B"]),
    ],
)
def test_a_rank_test_that_does_not_show_more_than_chance_is_a_caution(
    make_metrics, a, b, p_values, kind, systems
):
    rows = {"A": a, "B": b}
    figures = Figures.from_table(
        make_metrics([(name, "", "auroc", *row) for name, row in rows.items()])
    )
    key = MetricKey(ALL, "", "auroc")
    for name, p_value in zip(rows, p_values, strict=True):
        figures.rows[name, ""][key] = replace(figures.rows[name, ""][key], p_value=p_value)
    (caution,) = chance_notes(figures)
    assert caution.kind == kind
    for name, (estimate, low, high) in rows.items():
        figure = f"{name} ({estimate:.3f}, 95 % interval {low:.3f} to {high:.3f}"
        assert (figure in caution.text) == (name in systems)


def test_the_worst_comes_first_and_other_cautions_last():
    kinds = ["few_patients", "seeds", "synthetic", "elsewhere", "chance", "audit", "scores"]
    listed = list_cautions([Note(kind, "") for kind in kinds])
    assert [note.kind for note in listed] == [
        "scores", "audit", "chance", "elsewhere", "synthetic", "few_patients"
    ]  # fmt: skip


def test_training_elsewhere_is_one_caution_for_all_systems():
    phantom = (("phantom", "2"),)
    models = trained_on(A=phantom, B=phantom, C=(("rsna", "3"), ("nih", "4")), D=(("rsna", "1"),))
    (caution,) = data_notes(images(), models, [])
    assert caution.kind == "elsewhere"
    assert "A and B were trained on data set “phantom”" in caution.text
    assert "C was trained on data set “rsna” (other images) and “nih”" in caution.text
    (caution,) = data_notes(images(), trained_on(A=(("rsna", "1"), ("nih", "7"))), [])
    assert "A was also trained on data set “nih”" in caution.text
    assert "D" not in caution.text.split()


def viewed(evaluation_set, truth_in_view):
    """The data set with a view that says the label, or nothing."""
    images = evaluation_set.images
    positive = (images["x_class"] == "lung_opacity").to_numpy()
    side = positive if truth_in_view else np.arange(len(images)) % 2 == 0
    images["view"] = np.where(side, "AP", "PA")
    return evaluation_set


@pytest.mark.parametrize("truth_in_view", [True, False])
def test_a_guess_without_the_lungs_is_compared_with_each_system(
    predict, evaluation_set, truth_in_view
):
    data = viewed(evaluation_set, truth_in_view)
    systems = {"A": predict("A", seed=1, skill=3.0), "B": [predict("B", seed=2, skill=3.0)]}
    found = compare_predictions(systems, LabelledSplit(data, data.target()), replicates=20)
    rows = found.groups[found.groups["topic"] == BEYOND_SHORTCUT]
    assert rows["system"].tolist() == ["A", "B"]
    gaps = [figure for figure in found.figures.of("A", "B").values() if figure.bounded]
    assert gaps
    sizes = range(1, 11)
    for gap in gaps:  # each can be one of as many comparisons as a report tells, and only widens
        widths = [gap.within(size).ci_high - gap.within(size).ci_low for size in sizes]
        assert np.diff(widths).min() >= -1e-12
    shortcuts = [note for note in found.answer.cautions if note.kind == "shortcut"]
    if truth_in_view:
        (caution,) = shortcuts
        assert "from view, with AUROC 1.000" in caution.text
        for name, gap in zip(rows["system"], rows["estimate"], strict=True):
            assert f"{name} ({1 + gap:.3f}, difference {number(gap)}" in caution.text
        assert (rows["estimate"] < 0).all()
    else:
        assert shortcuts == []
        assert (rows["ci_low"] > 0).all()


@pytest.mark.parametrize(("ends", "is_shown"), [((0.51, 0.69), True), ((0.49, 0.71), False)])
def test_only_a_guess_that_beats_chance_is_called_a_prediction_of_the_label(ends, is_shown):
    row = {"group": "view", "metric": "auroc", "note": ""}
    guess = row | {"topic": SHORTCUT, "system": SHORTCUT, "estimate": 0.6}
    gap = row | {"topic": BEYOND_SHORTCUT, "system": "A", "estimate": 0.05}
    rows = [guess | {"ci_low": ends[0], "ci_high": ends[1]}, gap | {"ci_low": -0.1, "ci_high": 0.2}]
    assert len(shortcut_notes(pd.DataFrame(rows))) == is_shown


def write_audit(dataset, problems=(), split_ids=None):
    facts = {"split_ids": dataset.ids.split_ids if split_ids is None else split_ids}
    Audit(tuple(problems), {}, facts).write(dataset.folder / "audit.json")


def test_errors_of_the_audit_stand_below_the_answer(predict, test_set, evaluation_set):
    leak = Problem("patient_leak", "error", "split 'default': patient in more than one role", 3, (),
                   unit="patient", split="default")  # fmt: skip
    elsewhere = replace(leak, message="split 'other': patient in more than one role", split="other")
    mild = replace(leak, severity="warning", message="view")
    write_audit(evaluation_set, [leak, elsewhere, mild])
    found = compare_predictions({"A": predict("A", seed=1)}, test_set, replicates=20)
    error = "split 'default': patient in more than one role (3 patients)"
    assert found.audit == [error]
    assert found.answer.cautions[0].kind == "audit"
    assert error in found.answer.cautions[0].text


def test_only_an_audit_of_this_very_split_clears_it(evaluation_set):
    assert split_errors(evaluation_set, "default") is None
    for split_ids, errors in ((None, ()), ({"default": "drawn before"}, None), ({}, None)):
        write_audit(evaluation_set, split_ids=split_ids)
        assert split_errors(evaluation_set, "default") == errors


def test_an_audit_names_the_splits_that_it_checked(evaluation_set):
    assert audit(evaluation_set, pixels=False).facts["split_ids"] == {"default": "s1"}


def test_where_a_system_was_trained_comes_from_its_predictions(predict):
    system = predict("A", seed=1)
    assert training_sets(system) == []
    trained_on = [TrainingSet(name="rsna", content_id="r")]
    system.info = system.info.with_values(trained_on=trained_on)
    system.info.write(system.folder / "predictions.json")
    assert training_sets(system) == [("rsna", "r")]
    seen = pd.DataFrame({"image_id": ["a"], "patient_id": ["x"], "role": ["train"]})
    write_table(seen, system.folder / "seen.parquet", "seen")
    bind_tables(system.folder)
    system = Predictions.open(system.folder)
    assert "rsna" in json.dumps(describe_training_data(system))


@pytest.mark.parametrize(
    ("source", "patient", "synthetic"),
    [
        ("synthetic", "p1", True),
        ("rsna", "phantom-7:00000001", True),
        ("rsna", "part:phantom-7:00000001", True),
        ("rsna", "nih:00000001", False),
    ],
)
def test_synthetic_images_are_known_also_in_sets_made_before(
    evaluation_set, source, patient, synthetic
):
    evaluation_set.images["source"] = source
    evaluation_set.images["patient_id"] = patient
    assert evaluation_set.synthetic.tolist() == [synthetic] * len(evaluation_set.images)
