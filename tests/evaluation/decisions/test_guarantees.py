"""Thresholds with a guarantee: against exhaustive search, other programs and counts by hand."""

import numpy as np
import pytest
import scipy.stats

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.guarantee_results import locate_predictions
from cxr_compare.evaluation.decisions.guaranteed_threshold import (
    FalseBoxes,
    GuaranteeImages,
    Localisation,
    share_p_values,
)
from cxr_compare.evaluation.decisions.guarantees import FALSE_POSITIVES, read_guarantee
from cxr_compare.evaluation.decisions.thresholds import choose_threshold
from cxr_compare.evaluation.statistics.clustered_share import share_below_p_values
from cxr_compare.evaluation.systems.stored_predictions import (
    checked_decision,
    compare_predictions,
    read_output,
    tune_predictions,
)
from tools.simulation.makers import draw, skill_of


def images(n_patients=300, clusters="one", seed=0, copies=1):
    sample = draw(np.random.default_rng(seed), n_patients, [[skill_of(0.9)]], clusters=clusters)
    columns = sample.y_true, sample.scores[0], sample.patients.astype(str)
    return GuaranteeImages(*(np.repeat(column, copies) for column in columns))


def test_the_former_name_of_false_positives_is_still_read():
    assert read_guarantee("false_marks<=0.5@0.9") == read_guarantee(
        "false_positives_per_image<=0.5@0.9"
    )


def choose(of, text):
    return of.choose(read_guarantee(text))


def ladder(n_positive, n_negative=3):
    """An image a patient: positives score 10, 11, ..., negatives below."""
    scores = np.concatenate([np.arange(n_positive) + 10.0, np.arange(n_negative)])
    truth = np.arange(len(scores)) < n_positive
    return GuaranteeImages(truth, scores, np.arange(len(scores)).astype(str))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sensitivity>=1.2@0.9", "the sensitivity must lie between 0 and 1, got '1.2'"),
        ("specificity>=0@0.9", "the specificity must lie between 0 and 1, got '0'"),
        ("sensitivity>=0.9@0", "the confidence after @ must lie between 0 and 1, got '0'"),
        ("sensitivity>=0.9@", "the confidence after @ must lie between 0 and 1, got ''"),
        ("sensitivity>=.9.1@0.9", "got '.9.1'"),
        ("ppv>=0.4,prevalence=1@0.9", "the prevalence must lie between 0 and 1"),
        ("false_positives_per_image<=9@0.9", "must lie between 0 and 5, got '9'"),
        ("ppv>=0.4@0.9", "use sensitivity>=F@C"),
        ("sensitivity>=0.9&@0.9", "use sensitivity>=F@C"),
        ("max_f1@0.9", "use sensitivity>=F@C"),
        ("sensitivity>=0.9&sensitivity>=0.8@0.9", "two different ones joined by &"),
    ],
)
def test_a_guarantee_that_cannot_be_read_is_refused(text, says):
    with pytest.raises(InputError, match=f"guarantee '.*': .*{says}"):
        read_guarantee(text)


def test_other_policies_are_no_guarantees():
    assert read_guarantee("sensitivity>=0.90") is read_guarantee("cost:5/1@0.1") is None


@pytest.mark.parametrize(
    ("n_positive", "missed"), [(21, None), (22, 0), (37, 0), (38, 1), (52, 2)]
)  # 0.9^22 = 0.098 is the first power below 0.1; one may be missed from 38 on, two from 52 on
def test_as_many_may_be_missed_as_the_binomial_distribution_allows(n_positive, missed):
    threshold, reason = choose(ladder(n_positive), "sensitivity>=0.90@0.90")
    if missed is None:
        assert threshold is None
        assert "on 21 patients" in reason
        assert "about 22 patients" in reason
    else:  # the highest threshold: just below the lowest positive that must be found
        below = 2.0 if missed == 0 else 9.0 + missed
        assert threshold == (below + 10 + missed) / 2


@pytest.mark.parametrize("figure", ["sensitivity", "specificity"])
@pytest.mark.parametrize("clusters", ["one", "rsna"])
def test_the_threshold_is_that_of_testing_one_after_the_other(figure, clusters):
    of = images(clusters=clusters)
    counts = of.y_true == (figure == "sensitivity")
    names, owner = np.unique(of.patients[counts], return_inverse=True)
    sizes = np.bincount(owner)
    distinct = np.unique(of.scores)
    cuts = (distinct[1:] + distinct[:-1]) / 2
    last = None
    for cut in cuts if figure == "sensitivity" else cuts[::-1]:
        called = of.scores[counts] >= cut
        hits = np.bincount(owner, called if figure == "sensitivity" else ~called)
        if clusters == "one":
            p = scipy.stats.binomtest(int(hits.sum()), len(names), 0.8, "greater").pvalue
        else:
            p = share_below_p_values(hits[None].astype(float), sizes, 0.8, 0.08)[0] / 0.8
        if p > 0.1:
            break
        last = cut
    assert choose(of, f"{figure}>=0.80@0.90") == (pytest.approx(last, abs=1e-12), None)


