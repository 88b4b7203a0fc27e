"""What stands right below the answer: leaks, chance, guesses without the lungs, other data."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.audit.audit import Audit, audit
from cxr_compare.data_prep.audit.problem import Problem
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.evaluation.compare.comparison import Background, _cautions
from cxr_compare.evaluation.compare.estimates import Estimates, family_levels
from cxr_compare.evaluation.compare.shortcuts import BEYOND_SHORTCUT
from cxr_compare.evaluation.metrics.notes import (
    Note,
)
from cxr_compare.evaluation.report.methods import methods
from cxr_compare.evaluation.systems.eligibility import describe_training_data, training_sets
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions, with_audit

NO_FAILURES = pd.DataFrame()


def told(make_metrics, rows, failures=NO_FAILURES, *, audit=(), **background):
    figures = Estimates.from_table(
        make_metrics([(name, "", "auroc", *row) for name, row in rows.items()])
    )
    said = _cautions(Background("rsna", audit=audit, **background), figures, failures)
    return tuple(note.text for note in said)


def test_an_audit_that_never_looked_at_the_split_is_said(make_metrics):
    rows = {"A": (0.9, 0.8, 0.95), "B": (0.8, 0.7, 0.9)}
    (said,) = told(make_metrics, rows, audit=None)
    assert "both training and test data was not checked (run cxr check)" in said
    assert told(make_metrics, rows) == ()


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ((0.498, 0.4, 0.596), (0.443, 0.339, 0.552), "By AUROC, A (0.498, 95 % interval 0.400 to "
         "0.596) and B (0.443, 95 % interval 0.339 to 0.552) were not shown to be better than "
         "chance (0.5)."),
        ((0.9, 0.8, 0.95), (0.6, 0.5, 0.7), "B (0.600, 95 % interval 0.500 to 0.700) was not sho"),
        ((0.9, 0.8, 0.95), (0.2, 0.1, 0.4), "0.400) was worse than chance (0.5)."),
    ],
)  # fmt: skip
def test_an_interval_that_holds_chance_is_said(make_metrics, a, b, words):
    (said,) = told(make_metrics, {"A": a, "B": b})
    assert words in said


def test_the_worst_stands_first_and_notes_of_caution_last(make_metrics):
    figures = Estimates.from_table(make_metrics([("A", "", "auroc", 0.5, 0.4, 0.6)]))
    background = Background("rsna", 3, ("a leak",), {"A": ("phantom",)})
    notes = [Note("few_patients", "Few patients."), Note("seeds", "Means over seeds.")]
    said = _cautions(background, figures, NO_FAILURES, notes)
    elsewhere = "A was trained on data set “phantom”; evaluated on “rsna”."
    starts = ["The audit of this data set", "By AUROC", elsewhere, "Synthetic images", "Few"]
    begun = [note.text.startswith(start) for note, start in zip(said, starts, strict=True)]
    assert begun == [True] * 5


def test_training_elsewhere_is_one_line_for_all_systems(make_metrics):
    rows = {"A": (0.9, 0.8, 0.95)}
    both = {"A": ("phantom",), "B": ("phantom",), "C": ("rsna", "nih")}
    (said,) = told(make_metrics, rows, elsewhere=both)
    assert said == (
        "A and B were trained on data set “phantom”; C was trained on data set “rsna” (other "
        "images) and “nih”; evaluated on “rsna”."
    )


def viewed(evaluation_set, truth_in_view):
    """The data set with a view that says the label, or nothing."""
    images = evaluation_set.images
    positive = (images["x_class"] == "lung_opacity").to_numpy()
    side = positive if truth_in_view else np.arange(len(images)) % 2 == 0
    images["view"] = np.where(side, "AP", "PA")
    return evaluation_set


@pytest.mark.parametrize("truth_in_view", [True, False])
def test_a_guess_without_the_lungs_is_held_against_each_system(
    predict, evaluation_set, truth_in_view
):
    data = viewed(evaluation_set, truth_in_view)
    systems = {"A": predict("A", seed=1, skill=3.0), "B": [predict("B", seed=2, skill=3.0)]}
    found = compare_predictions(systems, LabelledSplit(data, data.target()), replicates=20)
    rows = found.failures[found.failures["topic"] == BEYOND_SHORTCUT]
    assert rows["system"].tolist() == ["A", "B"]
    gaps = [figure for figure in found.estimates.differences["A", "B"].values() if figure.bounded]
    assert gaps
    sizes = range(1, 1 + len(family_levels(2)))
    for gap in gaps:  # each can be one of as many comparisons as a report tells, and only widens
        widths = [gap.within(size).high - gap.within(size).low for size in sizes]
        assert np.diff(widths).min() >= -1e-12
    said = [note.text for note in found.answer.cautions if note.kind == "shortcut"]
    if truth_in_view:
        (text,) = said
        assert "from view, with AUROC 1.000 (5-fold, by patient); on the same pairs" in text
        assert "were not shown to exceed that" in text
        # A reader can subtract: 1.000 is the guess on these pairs.
        for there, gap in re.findall(r"\((0\.\d+), difference −(0\.\d+)", text):
            assert float(there) - 1 == pytest.approx(-float(gap), abs=0.0011)
        assert text.count(", difference −") == 2
        assert (rows["estimate"] < 0).all()
    else:
        assert said == []
        assert (rows["ci_low"] > 0).all()


def checked(evaluation_set, problems=(), split_ids=None):
    facts = {"split_ids": evaluation_set.ids["split_ids"] if split_ids is None else split_ids}
    Audit(tuple(problems), {}, facts).write(evaluation_set.folder / "audit.json")
    split = LabelledSplit(evaluation_set, evaluation_set.target())
    ids = pd.Index(evaluation_set.images["image_id"])
    return with_audit(Background.from_truth(split.truth, ids, {}), split)


def test_errors_of_the_audit_stand_below_the_answer_and_in_the_checklist(
    predict, test_set, evaluation_set, image_set, comparison
):
    leak = Problem("patient_leak", "error", "split 'default': patient in more than one role", 3, (),
                   unit="patient", split="default")  # fmt: skip
    elsewhere = replace(leak, message="split 'other': patient in more than one role", split="other")
    mild = replace(leak, severity="warning", message="view")
    background = checked(evaluation_set, [leak, elsewhere, mild])
    assert background.audit == ("split 'default': patient in more than one role (3 patients)",)
    found = compare_predictions({"A": predict("A", seed=1)}, test_set, replicates=20)
    assert found.answer.cautions[0].text.startswith(
        "The audit of this data set found an error: split"
    )
    _, claim, _ = methods(replace(comparison, background=background), image_set)["checklists"]
    rows = " ".join(row[2] for row in claim.rows)
    assert "the audit found errors: split 'default'" in rows
    assert "each patient has one role" not in rows


def test_only_an_audit_of_this_very_split_clears_it(test_set, evaluation_set):
    ids = pd.Index(evaluation_set.images["image_id"])
    assert with_audit(Background.from_truth(test_set.truth, ids, {}), test_set).audit is None
    assert "was not checked" in Background().audit_text
    assert checked(evaluation_set).audit == ()
    assert checked(evaluation_set, split_ids={"default": "drawn before"}).audit is None
    assert checked(evaluation_set, split_ids={}).audit is None


def test_an_audit_says_which_splits_it_looked_at(evaluation_set):
    assert audit(evaluation_set, pixels=False).facts["split_ids"] == {"default": "s1"}


def test_where_a_system_was_trained_comes_from_its_predictions_or_its_run(predict, tmp_path):
    system = predict("A", seed=1)
    assert training_sets(system) == []
    run = tmp_path / "run"
    run.mkdir()
    origin = {"data_set": {"name": "nih", "content_id": "n"}}
    made = {"data_set": {"name": "phantom", "content_id": "p"}, "started_from": origin}
    write_json(run / "run.json", "run", made)
    system.info["run"] = str(run)  # predictions made before they held the data sets themselves
    assert training_sets(system) == [("phantom", "p"), ("nih", "n")]
    system.info["trained_on"] = [{"name": "rsna", "content_id": "r"}]
    assert training_sets(system) == [("rsna", "r")]
    seen = pd.DataFrame({"image_id": ["a"], "patient_id": ["x"], "role": ["train"]})
    write_table(seen, system.folder / "seen.parquet", "seen")
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
