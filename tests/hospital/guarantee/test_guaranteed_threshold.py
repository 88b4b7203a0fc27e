"""Thresholds with a guarantee, against the tests written as plain loops."""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from cxr_compare.hospital.guarantee.clustered_share import share_below_p_values
from cxr_compare.hospital.guarantee.guarantee_plan import LEAST_PATIENTS
from cxr_compare.hospital.guarantee.guaranteed_threshold import (
    FalseBoxes,
    GuaranteeImages,
    Localisation,
    share_p_values,
)
from cxr_compare.hospital.guarantee.guarantees import read_guarantee
from tools.simulation.draw import draw, skill_of

README = Path(__file__).resolve().parents[3] / "README.md"


def images(n_patients=300, clusters="one", seed=0, copies=1):
    sample = draw(np.random.default_rng(seed), n_patients, [[skill_of(0.9)]], clusters=clusters)
    columns = sample.y_true, sample.scores[0], sample.patients.astype(str)
    return GuaranteeImages(*(np.repeat(column, copies) for column in columns))


def choose(of, text):
    return of.choose(read_guarantee(text))


def ladder(n_positive, n_negative=3):
    """An image a patient: positives score 10, 11, ..., negatives below."""
    scores = np.concatenate([np.arange(n_positive) + 10.0, np.arange(n_negative)])
    truth = np.arange(len(scores)) < n_positive
    return GuaranteeImages(truth, scores, np.arange(len(scores)).astype(str))


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
            used = sizes.sum() ** 2 / (sizes**2).sum() / len(sizes)
            hits_of_row = hits[None].astype(float)
            p = share_below_p_values(hits_of_row, sizes, 0.8, 0.1 * used)[0] / used
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
    p = share_p_values([[0.0] + [1.0] * 59], np.ones(n), 0.9, 0.1, whole=False)
    assert p[0] <= 0.1  # a mean of 5/60 against 0.5
    assert choose(of, "false_positives_per_image<=1@0.90")[0] < 0.7
    assert 0.7 < choose(of, "false_positives_per_image<=0.5@0.90")[0] <= 0.9
    assert choose(of, "false_positives_per_image<=0.01@0.90")[0] is None


def test_the_guarantee_of_the_readme_can_be_given_on_the_quickstart():
    """Its validation images are of 108 patients, 38 of them with the finding."""
    (text,) = re.findall(r'cxr guarantee \S+ "(.*?)"', README.read_text())
    n = 108
    false_boxes = FalseBoxes(np.arange(20), np.full(20, 0.3))
    of = GuaranteeImages(
        np.arange(n) < 38,
        np.linspace(0.99, 0.1, n),
        np.arange(n).astype(str),
        Localisation(np.ones(n, dtype=bool), None, false_boxes),
    )
    guarantee = read_guarantee(text)
    assert min(of.count(part.figure).n_patients for part in guarantee.parts) >= LEAST_PATIENTS
    assert of.choose(guarantee)[0] is not None


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


def test_a_score_that_the_same_images_chose_allows_a_weaker_guarantee():
    of = images()
    less = GuaranteeImages(of.y_true, of.scores, of.patients, error_share=0.1)
    assert choose(less, "sensitivity>=0.80@0.90") == choose(of, "sensitivity>=0.80@0.99")