def test_copies_of_images_guarantee_no_more():
    text = "sensitivity>=0.80@0.90"
    alone = choose(images(), text)[0]
    assert choose(images(copies=3), text)[0] <= alone
    as_patients = images(copies=3)
    as_patients = GuaranteeImages(
        as_patients.y_true, as_patients.scores, np.arange(len(as_patients.scores)).astype(str)
    )
    assert choose(as_patients, text)[0] > alone


def test_the_order_and_the_names_of_rows_change_nothing():
    of = images(clusters="rsna")
    back = GuaranteeImages(of.y_true[::-1], of.scores[::-1], of.patients[::-1])
    for text in ("sensitivity>=0.80@0.90", "ppv>=0.30,prevalence=0.2@0.90"):
        assert choose(back, text) == choose(of, text)


def test_two_at_once_share_the_error_and_both_hold():
    of = images(600)
    both = choose(of, "sensitivity>=0.80&specificity>=0.60@0.90")[0]
    assert both == choose(of, "sensitivity>=0.80@0.95")[0]
    assert both >= choose(of, "specificity>=0.60@0.95")[0]
    threshold, reason = choose(of, "sensitivity>=0.80&specificity>=0.90@0.90")
    assert threshold is None
    assert "sensitivity >= 0.8 and specificity >= 0.9" in reason


def test_a_predictive_value_is_tested_on_patients_that_did_not_propose_it():
    of, fresh = images(1_200, seed=1), images(20_000, seed=2)
    threshold = choose(of, "ppv>=0.40,prevalence=0.2@0.90")[0]
    called = fresh.scores >= threshold
    found, false = called[fresh.y_true].mean(), called[~fresh.y_true].mean()
    assert 0.40 <= 0.2 * found / (0.2 * found + 0.8 * false) < 0.60
    blind = GuaranteeImages(of.y_true, np.random.default_rng(3).random(len(of.scores)), of.patients)
    assert choose(blind, "ppv>=0.40,prevalence=0.2@0.90")[0] is None
    both = choose(of, "ppv>=0.30,prevalence=0.2&sensitivity>=0.60@0.90")[0]
    assert both <= choose(of, "sensitivity>=0.60@0.95")[0]
    assert "of its patients" in choose(ladder(1), "ppv>=0.40,prevalence=0.2@0.90")[1]


def test_false_positives_are_counted_up_to_five_an_image():
    # 60 images: 12 show a false box from 0.7 down, and one shows nine from 0.9 down.
    n = 60
    image = np.concatenate([np.arange(12), np.full(9, 59)])
    shown = np.concatenate([np.full(12, 0.7), np.full(9, 0.9)])
    scores = np.linspace(0.1, 0.99, n)
    of = GuaranteeImages(
        np.arange(n) % 2 == 0, scores, np.arange(n).astype(str),
        Localisation(np.ones(n, dtype=bool), None, FalseBoxes(image, shown)),
    )  # fmt: skip
    high = of.good_images(FALSE_POSITIVES, 0.8).good
    low = of.good_images(FALSE_POSITIVES, 0.5).good
    assert sorted(high.tolist()) == [0.0] + [1.0] * 59
    assert low.sum() == pytest.approx(n - 12 / 5 - 1)
    p = share_p_values(high, np.ones(n), 0.9, 0.1, whole=False)
    assert p[0] <= 0.1  # a mean of 5/60 against 0.5
    assert choose(of, "false_positives_per_image<=1@0.90")[0] < 0.7
    assert 0.7 < choose(of, "false_positives_per_image<=0.5@0.90")[0] <= 0.9
    assert choose(of, "false_positives_per_image<=0.01@0.90")[0] is None


def test_a_value_above_its_bound_is_not_called_out_of_reach():
    rng = np.random.default_rng(0)
    truth = rng.random(100) < 0.3
    scores = np.where(truth, rng.normal(1.2, 1, 100), rng.normal(0, 1, 100))
    of = GuaranteeImages(truth, scores, np.arange(100).astype(str))
    reason = choose(of, "ppv>=0.3,prevalence=0.1@0.90")[1]
    assert "0.448" in reason
    assert "no number" not in reason


