"""Numbers of validation patients that a guarantee needs, against the choice of thresholds."""

import json
from functools import partial

import numpy as np
import pytest
from scipy.special import expit, ndtri

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.hospital.guarantee.guarantee import guarantee
from cxr_compare.hospital.guarantee.guaranteed_threshold import (
    FalseBoxes,
    GuaranteeImages,
    Localisation,
)
from cxr_compare.hospital.guarantee.guarantees import read_guarantee

plan = partial(guarantee, plan=True)
SENSITIVITY = "sensitivity>=0.80@0.90"
MEAN = "false_positives_per_image<=0.5@0.9"
PPV = "ppv>=0.3,prevalence=0.2@0.9"
PPV_PLAN = {"expect": "0.5,0.6", "prevalence": 0.3}


@pytest.mark.parametrize(("images", "within"), [(1, None), (3, 0.4)])
def test_guarantee_gets_its_threshold_as_often_as_planned(images, within):
    """Held against the choice of thresholds itself, on scores of which 0.90 lie above 0."""
    (row,) = plan(SENSITIVITY, expect="0.90", images=images, within=within).rows
    rng, guaranteed, fulfilled = (
        np.random.default_rng(5),
        read_guarantee(SENSITIVITY),
        [],
    )
    owner = np.repeat(np.arange(row["patients"]), images)
    alike = within or 0.0
    for _ in range(250):
        patient_effect = np.sqrt(alike) * rng.standard_normal(row["patients"])[owner]
        scores = patient_effect + np.sqrt(1 - alike) * rng.standard_normal(len(owner))
        values = np.append(expit(scores + ndtri(0.9)), 0.001)  # and one negative image
        patients = np.append(owner.astype(str), "none")
        validation = GuaranteeImages(np.arange(len(values)) < len(owner), values, patients)
        threshold, _ = validation.choose(guaranteed)
        fulfilled.append(threshold is not None and threshold >= 0.5 - 0.01)
    assert 0.8 - 0.08 < np.mean(fulfilled) < 0.8 + 0.12  # more where patients come in whole numbers


def test_a_guarantee_of_false_positives_gets_its_threshold_as_often_as_was_planned():
    """Held against the choice of thresholds, on boxes drawn from Poisson's distribution."""
    (row,) = plan("false_positives_per_image<=0.5@0.80", expect="0.3").rows
    rng, guaranteed, fulfilled = (
        np.random.default_rng(6),
        read_guarantee("false_positives_per_image<=0.5@0.80"),
        [],
    )
    patients = np.arange(row["patients"])
    scores = np.where(patients % 2, 0.1, 0.9)
    for _ in range(250):
        image = np.repeat(patients, rng.poisson(0.3, len(patients)))
        localisation = Localisation(
            patients >= 0, None, FalseBoxes(image, np.full(len(image), 0.5))
        )
        images = GuaranteeImages(patients < 9, scores, patients.astype(str), localisation)
        threshold, _ = images.choose(guaranteed)
        fulfilled.append(threshold is not None and threshold < 0.5)
    assert 0.8 - 0.08 < np.mean(fulfilled) < 0.8 + 0.08


def test_guarantee_of_a_ppv_gets_its_threshold_as_often_as_planned():
    """Where 0.6 of positives are called the PPV is 0.7 if 0.6 x 9 / 49 of negatives are."""
    guarantee_text = "ppv>=0.3,prevalence=0.3@0.80"
    (row,) = plan(guarantee_text, expect="0.7,0.6", prevalence=0.5).rows
    rng, guaranteed, fulfilled = np.random.default_rng(7), read_guarantee(guarantee_text), []
    truth = np.arange(row["patients"]) % 2 == 0
    for _ in range(150):
        shift = np.where(truth, ndtri(0.6), ndtri(0.6 * 9 / 49))
        scores = expit(rng.standard_normal(len(truth)) + shift)
        images = GuaranteeImages(truth, scores, np.arange(len(truth)).astype(str))
        threshold, _ = images.choose(guaranteed)
        fulfilled.append(threshold is not None and images.scores[scores >= 0.5].min() >= threshold)
    assert 0.8 - 0.1 < np.mean(fulfilled) < 0.8 + 0.1


def test_two_guaranteed_figures_of_one_bound_share_power_and_error():
    both = plan("sensitivity>=0.80&specificity>=0.80@0.90", expect="0.9,0.9").rows
    (one,) = plan("sensitivity>=0.80@0.95", expect="0.9", power=0.8**0.5).rows
    assert [row["patients"] for row in both] == [one["patients"]] * 2


def test_planned_guarantee_is_printed_drawn_and_stored(tmp_path):
    text = "sensitivity>=0.80&specificity>=0.60@0.90"
    result = plan(text, expect="0.95,0.75", images="1,rsna", out=tmp_path / "plan")
    counts = [row["patients"] for row in result.rows]
    alone = plan("sensitivity>=0.80@0.90", expect="0.95").rows[0]["patients"]
    assert counts[0] > alone  # two at once, each with half of what may go wrong
    assert f"{counts[1]:,} patients with the finding, images as in RSNA" in str(result)
    assert "gets a threshold in 80% of validation sets with" in str(result)
    stored = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert [row["patients"] for row in stored["studies"]] == counts
    assert (tmp_path / "plan" / "figures" / "guarantee.svg").is_file()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (PPV, PPV_PLAN | {"expect": "0.5"}, "expect=\\.\\.\\.: .*ppv .*0.5,0.7"),
        (PPV, PPV_PLAN | {"prevalence": None}, "plan=True: .*ppv .*prevalence="),
        (PPV, PPV_PLAN | {"images": 2}, "plan=True: .*ppv .*images="),
        (PPV, PPV_PLAN | {"expect": "0.25,0.6"}, "expect=0.25: .*0.3 to 1$"),
        (SENSITIVITY, {"expect": "0.9", "prevalence": 0.3}, "prevalence=\\.\\.\\.: .*ppv"),
        (MEAN, {"expect": "0.6"}, "expect=0.6: .*0 to 0.5$"),
        ("auroc>=0.9@0.9", {"expect": "0.95"}, "'auroc>=0.9@0.9': .*sensitivity>=F@C"),
        (SENSITIVITY, {}, "plan=True: .*expect="),
        (SENSITIVITY, {"expect": "0.7"}, "expect=0.7: .*0.8 to 1$"),
        (SENSITIVITY, {"expect": "0.9", "within": 1.0}, "from 0 to below 1"),
        (SENSITIVITY, {"expect": "0.9", "target": "t"}, "target.*plan=True"),
    ],
)
def test_a_guarantee_that_cannot_be_planned_is_refused(text, options, message):
    with pytest.raises(InputError, match=message):
        plan(text, **options)


def test_an_option_of_a_plan_is_refused_without_one():
    with pytest.raises(InputError, match=r"expect=\.\.\.: is for plan=True"):
        guarantee("predictions", SENSITIVITY, expect="0.9")


def test_a_plan_of_few_patients_names_the_fewest_that_are_accepted():
    result = plan("sensitivity>=0.50@0.90", expect="0.95")
    assert result.rows[0]["patients"] < 100
    assert "at least 100 patients" in str(result)
