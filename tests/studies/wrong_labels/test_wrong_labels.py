"""`cxr wrong-labels`: corrected figures, and what overturns the answer of a report."""

import numpy as np
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_difference
from cxr_compare.studies.wrong_labels.reference_error import ReferenceAccuracy, corrected_auroc

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


def corrected(report, error):
    rows = cxr_compare.wrong_labels(report, error=error).to_dict()["corrected"]
    return {(row["system"], row["metric"]): row for row in rows}


@pytest.mark.parametrize(
    "given", ["0.5", "-0.1", "x", "nan", "sensitivity=0.9", "sensitivity=0.4,specificity=0.6",
              "sensitivity=2,specificity=0.9", "recall=0.9,specificity=0.9"],
)  # fmt: skip
def test_an_impossible_error_is_refused_by_name(given, tmp_path):
    with pytest.raises(InputError, match="error="):
        cxr_compare.wrong_labels(tmp_path, error=given)


def test_corrected_rates_are_those_counted_by_hand():
    # 40 labelled positive, 32 of them called; 60 labelled negative, 12 of them called.
    truth = np.repeat([1, 0], [40, 60])
    scores = np.concatenate([np.repeat([0.9, 0.1], [32, 8]), np.repeat([0.8, 0.2], [12, 48])])
    rows = corrected(compared({"A": scores}, truth), 0.05)
    recall, specificity = rows["A", "recall"], rows["A", "specificity"]
    assert recall["estimate"] == pytest.approx((32 * 0.95 - 12 * 0.05) / (40 * 0.95 - 60 * 0.05))
    assert specificity["estimate"] == pytest.approx(
        (48 * 0.95 - 8 * 0.05) / (60 * 0.95 - 40 * 0.05)
    )
    assert recall["policy"] == POLICY
    assert recall["ci_low"] < recall["estimate"] < recall["ci_high"]


def test_a_written_report_is_corrected_and_its_chart_drawn(tmp_path):
    truth, good, poor = labels_and_scores()
    out = tmp_path / "out"
    compared({"A": good, "B": poor}, truth, out=out)
    error = "sensitivity=0.95,specificity=0.98"
    found = cxr_compare.wrong_labels(out, error=error, chart=tmp_path / "chart.svg")
    assert found.to_dict()["error"] == {"sensitivity": 0.95, "specificity": 0.98}
    rows = {(row["system"], row["metric"]): row for row in found.to_dict()["corrected"]}
    known = ReferenceAccuracy(0.95, 0.98)
    assert rows["A", "auroc"]["estimate"] == corrected_auroc(truth, good, known).estimate
    gap = rows["A", "auroc"]["estimate"] - rows["B", "auroc"]["estimate"]
    assert rows["A - B", "auroc"]["estimate"] == pytest.approx(gap)
    assert len(rows) == 7
    assert "Labels that are wrong" in (tmp_path / "chart.svg").read_text()
    with pytest.raises(InputError, match="chart="):
        cxr_compare.wrong_labels(out, chart=tmp_path / "chart.txt")


def test_the_labels_named_as_wrong_overturn_the_answer():
    truth, good, poor = labels_and_scores()
    report = compared({"A": good, "B": poor}, truth)
    outcome = cxr_compare.wrong_labels(report)
    found = outcome.to_dict()["overturned"]
    images = list(report.decisions.drop_duplicates("image_id")["image_id"])
    wrong = [images.index(name) for name in found["most_harmful"]]
    assert len(wrong) == found["fewest"]
    assert found["fewest_share"] == found["fewest"] / found["n_labels"] == len(wrong) / 120
    changed = truth.copy()
    changed[wrong] ^= 1
    assert auroc_difference(truth, good, poor).ci_low > 0
    assert auroc_difference(changed, good, poor).ci_low <= 0
    changed[wrong[0]] ^= 1  # one fewer is not enough
    assert auroc_difference(changed, good, poor).ci_low > 0
    assert found["share_at_random"] in [row["share"] for row in found["at_random"]]
    assert outcome.to_dict()["corrected"] == []


def test_where_no_difference_is_shown_nothing_is_overturned(tmp_path):
    truth, good, _ = labels_and_scores()
    report = compared({"A": good, "B": 0.9 * good}, truth)
    assert cxr_compare.wrong_labels(report).to_dict()["overturned"] is None
    with pytest.raises(InputError, match="chart="):
        cxr_compare.wrong_labels(report, chart=tmp_path / "chart.png")


def test_labels_that_cannot_have_the_stated_error_give_null_and_a_reason():
    truth, good, poor = labels_and_scores()  # a third is positive, the error allows 40 to 60 %
    rows = corrected(compared({"A": good, "B": poor}, truth), 0.4)
    assert {row["estimate"] for row in rows.values()} == {None}
    assert all("stated error allows only" in row["note"] for row in rows.values())


def test_a_system_with_several_training_seeds_is_refused_by_name():
    truth, good, poor = labels_and_scores()
    report = compared({"A": [good, 0.9 * good], "B": poor}, truth)
    with pytest.raises(InputError, match="A has 2 training seeds"):
        cxr_compare.wrong_labels(report)


def test_labels_without_error_leave_every_figure_as_it_is():
    truth, good, poor = labels_and_scores()
    report = compared({"A": good, "B": poor}, truth)
    as_labelled = {
        (" - ".join(filter(None, (row["first"], row["second"]))), row["metric"]): row["estimate"]
        for row in report.figures.to_dict("records")
        if row["subgroup"] == "all" and row["policy"] in ("", POLICY)
    }
    for key, row in corrected(report, 0.0).items():
        assert row["estimate"] == pytest.approx(as_labelled[key])


def test_of_several_systems_the_leaders_weakest_difference_counts():
    rng = np.random.default_rng(0)
    truth = np.arange(400) % 2
    skills = {"A": 2.0, "B": 1.0, "C": 0.0}
    scores = {
        name: 1 / (1 + np.exp(-skill * truth - rng.normal(size=400)))
        for name, skill in skills.items()
    }
    found = cxr_compare.wrong_labels(compared(scores, truth)).to_dict()["overturned"]
    assert (found["first"], found["second"]) == ("A", "B")
