"""Guarantees observed on test images: counted by hand, and compared with simulated truth."""

import numpy as np
import pytest

from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.guarantee_results import observe_rate
from cxr_compare.evaluation.decisions.guaranteed_threshold import (
    FalseBoxes,
    GuaranteeImages,
    Localisation,
)
from cxr_compare.evaluation.decisions.guarantees import (
    FALSE_POSITIVES,
    GuaranteedRate,
    ObservedRate,
)
from cxr_compare.evaluation.decisions.tuning_options import TuningOptions
from cxr_compare.evaluation.report.metrics_json import metrics_json
from cxr_compare.evaluation.statistics.clustered_share import exact_share
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions, tune_predictions

TRUTH = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
SCORES = np.array([0.9, 0.8, 0.6, 0.2, 0.7, 0.3, 0.2, 0.1])
PATIENTS = np.array(["a", "a", "b", "c", "d", "e", "f", "f"])
LOCALISATION = Localisation(
    np.array([1, 1, 1, 0, 1, 1, 1, 1], dtype=bool),  # the lesions of the fourth are not all boxed
    np.array([1, 0, 1, 1, 0, 0, 0, 0], dtype=bool),
    # False boxes, each shown up to a threshold.
    FalseBoxes(np.array([1, 4, 4, 5]), np.array([0.8, 0.7, 0.55, 0.3])),
)
IMAGES = GuaranteeImages(TRUTH, SCORES, PATIENTS, LOCALISATION)
NEITHER = GuaranteeImages(np.ones(2, dtype=bool), np.array([0.1, 0.9]), np.array(["a", "b"]))


@pytest.mark.parametrize(
    ("part", "estimate", "good", "counted"),  # the last two by patient
    [
        (GuaranteedRate("sensitivity", 0.9), 3 / 4, [2, 1, 0], [2, 1, 1]),
        (GuaranteedRate("specificity", 0.9), 3 / 4, [0, 1, 2], [1, 1, 2]),
        (GuaranteedRate("localised_sensitivity", 0.5), 2 / 3, [1, 1], [2, 1]),
        (GuaranteedRate(FALSE_POSITIVES, 1.0), 3 / 7, [1.8, 1, 0.6, 1, 2], [2, 1, 1, 1, 2]),
        (GuaranteedRate("ppv", 0.3, 0.1), 0.075 / (0.075 + 0.225), None, [2, 1, 1, 1, 1, 2]),
    ],
)  # fmt: skip
def test_a_figure_at_a_threshold_is_that_of_its_images_by_patient(part, estimate, good, counted):
    found = observe_rate(IMAGES, part, 0.5)
    assert found.estimate == pytest.approx(estimate)
    assert (found.n_images, found.n_patients) == (sum(counted), len(counted))
    if good is not None:
        low, high = exact_share(np.array(good, dtype=float), np.array(counted, dtype=float))
        ends = (5 * (1 - high), 5 * (1 - low)) if part.figure == FALSE_POSITIVES else (low, high)
        assert (found.ci_low, found.ci_high) == pytest.approx(ends)
    assert found.ci_low <= found.estimate <= found.ci_high


@pytest.mark.parametrize(
    "part",
    [
        GuaranteedRate("specificity", 0.9),
        GuaranteedRate("ppv", 0.3, 0.1),
        GuaranteedRate(FALSE_POSITIVES, 1.0),
    ],
)
def test_a_figure_without_its_images_has_no_outcome(part):
    assert observe_rate(NEITHER, part, 0.5) is None


def test_the_interval_of_a_predictive_value_holds_the_true_one():
    rng, part, threshold = np.random.default_rng(7), GuaranteedRate("ppv", 0.3, 0.1), 0.6
    truth, held = np.arange(300) < 100, []
    true = 0.1 * 0.6 / (0.1 * 0.6 + 0.9 * 0.1)  # sensitivity 0.6, specificity 0.9
    for _ in range(400):
        positive = rng.random(300) < np.where(truth, 0.6, 0.1)
        images = GuaranteeImages(truth, positive * 0.8 + 0.1, np.arange(300).astype(str))
        found = observe_rate(images, part, threshold)
        held.append(found.ci_low <= true <= found.ci_high)
    assert 0.94 < np.mean(held) < 0.99  # 0.975 +- 0.016: exact intervals hold more than they must


