"""Systems on other data sets: figures against scikit-learn and counts, claims against chance."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.thresholds import ThresholdChoice
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.studies.transfer_analysis import (
    EvaluatedSet,
    Transfer,
    TransferCell,
    TransferOptions,
    add_drops,
    evaluate_cell,
)
from cxr_compare.evaluation.studies.transfer_page import drops, write_transfer
from cxr_compare.evaluation.studies.unseen_scores import UnseenScores

RNG = np.random.default_rng(0)
EVALUATING = TransferOptions("max_f1", [5], replicates=200, draws=20)
HOME = TransferCell("A", "rsna", home=True)
SHORTCUT = {"auroc": 0.8, "ci_low": 0.7, "ci_high": 0.88, "fact": "view"}


def scored(rng, n, auroc=0.8, share=0.4, images=1):
    """Scores of patients, each with so many images of one class."""
    positive = np.repeat(np.arange(n) < share * n, images)
    scores = rng.normal(size=n * images) + np.sqrt(2) * ndtri(auroc) * positive
    names = np.repeat([f"p{patient}" for patient in range(n)], images)
    ids = pd.Index([f"i{place}" for place in range(n * images)])
    return UnseenScores(ids, positive, scores, names)


def decided_at(threshold):
    choice = {"max_f1": ThresholdChoice("max_f1", threshold)}
    return Decision("opacity", {}, thresholds=choice)


def evaluate(test, val, decision=None):
    options = TransferOptions("max_f1", [5, 20], replicates=200)
    return evaluate_cell(TransferCell("A", "set", False), test, val, decision, options)


def test_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    test = scored(rng, 150, images=2)
    val = scored(rng, 80)
    cell = evaluate(test, val, decided_at(0.7))
    called = test.scores >= 0.7
    assert cell.auroc.value == pytest.approx(roc_auc_score(test.y_true, test.scores))
    assert cell.frozen["recall"].estimate == pytest.approx(recall_score(test.y_true, called))
    assert cell.frozen["f1"].estimate == pytest.approx(f1_score(test.y_true, called))
    assert cell.frozen["f1"].low < cell.frozen["f1"].estimate < cell.frozen["f1"].high
    assert (cell.n_images, cell.n_patients, cell.n_positive) == (300, 150, 120)


def test_local_thresholds_follow_from_so_many_positive_patients():
    rng = np.random.default_rng(1)
    test = scored(rng, 200)
    val = scored(rng, 100, share=0.25)
    few, more, whole = evaluate(test, val, decided_at(5.0)).refits
    assert [refit.positives for refit in (few, more, whole)] == [5, 20, None]
    # The fifth of 25 positive patients among 100 is found after 5 x 101 / 26 on the mean.
    assert few.images == pytest.approx(5 * 101 / 26, rel=0.1)
    assert whole.images == 100
    spread = [refit.figures["recall"].high - refit.figures["recall"].low for refit in (few, more)]
    assert spread[1] < spread[0]
    assert whole.figures["f1"].estimate > 0.5  # the threshold from home calls nobody
    recall = whole.figures["recall"]  # one choice: its interval is over test patients
    assert recall.low < recall.estimate < recall.high
    assert evaluate(test, val, decided_at(5.0)).frozen["recall"].estimate == 0


def test_without_enough_local_positives_there_is_no_local_threshold():
    rng = np.random.default_rng(2)
    test = scored(rng, 100)
    val = scored(rng, 20, share=0.3)
    assert [refit.positives for refit in evaluate(test, val).refits] == [5, None]
    nobody = scored(rng, 0)
    assert evaluate(test, nobody).refits == ()


def test_a_set_of_one_class_says_so():
    rng = np.random.default_rng(3)
    test = scored(rng, 50, share=0.0)
    cell = evaluate(test, test, decided_at(0.5))
    assert cell.auroc is None
    assert cell.note == "no positive test image that A has not seen"


def test_drops_are_of_independent_sets_and_corrected_over_all():
    def cell(system, home, value, error):
        auroc = ClusteredEstimate(value, error, 200, bounded=True)
        return TransferCell(system, "home" if home else "away", home, auroc=auroc)

    cells = add_drops(
        [
            cell("A", True, 0.9, 0.01),
            cell("A", False, 0.86, 0.015),
            cell("B", True, 0.8, 0.01),
            cell("B", False, 0.70, 0.02),
        ]
    )
    a = cells[1]
    b = cells[3]
    assert a.drop.estimate == pytest.approx(0.04)
    # Nearly normal so far from 1: the interval of both is that of the variances' sum.
    reach = 1.972 * np.hypot(0.01, 0.015)
    assert (a.drop.low, a.drop.high) == pytest.approx((0.04 - reach, 0.04 + reach), abs=0.003)
    assert a.p_value == pytest.approx(max(a.drop.p_value, 2 * b.drop.p_value))
    assert [each.drop for each in cells[::2]] == [None, None]
    assert (a.drop_shown, b.drop_shown) == (True, True)


@pytest.mark.parametrize(
    "trials", [150, pytest.param(3000, marks=pytest.mark.long)], ids=["short", "whole"]
)
def test_equal_sets_are_reported_to_differ_in_no_more_than_a_twentieth_of_tables(trials):
    rng = np.random.default_rng(4)
    ten = scored(rng, 10)
    nobody = UnseenScores(ten.image_ids[:0], ten.y_true[:0], ten.scores[:0], ten.patients[:0])
    wrong = 0
    for _ in range(trials):
        cells = [
            evaluate_cell(
                TransferCell(system, data, data == "home"),
                scored(rng, n, images=2),
                nobody,
                None,
                TransferOptions("max_f1", []),
            )
            for system in "AB"
            for data, n in (("home", 120), ("one", 80), ("two", 60))
        ]
        wrong += any(cell.drop_shown for cell in add_drops(cells))
    assert wrong / trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize(
    ("share", "threshold", "unknown"),
    [
        (0.4, 5.0, "precision"),  # nobody is called positive
        (0.0, 0.5, "auroc"),  # one class
    ],
)
def test_a_figure_that_is_undefined_is_null_in_every_file(tmp_path, share, threshold, unknown):
    decision = decided_at(threshold)
    test = scored(RNG, 60, share=share)
    cell = evaluate_cell(HOME, test, scored(RNG, 60), decision, EVALUATING)
    sets = [EvaluatedSet("rsna", "Opacity", SHORTCUT)]
    page = write_transfer(Transfer(sets, [cell], "max_f1", []), tmp_path)
    rows = json.loads((tmp_path / "transfer.json").read_text())["figures"]
    (row,) = [r for r in rows if r["metric"] == unknown and r["threshold"] in ("", "home")]
    assert row["estimate"] is None
    assert pd.read_csv(tmp_path / "transfer.csv")["estimate"].isna().any()
    assert "0.800 (0.700 to 0.880) by view" in page.read_text()


def test_rows_say_what_their_interval_is_over(tmp_path):
    cell = evaluate_cell(HOME, scored(RNG, 60), scored(RNG, 60), None, EVALUATING)
    write_transfer(
        Transfer([EvaluatedSet("rsna", "Opacity", None)], [cell], "max_f1", []), tmp_path
    )
    table = pd.read_csv(tmp_path / "transfer.csv").set_index("threshold")
    assert set(table.loc["local, 5 positive", "interval"]) == {"90 % of choices of local patients"}
    whole = table.loc["local, all"]
    assert set(whole["interval"]) == {"95 % over test patients"}
    recall = whole[whole["metric"] == "recall"].iloc[0]
    assert recall["low"] < recall["high"]


def test_few_positives_elsewhere_show_no_drop_however_well_they_are_ranked():
    home = TransferCell("A", "home", True, auroc=ClusteredEstimate(0.85, 0.03, 100, bounded=True))
    perfect = ClusteredEstimate(1.0, None, bounded=True, trials=4)  # 4 positives, exact
    cell = add_drops([home, TransferCell("A", "away", False, auroc=perfect)])[1]
    assert cell.drop.low < -0.15 < 0.3 < cell.drop.high
    assert not cell.drop_shown


def test_a_drop_that_only_all_of_them_together_hide_is_not_called_nothing():
    def cell(data_set, value):
        return TransferCell(
            "A",
            data_set,
            data_set == "home",
            auroc=ClusteredEstimate(value, 0.015, 200, bounded=True),
        )

    names = [f"set {place}" for place in range(3)]
    cells = add_drops([cell("home", 0.9), *(cell(name, 0.855) for name in names)])
    sets = [EvaluatedSet(name, "Opacity", None) for name in ("home", *names)]
    for drop in drops(Transfer(sets, cells, "max_f1", [])):
        assert not drop.shown
        assert "not shown over 3 drops (p = 0.1" in drop.text
        assert "equal AUROCs" not in drop.text


@pytest.mark.parametrize(
    ("there", "headline"),
    [
        ((0.5, 0.6), "Both systems lose on away: AUROC 0.90 to 0.50 and 0.80 to 0.60"),
        ((0.5, 0.79), "A loses on away: AUROC 0.90 to 0.50"),
        ((0.9, 0.95), "No loss was shown on away"),  # higher there
    ],
)
def test_headline_says_who_was_shown_to_lose_what_where(tmp_path, there, headline):
    values = {"A": (0.9, there[0]), "B": (0.8, there[1])}
    cells = [
        TransferCell(
            system,
            data_set,
            data_set == "home",
            auroc=ClusteredEstimate(value, 0.02, 200, bounded=True),
        )
        for system, of in values.items()
        for data_set, value in zip(("home", "away"), of, strict=True)
    ]
    sets = [EvaluatedSet(name, "Opacity", SHORTCUT) for name in ("home", "away")]
    page = write_transfer(Transfer(sets, add_drops(cells), "max_f1", []), tmp_path)
    assert f"<h1>{headline}</h1>" in page.read_text()