def test_a_lesion_elsewhere_counts_as_missed():
    of, n = ladder(60), 63
    at = np.arange(n) >= 3  # the three lowest positives point beside their lesion
    placed = GuaranteeImages(
        of.y_true, of.scores, of.patients, Localisation(np.ones(n, dtype=bool), on_lesion=at)
    )
    assert placed.good_images("localised_sensitivity", 0.0).good.sum() == 57
    missed_so = choose(placed, "localised_sensitivity>=0.80@0.90")[0]
    assert missed_so == choose(of, "sensitivity>=0.80@0.90")[0]  # three missed in both
    reason = choose(placed, "localised_sensitivity>=0.96@0.90")[1]
    assert "0.95, which no number of patients" in reason


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sensitivity>=0.5@0.9", "validation has no positive image"),
        ("ppv>=0.5,prevalence=0.5@0.9", "validation has no positive image"),
        (
            "false_positives_per_image<=0.5@0.9",
            "localisation is guaranteed by image",
        ),
    ],
)
def test_what_cannot_be_guaranteed_gives_no_threshold(text, says):
    of = ladder(0, 30)
    threshold, reason = choose(of, text)
    assert (threshold, reason[: len(says)]) == (None, says)
    flat = GuaranteeImages(of.scores > 20, np.ones(30), of.patients)
    assert choose(flat, text) == (None, "all validation images have the same score")


def test_the_reason_names_what_a_system_lacks():
    of = ladder(30)
    blind = GuaranteeImages(
        of.y_true, of.scores, of.patients, Localisation(np.ones(33, dtype=bool))
    )
    assert "no boxes of its own" in choose(blind, "false_positives_per_image<=0.5@0.9")[1]
    assert "localises nothing" in choose(blind, "localised_sensitivity>=0.5@0.9")[1]
    one = GuaranteeImages(of.y_true, of.scores, np.full(33, "a"))
    assert "on 1 patient; " in choose(one, "sensitivity>=0.5@0.9")[1]
    with pytest.raises(InputError, match="a guarantee holds by patient"):
        choose_threshold(of.y_true, of.scores, "sensitivity>=0.5@0.9")


def test_a_score_that_the_same_images_chose_allows_a_weaker_guarantee():
    of = images()
    less = GuaranteeImages(of.y_true, of.scores, of.patients, error_share=0.1)
    assert choose(less, "sensitivity>=0.80@0.90") == choose(of, "sensitivity>=0.80@0.99")


def test_a_shown_box_is_one_from_the_threshold_on_or_the_highest(predict, test_set, evaluation_set):
    system, ids = predict("A", "boxes", seed=1), evaluation_set.image_ids("val")
    output = read_output(system, test_set.target, ids)
    boxes, scores = output.predicted_boxes, output.scores(None) * 0.5  # as if reduced otherwise
    image, shown = locate_predictions(output, scores.to_numpy(), test_set.truth).false_boxes
    of_box = boxes.groupby("image_id")["score"].max().reindex(ids).to_numpy()
    alone = np.bincount(image, minlength=len(ids)) == 1
    highest = np.full(len(ids), -1.0)
    np.maximum.at(highest, image, shown)
    assert (highest[alone] <= scores.to_numpy()[alone] + 1e-12).all()
    assert len(image) <= len(boxes)
    assert (of_box[np.unique(image)] > 0).all()


def test_a_guarantee_is_stored_and_derived_again_with_a_fixed_threshold(predict, test_set):
    text = "sensitivity>=0.50@0.90"
    system, other = predict("A", seed=1, skill=3.0), predict("B", "boxes", seed=2)
    decision = tune_predictions(system, test_set, policies=("max_f1", text))
    threshold = decision.thresholds[text].threshold
    assert threshold is not None
    system.write_decision("opacity", decision.to_dict())
    assert Decision.from_dict(system.decision("opacity")) == decision
    assert checked_decision("A", system, test_set, ())[0] == decision
    counted = "false_positives_per_image<=1@0.9"
    by_patient = tune_predictions(system, test_set, policies=(text, counted), unit="patient")
    assert "by image" in by_patient.thresholds[counted].reason
    found = compare_predictions({"A": system, "B": other}, test_set, replicates=60)
    rows = found.metrics.query(
        "system == 'A' and metric == 'recall' and subgroup == 'all'"
    ).set_index("policy")
    assert "refitted" in rows.loc["max_f1", "ci_method"]
    assert "refitted" not in rows.loc[text, "ci_method"]
    assert rows.loc[text, "ci_low"] < rows.loc[text, "estimate"]


def test_images_that_the_system_learned_from_guarantee_nothing(predict, test_set, monkeypatch):
    system = predict("A", seed=1, skill=3.0)
    seen = test_set.seen_by(system, test_set.image_ids("val")[:0])
    monkeypatch.setattr(type(seen), "all_ids", ["i000"])
    reason = tune_predictions(system, test_set, policies=("sensitivity>=0.50@0.90",)).thresholds
    assert "learned from patients of 1 validation images" in str(reason)