HIGH = ObservedRate("sensitivity", 0.931, 0.884, 0.972, 190, 180)
LOW = ObservedRate("specificity", 0.62, 0.5712, 0.66, 400, 1)
BOTH, SURE = "sensitivity>=0.90&specificity>=0.705@0.80", "sensitivity>=0.90@0.90"
MEAN, PPV = "false_positives_per_image<=0.5@0.9", "ppv>=0.3,prevalence=0.1@0.9"
MADE = Decision("opacity", {"n_patients": 1600}, validation={
    BOTH: {"patients_sensitivity": 212, "patients_specificity": 1600},
    SURE: {"patients_sensitivity": 212},
})  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "outcomes", "ends"),
    [
        (SURE, None, "sensitivity at least 0.90 with 90 % confidence, on 212 validation patients"),
        (SURE, [HIGH], "on 212 validation patients; on test: 0.93 (0.88 to 0.97), 180 patients"),
        (BOTH, [HIGH, LOW], "and specificity at least 0.705 with 80 % confidence of both at "
         "once, on 212 and 1,600 validation patients; on test: sensitivity 0.93 (0.88 to 0.97), "
         "180 patients, specificity 0.620 (0.571 to 0.660), 1 patient: violated"),
        (BOTH, [HIGH], "180 patients, specificity not defined there"),
        (MEAN, [ObservedRate(FALSE_POSITIVES, 0.7, 0.6, 0.8, 9, 9)],
         "at most 0.50 with 90 % confidence, on 1,600 validation patients; on test: 0.70 (0.60 to "
         "0.80), 9 patients: violated"),
        (PPV, [ObservedRate("ppv", 0.7, 0.6, 0.8, 9, 9)], "0.70 (0.60 to 0.80), 9 patients"),
    ],
)  # fmt: skip
def test_one_line_has_the_guarantee_and_what_was_observed_on_test(policy, outcomes, ends):
    by_figure = None if outcomes is None else {each.figure: each for each in outcomes}
    line = MADE.guarantee_line(policy, by_figure)
    assert line.startswith("guaranteed: ")
    assert line.endswith(ends)


def test_a_comparison_compares_guarantees_with_the_test_images(predict, test_set):
    system, guarantee = (
        predict("A", "boxes", seed=1),
        "sensitivity>=0.5&false_positives_per_image<=2@0.8",
    )
    never = "specificity>=0.999@0.999"
    options, alone = TuningOptions(reductions=("max",)), "sensitivity>=0.6@0.8"
    decision = tune_predictions(
        system, test_set, policies=("max_f1", guarantee, never, alone), options=options
    )
    system.write_decision("opacity", decision.to_dict())
    assert decision.thresholds[never].threshold is None
    found = compare_predictions({"A": system}, test_set, replicates=60, unit="patient")
    assert [each.policy for each in found.guarantees] == [guarantee, alone]
    recalls = found.metrics[found.metrics["metric"] == "recall"].set_index("policy")["estimate"]
    for held in found.guarantees:
        choice = decision.thresholds[held.policy]
        assert (held.threshold, held.patients) == (
            choice.threshold,
            decision.guaranteed_patients(held.policy),
        )
        assert held.observed["sensitivity"].estimate == pytest.approx(recalls[held.policy])
    told = metrics_json(found)
    assert told["answer"]["guarantees"] == [each.text for each in found.guarantees]
    assert [row["figure"] for row in told["guarantees"]] == [
        "sensitivity",
        FALSE_POSITIVES,
        "sensitivity",
    ]
    assert told["guarantees"][0]["confidence"] == 0.8
    held = found.guarantees[1]
    (line,) = decision.guarantees(held.policy)
    assert held.text.removeprefix("A, ").startswith(f"{line}; on test: ")
    assert decision.guarantees("max_f1") == decision.guarantees(never) == ()
