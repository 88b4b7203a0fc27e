"""Error of the reference labels in a comparison: corrected figures, and what overturns it."""

import json

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.compare.claims import Claim
from cxr_compare.evaluation.compare.estimates import CORRECTED, Estimate
from cxr_compare.evaluation.compare.reference_check import LabelledScores, headline_labels
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_difference
from cxr_compare.evaluation.statistics.reference_error import ReferenceAccuracy, corrected_auroc
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions

pytestmark = pytest.mark.usefixtures("no_chart_files")
POLICY = "threshold=0.5"


def labels_and_scores(n=120, skill=0.35):
    rng = np.random.default_rng(4)
    truth = np.arange(n) % 3 == 0
    good = np.clip(0.35 + skill * truth + rng.normal(scale=0.15, size=n), 0, 1)
    poor = np.clip(0.4 + 0.05 * truth + rng.normal(scale=0.15, size=n), 0, 1)
    return truth.astype(int), good, poor


def compared(systems, truth, **options):
    return cxr_compare.compare(systems, truth=truth, replicates=100, policy=[POLICY], **options)


def corrected(report):
    table = report.to_dict()["metrics"]
    rows = [row for row in table if row["subgroup"] == "all_corrected"]
    return {(row["system"], row["metric"]): row for row in rows}


@pytest.mark.parametrize(
    "given", ["0.5", "-0.1", "x", "nan", "sensitivity=0.9", "sensitivity=0.4,specificity=0.6",
              "sensitivity=2,specificity=0.9", "recall=0.9,specificity=0.9"],
)  # fmt: skip
def test_reference_error_that_is_none_is_refused_by_name(given):
    truth, good, poor = labels_and_scores(30)
    with pytest.raises(InputError, match="--reference-error"):
        compared({"A": good, "B": poor}, truth, reference_error=given)


def test_corrected_rates_are_those_counted_by_hand():
    # 40 labelled positive, 32 of them called; 60 labelled negative, 12 of them called.
    truth = np.repeat([1, 0], [40, 60])
    scores = np.concatenate([np.repeat([0.9, 0.1], [32, 8]), np.repeat([0.8, 0.2], [12, 48])])
    rows = corrected(compared({"A": scores}, truth, reference_error=0.05))
    recall, specificity = rows["A", "recall"], rows["A", "specificity"]
    assert recall["estimate"] == pytest.approx((32 * 0.95 - 12 * 0.05) / (40 * 0.95 - 60 * 0.05))
    assert specificity["estimate"] == pytest.approx(
        (48 * 0.95 - 8 * 0.05) / (60 * 0.95 - 40 * 0.05)
    )
    assert recall["policy"] == POLICY
    assert recall["ci_low"] < recall["estimate"] < recall["ci_high"]


def test_a_stated_error_gives_corrected_figures_table_and_sentence(tmp_path):
    truth, good, poor = labels_and_scores()
    systems = {"A": good, "B": poor}
    report = compared(
        systems, truth, reference_error="sensitivity=0.95,specificity=0.98", out=tmp_path / "out"
    )
    rows = corrected(report)
    known = ReferenceAccuracy(0.95, 0.98)
    assert rows["A", "auroc"]["estimate"] == corrected_auroc(truth, good, known).value
    gap = rows["A", "auroc"]["estimate"] - rows["B", "auroc"]["estimate"]
    assert rows["A - B", "auroc"]["estimate"] == pytest.approx(gap)
    stored = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert stored["reference_error"] == {"sensitivity": 0.95, "specificity": 0.98}
    csv = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert (csv["subgroup"] == "all_corrected").sum() == len(rows) == 7
    assert stored["wrong_labels"]["text"] in str(report)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Corrected for the stated error" in page
    assert stored["wrong_labels"]["text"] in page
    assert "Rogan" in page
    assert 'id="wrong-labels"' in page
    assert "AUROC against wrong labels" in page


def test_the_labels_named_as_wrong_overturn_the_headline():
    truth, good, poor = labels_and_scores()
    report = compared({"A": good, "B": poor}, truth)
    found = report.to_dict()["wrong_labels"]
    images = list(report.decisions.drop_duplicates("image_id")["image_id"])
    wrong = [images.index(name) for name in found["most_harmful"]]
    assert len(wrong) == found["fewest"]
    assert found["fewest_share"] == found["fewest"] / found["n_labels"] == len(wrong) / 120
    changed = truth.copy()
    changed[wrong] ^= 1
    assert auroc_difference(truth, good, poor).interval[0] > 0
    assert auroc_difference(changed, good, poor).interval[0] <= 0
    changed[wrong[0]] ^= 1  # one fewer is not enough
    assert auroc_difference(changed, good, poor).interval[0] > 0
    assert found["share_at_random"] in [row["share"] for row in found["at_random"]]
    assert report.to_dict()["reference_error"] is None
    assert corrected(report) == {}


def test_a_headline_without_a_shown_difference_says_nothing_of_wrong_labels(tmp_path):
    truth, good, _ = labels_and_scores()
    report = compared({"A": good, "B": 0.9 * good}, truth, out=tmp_path / "out")
    assert report.to_dict()["wrong_labels"] is None
    assert "wrong" not in str(report)
    assert "wrong-labels" not in (tmp_path / "out" / "report.html").read_text()


def test_labels_that_cannot_have_the_stated_error_give_null_and_a_reason():
    truth, good, poor = labels_and_scores()  # a third is positive, the error allows 40 to 60 %
    rows = corrected(compared({"A": good, "B": poor}, truth, reference_error=0.4))
    assert {row["estimate"] for row in rows.values()} == {None}
    assert all("stated error allows only" in row["note"] for row in rows.values())


def test_several_training_seeds_are_not_corrected_and_say_so(predict, test_set):
    systems = {"A": [predict("A1", seed=1), predict("A2", seed=2)], "B": predict("B", seed=3)}
    figures = compare_predictions(systems, test_set, replicates=100, reference_error=0.02).estimates
    auroc = figures.get("A", "auroc", subgroup=CORRECTED)
    assert not auroc.known
    assert "training seeds" in auroc.note
    assert figures.get("B", "auroc", subgroup=CORRECTED).known
    assert "training seeds" in figures.difference("A", "B", "auroc", subgroup=CORRECTED).note


def test_labels_without_error_leave_every_figure_as_it_is():
    truth, good, poor = labels_and_scores()
    report = compared({"A": good, "B": poor}, truth, reference_error=0.0)
    as_labelled = {
        (row["system"], row["metric"]): row["estimate"]
        for row in report.to_dict()["metrics"]
        if row["subgroup"] == "all" and row["policy"] in ("", POLICY)
    }
    for key, row in corrected(report).items():
        assert row["estimate"] == pytest.approx(as_labelled[key])


def claim(first, second, values, low, high, metric="auroc"):
    difference = Estimate(values[0] - values[1], low, high)
    return Claim(first, second, metric, "", values, difference)


def test_of_several_systems_the_leaders_weakest_difference_counts():
    rng = np.random.default_rng(0)
    truth = np.arange(200) % 2 == 0
    skills = {"A": 2.0, "B": 1.0, "C": 0.0}
    scores = {name: [skill * truth + rng.normal(size=200)] for name, skill in skills.items()}
    labelled = LabelledScores([str(n) for n in range(200)], truth, np.arange(200), scores)
    claims = [
        claim("A", "B", (0.92, 0.76), 0.09, 0.23),
        claim("A", "C", (0.92, 0.50), 0.33, 0.51),
        claim("B", "C", (0.76, 0.50), 0.05, 0.47),  # weaker, but not of the leader
    ]
    found = headline_labels(labelled, claims, "images")
    assert (found.claim.first, found.claim.second) == ("A", "B")
    of_pairs = [claim("A", "B", (0.9, 0.7), 0.1, 0.3, "recall"), claims[0]]
    assert headline_labels(labelled, of_pairs, "images") is None
